// y[t, n] = sum over k of w[n, k] * x[t, k] for many tokens, in products of bytes: x is what quantize.wgsl made of it.
//
// A workgroup computes 128 rows of w by TOKENS tokens, in steps of 64 along k, which lie in workgroup memory as bytes; each thread
// multiplies 8 rows by TOKENS / 16 tokens. Steps in which a token has an outlier come a second time, with what rounding left of it.
// k is 65536 at the most.
// Consts: WG (256), TOKENS (32, 64, 128). Flags: DOT4, HALF, TABLE (see quant/), BIAS, IDS; GLU, ADD, POINTWISE, EPILOGUE as in matmul_vec.wgsl.

#import quant

#import matmul_tile_work
#import int8

const ROWS: u32 = 128u;
const BLOCKS: u32 = 2u; // of 32 weights, in a step
const EACH_W: u32 = 8u;
const EACH_X: u32 = TOKENS / 16u;

// Multiplications and additions of a thread in one step (read by tools/kernel-stats).
const MACS: u32 = ROWS * TOKENS * 32u * BLOCKS / WG;

// Blocks first, then their halves, then rows or tokens: neighbouring threads read neighbours. Of fewer than 128 tokens all threads store
// too, what is not read: were it not for all, compilers would load only what is stored, and that late.
var<workgroup> tile_w: array<vec4<u32>, 2u * BLOCKS * ROWS>;
var<workgroup> tile_x: array<vec4<u32>, 2u * WG>;
var<workgroup> scales_w: array<vec4<f32>, BLOCKS * ROWS>;
var<workgroup> terms_x: array<vec4<f32>, WG>;
// A bit for each step that has an outlier; and some of these, for all threads.
var<workgroup> outliers: array<atomic<u32>, 32>;
var<workgroup> some_outliers: u32;

alias Codes = array<array<vec4<u32>, 2>, EACH_W>;
alias Scales = array<vec4<f32>, EACH_W>;
alias Sums = array<array<f32, EACH_X>, EACH_W>;

// A thread's rows are 2 i and 2 i + 1 of each 32 (a gate and its partner are neighbours). Where a row lies: so that the threads
// of each of these eight read neighbours, and neighbouring rows are stored to different parts of the memory's banks.
fn place_w(row: u32) -> u32 {
  return row / 32u * 32u + (row & 1u) * 16u + (((row % 32u) / 2u) ^ (4u * (row & 1u)));
}

// Codes with their zero taken off: signed bytes. No byte borrows from the next, for all have their highest bit set meanwhile.
fn centred(q: vec4<u32>) -> vec4<u32> {
  return ((q | vec4<u32>(0x80808080u)) - vec4<u32>(QUANT_ZERO * 0x01010101u)) ^ vec4<u32>(0x80808080u);
}

// Adds the products of block `b` of the thread's rows with the same of its token number `j`.
fn multiply_token(b: u32, j: u32, w: ptr<function, Codes>, scales: ptr<function, Scales>, first_x: u32, sums: ptr<function, Sums>) {
  let place = first_x + 16u * j;
  let v = array<vec4<u32>, 2>(tile_x[2u * b * TOKENS + place], tile_x[(2u * b + 1u) * TOKENS + place]);
  let terms = terms_x[b * TOKENS + place];
  for (var i = 0u; i < EACH_W; i++) {
    let p = int8_products((*w)[i], v);
    let s = (*scales)[i];
    var sum = (*sums)[i][j];
    if (QUANT_SPLIT) {
      sum += terms.x * (s.x * p.x + s.y * p.y);
      if (QUANT_MIN) {
        sum += s.z * terms.y + s.w * terms.z;
      }
    } else {
      sum += s.x * (terms.x * p.x);
      if (QUANT_MIN) {
        sum += s.z * (terms.y + terms.z);
      }
    }
    (*sums)[i][j] = sum;
  }
}

