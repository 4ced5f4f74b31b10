// y[t, n] = sum over k of w[n, k] * x[t, k] for a few tokens: bound by reading w, which is read once for up to eight. More tokens go in
// groups of COLS, whose workgroups follow each other, so that w is read again while it is near; the order of a token's sums does not
// depend on how many there are.
//
// A workgroup computes ROWS rows of w for COLS tokens; its threads share out k, eight weights at a time, and add up at the
// end. With IDS each workgroup serves one (token, used) pair, and the pair's expert id says where in w its rows lie; with
// COMBINE it serves one token, and adds up its experts' products by their factors.
// Products are taken of codes rather than of weights, d · (Σ q x − offset · Σ x): scales and offsets are applied once for eight.
// Consts: WG, ROWS, COLS, with FEW also STEPS. Flags: HALF, TABLE (see quant/), X4 (x is read four values at a time), DOT4 (x is what
// quantize.wgsl made of it), FEW (rows are at most STEPS steps long, which are written out), COLUMNS (there are several groups of tokens), BIAS, SUBGROUPS, IDS (then COLS is 1),
// COMBINE, MORE (the experts of an earlier shard are in y); before the product: NORM, being RMS or LAYER, with NORM_W, NORM_B; behind it:
// GLU (rows of gate and up in turn), ADD (a residual), or one of pointwise.wgsl (flag POINTWISE); EPILOGUE where any of these needs its
// constants.

#import quant
#import threads

struct Params {
  planes: vec4<u32>,
  k: u32,
  row_w8: u32, // eights of a row of w, padding included
  rows: u32,   // rows of w in this shard; with IDS, of one expert
  n: u32,      // rows of all of w; with IDS, of one expert
  first: u32,  // first row of this shard; with IDS, its first expert
  x_stride: u32,
  x_offset: u32,
  y_stride: u32,
  y_offset: u32,
#if DOT4
  x_low: u32,
#end
#if COLUMNS
  column_groups: u32,
#end
#if BIAS
  bias_offset: u32,
#end
#if IDS
  experts: u32, // experts in this shard
  pairs: u32,   // with COMBINE, tokens
  used: u32,
  x_step: u32,  // from one of a token's inputs to the next; 0 if all experts see the same
  ids_stride: u32,
  ids_offset: u32,
#end
#if COMBINE
  factors_stride: u32,
  factors_offset: u32,
#end
#if NORM
  eps: f32,
#end
#if NORM_W
  norm_w_offset: u32,
#end
#if NORM_B
  norm_b_offset: u32,
#end
#if ADD
  residual_stride: u32,
  residual_offset: u32,
#end
#if EPILOGUE
  a: f32,
  b: f32,
#end
}

#import matmul_bindings
#if IDS
@group(0) @binding(6) var<storage, read> ids: array<f32>;
#end
#if COMBINE
@group(0) @binding(7) var<storage, read> factors: array<f32>;
#end
#if NORM_W
#if X4
@group(0) @binding(9) var<storage, read> norm_w: array<vec4<f32>>;
#else
@group(0) @binding(9) var<storage, read> norm_w: array<f32>;
#end
#end
#if NORM_B
#if X4
@group(0) @binding(10) var<storage, read> norm_b: array<vec4<f32>>;
#else
@group(0) @binding(10) var<storage, read> norm_b: array<f32>;
#end
#end

#if LAYER
#import reduce
#end

// Multiplications and additions of a thread in one turn of the main loop, which is two steps, or a block (read by tools/kernel-stats).
#if DOT4
const MACS: u32 = 32u * ROWS * COLS;
#else
const MACS: u32 = 16u * ROWS * COLS;
#end

#if RMS
// The squares of x are summed beside the products, and the norm is a factor at the end.
const SUMS: u32 = ROWS * COLS + COLS;
#else
const SUMS: u32 = ROWS * COLS;
#end
#if SUBGROUPS
// Subgroups may be as small as four threads.
var<workgroup> parts: array<f32, SUMS * (WG / 4u)>;
#else
var<workgroup> parts: array<f32, SUMS * WG>;
#end

#if DOT4
#import matmul_vec_int8
#else
// Values 8 i .. 8 i + 7 of x from `start` on.
fn x8(start: u32, i: u32) -> array<vec4<f32>, 2> {
#if X4
  let at = start / 4u + 2u * i;
  return array<vec4<f32>, 2>(x[at], x[at + 1u]);
#else
  var out: array<vec4<f32>, 2>;
  let count = min(8u, params.k - 8u * i);
  for (var j = 0u; j < count; j++) {
    out[j / 4u][j % 4u] = x[start + 8u * i + j];
  }
  return out;
#end
}

#if NORM_W
// Values i .. i + 3; past k whatever, for there the weights of rows are zeros.
fn norm_w4(i: u32) -> vec4<f32> {
#if X4
  return norm_w[(params.norm_w_offset + i) / 4u];
#else
  let at = params.norm_w_offset + i;
  let last = params.norm_w_offset + params.k - 1u;
  return vec4<f32>(norm_w[min(at, last)], norm_w[min(at + 1u, last)], norm_w[min(at + 2u, last)], norm_w[min(at + 3u, last)]);
#end
}
#end
#if NORM_B
// Values i .. i + 3; past k whatever, for there the weights of rows are zeros.
fn norm_b4(i: u32) -> vec4<f32> {
#if X4
  return norm_b[(params.norm_b_offset + i) / 4u];
#else
  let at = params.norm_b_offset + i;
  let last = params.norm_b_offset + params.k - 1u;
  return vec4<f32>(norm_b[min(at, last)], norm_b[min(at + 1u, last)], norm_b[min(at + 2u, last)], norm_b[min(at + 3u, last)]);
#end
}
#end

#if LAYER
// Mean, and one over the deviation, of the inputs.
fn statistics(start: u32, thread: Thread) -> vec2<f32> {
  var sum = 0.0;
  for (var i = thread.index; 8u * i < params.k; i += WG) {
    let v = x8(start, i);
    sum += dot(v[0], vec4<f32>(1.0)) + dot(v[1], vec4<f32>(1.0));
  }
  let mean = reduce_add(sum, thread) / f32(params.k);
  var squares = 0.0;
  for (var i = thread.index; 8u * i < params.k; i += WG) {
    let v = x8(start, i);
    for (var j = 0u; j < min(8u, params.k - 8u * i); j++) {
      let d = v[j / 4u][j % 4u] - mean;
      squares += d * d;
    }
  }
  return vec2<f32>(mean, 1.0 / sqrt(reduce_add(squares, thread) / f32(params.k) + params.eps));
}
var<private> stats: array<vec2<f32>, COLS>;
#end

// Values 8 i .. 8 i + 7 of token t's input, normalised.
fn input(start: u32, i: u32, t: u32, factor: f32, sums: ptr<function, array<f32, SUMS>>) -> array<vec4<f32>, 2> {
  var v = x8(start + t * params.x_stride, i);
#if RMS
  (*sums)[ROWS * COLS + t] += dot(v[0], v[0]) + dot(v[1], v[1]);
#end
#if LAYER
  v[0] = (v[0] - stats[t].x) * stats[t].y;
  v[1] = (v[1] - stats[t].x) * stats[t].y;
#end
#if NORM_W
  v[0] *= norm_w4(8u * i);
  v[1] *= norm_w4(8u * i + 4u);
#end
#if NORM_B
  v[0] += norm_b4(8u * i);
  v[1] += norm_b4(8u * i + 4u);
#end
#if COMBINE
  v[0] *= factor;
  v[1] *= factor;
#end
  return v;
}

// Adds the products of eight weights of each row with the inputs.
fn multiply(q: array<QuantRaw, ROWS>, rows: array<u32, ROWS>, start: u32, i: u32, factor: f32, sums: ptr<function, array<f32, SUMS>>) {
  var codes: array<QuantCodes, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    codes[r] = quant_codes(q[r], rows[r] + i, i);
  }
  for (var t = 0u; t < COLS; t++) {
    let v = input(start, i, t, factor, sums);
    let sum = dot(v[0], vec4<f32>(1.0)) + dot(v[1], vec4<f32>(1.0));
    let x = quant_order(v);
    for (var r = 0u; r < ROWS; r++) {
      (*sums)[r * COLS + t] += quant_dot(codes[r], x, sum);
    }
  }
}

fn load(rows: array<u32, ROWS>, i: u32) -> array<QuantRaw, ROWS> {
  var q: array<QuantRaw, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    q[r] = quant_load(rows[r] + i);
  }
  return q;
}

// Adds the products of rows `row` .. of the matrix at row `base` of w with the inputs from `start` on, times `factor`. What two steps
// need of w, or all steps if they are few, is asked for before any is computed: memory is far away.
fn accumulate(thread: u32, base: u32, row: u32, start: u32, factor: f32, sums: ptr<function, array<f32, SUMS>>) {
  var rows: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    // Rows past the end repeat the last one and are not stored.
    rows[r] = (base + min(row + r, params.rows - 1u)) * params.row_w8;
  }
  let eights = (params.k + 7u) / 8u;
#if FEW
  var q: array<array<QuantRaw, ROWS>, STEPS>;
  for (var s = 0u; s < STEPS; s++) {
    q[s] = load(rows, min(thread + s * WG, eights - 1u));
  }
  for (var s = 0u; s < STEPS; s++) {
    if (thread + s * WG < eights) {
      multiply(q[s], rows, start, thread + s * WG, factor, sums);
    }
  }
#else
  var i = thread;
  for (; i + WG < eights; i += 2u * WG) {
    let p = load(rows, i);
    let q = load(rows, i + WG);
    multiply(p, rows, start, i, factor, sums);
    multiply(q, rows, start, i + WG, factor, sums);
  }
  if (i < eights) {
    multiply(load(rows, i), rows, start, i, factor, sums);
  }