// Adds the products of step `step`, of the codes or, with `low`, of what rounding left of outliers.
fn multiply(thread: u32, row_w: u32, row_x: u32, step: u32, low: bool, sums: ptr<function, Sums>) {
  let blocks = params.k / 32u;
  let block_w = step * BLOCKS + thread / ROWS;
  let at_w = row_w + min(block_w, blocks - 1u);
  let raw = quant_load32(at_w);
  let block_x = step * BLOCKS + thread / TOKENS % BLOCKS;
  let at_x = row_x + 3u * min(block_x, blocks - 1u);
  let codes_x = select(at_x, params.x_low + at_x / 3u * 2u, low);
  let v = array<vec4<u32>, 2>(x[codes_x], x[codes_x + 1u]);
  var terms = bitcast<vec4<f32>>(x[at_x + 2u]);
  if (low) {
    terms = vec4<f32>(terms.w, 0.0, 0.0, 0.0);
  }
  if (block_x >= blocks) {
    terms = vec4<f32>(0.0);
  }
  workgroupBarrier();
  let codes = quant_codes32(raw);
  let to_w = thread / ROWS * 2u * ROWS + place_w(thread % ROWS);
  if (QUANT_ZERO != 0u) {
    tile_w[to_w] = centred(codes[0]);
    tile_w[to_w + ROWS] = centred(codes[1]);
  } else {
    tile_w[to_w] = codes[0];
    tile_w[to_w + ROWS] = codes[1];
  }
  scales_w[thread / ROWS * ROWS + place_w(thread % ROWS)] = quant_scales32(raw, at_w);
  let to_x = thread / TOKENS * 2u * TOKENS + thread % TOKENS;
  tile_x[to_x] = v[0];
  tile_x[to_x + TOKENS] = v[1];
  terms_x[thread] = terms;
  if (!low && terms.w != 0.0) {
    atomicOr(&outliers[step / 32u], 1u << (step % 32u));
  }
  workgroupBarrier();
  let first_w = thread % 16u;
  let first_x = thread / 16u;
  for (var b = 0u; b < BLOCKS; b++) {
    var w: Codes;
    var scales: Scales;
    for (var i = 0u; i < EACH_W; i++) {
      let place = 16u * i + (first_w ^ (4u * (i & 1u)));
      w[i] = array<vec4<u32>, 2>(tile_w[2u * b * ROWS + place], tile_w[(2u * b + 1u) * ROWS + place]);
      scales[i] = scales_w[b * ROWS + place];
    }
    // One by one, since compilers would not unroll a loop of so much, and sums could not be in registers.
    multiply_token(b, 0u, &w, &scales, first_x, sums);
    multiply_token(b, 1u, &w, &scales, first_x, sums);
    if (EACH_X > 2u) {
      multiply_token(b, 2u, &w, &scales, first_x, sums);
      multiply_token(b, 3u, &w, &scales, first_x, sums);
    }
    if (EACH_X > 4u) {
      multiply_token(b, 4u, &w, &scales, first_x, sums);
      multiply_token(b, 5u, &w, &scales, first_x, sums);
      multiply_token(b, 6u, &w, &scales, first_x, sums);
      multiply_token(b, 7u, &w, &scales, first_x, sums);
    }
  }
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) thread: u32, @builtin(workgroup_id) group: vec3<u32>) {
  let row = params.row_base + group.x * ROWS;
  let work = work_of(group);
#if IDS
  if (work.count == 0u) {
    return;
  }
#end
#if TABLE
  quant_prepare(thread);
#end
  if (thread < 32u) {
    atomicStore(&outliers[thread], 0u);
  }
  workgroupBarrier();

  var sums: Sums;
  for (var i = 0u; i < EACH_W; i++) {
    for (var j = 0u; j < EACH_X; j++) {
      sums[i][j] = 0.0;
    }
  }
  // Loading: 32 weights of a row, and 32 values of a token, for each thread. Those past the end repeat the last one and are not stored.
  let row_w = (work.shard_row + min(row + thread % ROWS, params.rows - 1u)) * (params.row_w8 / 4u);
  let row_x = source(work.first_token + min(thread % TOKENS, work.count - 1u));
  let steps = (params.k + 63u) / 64u;
  for (var step = 0u; step < steps; step++) {
    multiply(thread, row_w, row_x, step, false, &sums);
  }
  for (var some = 0u; 32u * some < steps; some++) {
    workgroupBarrier();
    if (thread == 0u) {
      some_outliers = atomicLoad(&outliers[some]);
    }
    var bits = workgroupUniformLoad(&some_outliers);
    while (bits != 0u) {
      multiply(thread, row_w, row_x, 32u * some + firstTrailingBit(bits), true, &sums);
      bits &= bits - 1u;
    }
  }

  for (var j = 0u; j < EACH_X; j++) {
    let place = thread / 16u + 16u * j;
    if (place < work.count) {
      for (var i = 0u; i < EACH_W; i += 2u) {
        store(work, place, row + 16u * i + 2u * (thread % 16u), vec2<f32>(sums[i][j], sums[i + 1u][j]));
      }
    }
  }
}