#end
}
#end

// Sum `s` of all threads.
fn total(s: u32, thread: Thread) -> f32 {
#if SUBGROUPS
  var sum = 0.0;
  for (var g = 0u; g < thread.subgroups; g++) {
    sum += parts[g * SUMS + s];
  }
  return sum;
#else
  return parts[s * WG];
#end
}

@compute @workgroup_size(WG)
fn main(thread: Thread, @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
#if TABLE
  quant_prepare(thread.index);
  workgroupBarrier();
#end
  var sums: array<f32, SUMS>;
  for (var s = 0u; s < SUMS; s++) {
    sums[s] = 0.0;
  }
#if IDS
  let pair = group.y + group.z * groups.y;
  if (pair >= params.pairs) {
    return;
  }
  let row = group.x * ROWS;
  let to = params.y_offset + pair * params.y_stride;
#if COMBINE
  for (var u = 0u; u < params.used; u++) {
    let expert = u32(ids[params.ids_offset + pair * params.ids_stride + u]) - params.first;
    if (expert < params.experts) {
      let factor = factors[params.factors_offset + pair * params.factors_stride + u];
      let start = params.x_offset + pair * params.x_stride + u * params.x_step;
      accumulate(thread.index, expert * params.rows, row, start, factor, &sums);
    }
  }
#else
  let expert = u32(ids[params.ids_offset + pair / params.used * params.ids_stride + pair % params.used]);
  if (expert < params.first || expert - params.first >= params.experts) {
    return;
  }
  let bias_start = expert * params.n;
  let start = params.x_offset + pair / params.used * params.x_stride + pair % params.used * params.x_step;
#if LAYER
  stats[0] = statistics(start, thread);
#end
  accumulate(thread.index, (expert - params.first) * params.rows, row, start, 1.0, &sums);
#end
#else
  let number = group.x + group.y * groups.x;
#if COLUMNS
  let row = number / params.column_groups * ROWS;
  let first_token = number % params.column_groups * COLS;
#else
  let row = number * ROWS;
  let first_token = 0u;
#end
  if (row >= params.rows) {
    return;
  }
#if GLU
  let to = params.y_offset + first_token * params.y_stride + params.first / 2u;
#else
  let to = params.y_offset + first_token * params.y_stride + params.first;
#end
  let bias_start = params.first;
#if LAYER
  for (var t = 0u; t < COLS; t++) {
    stats[t] = statistics(params.x_offset + (first_token + t) * params.x_stride, thread);
  }
#end
  accumulate(thread.index, 0u, row, params.x_offset + first_token * params.x_stride, 1.0, &sums);
#end

#if SUBGROUPS
  for (var s = 0u; s < SUMS; s++) {
    let part = subgroupAdd(sums[s]);
    if (thread.lane == 0u) {
      parts[thread.subgroup * SUMS + s] = part;
    }
  }
  workgroupBarrier();
#else
  for (var s = 0u; s < SUMS; s++) {
    parts[s * WG + thread.index] = sums[s];
  }
  workgroupBarrier();
  for (var half = WG / 2u; half > 0u; half /= 2u) {
    if (thread.index < half) {
      for (var s = 0u; s < SUMS; s++) {
        parts[s * WG + thread.index] += parts[s * WG + thread.index + half];
      }
    }
    workgroupBarrier();
  }
#end

#if GLU
  const EACH: u32 = 2u;
#else
  const EACH: u32 = 1u;
#end
  for (var s = thread.index; s < ROWS / EACH * COLS; s += WG) {
    let t = s % COLS;
    let r = s / COLS * EACH;
    if (row + r < params.rows) {
      var values: array<f32, EACH>;
      for (var j = 0u; j < EACH; j++) {
        values[j] = total((r + j) * COLS + t, thread);
#if RMS
        values[j] /= sqrt(total(ROWS * COLS + t, thread) / f32(params.k) + params.eps);
#end
#if BIAS
#if COMBINE
        for (var u = 0u; u < params.used; u++) {
          let expert = u32(ids[params.ids_offset + pair * params.ids_stride + u]);
          let factor = factors[params.factors_offset + pair * params.factors_stride + u];
          if (expert - params.first < params.experts) {
            values[j] += factor * bias[params.bias_offset + expert * params.n + row + r + j];
          }
        }
#else
        values[j] += bias[params.bias_offset + bias_start + row + r + j];
#end
#end
      }
      let at = to + t * params.y_stride + (row + r) / EACH;
      var value = values[0];
#if GLU
      value = glu_eval(values[0], values[1]);
#else
#if POINTWISE
      value = unary_eval(value);
#end
#end
#if ADD
#if IDS
      value = residual[params.residual_offset + pair * params.residual_stride + row + r] + params.a * value;
#else
      value = residual[params.residual_offset + (first_token + t) * params.residual_stride + params.first + row + r] + params.a * value;
#end
#end
#if MORE
      value = y[at] + params.a * value;
#end
      y[at] = value;
    }
  }
}
