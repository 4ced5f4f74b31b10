// y[t, n] = sum over k of w[n, k] * x[t, k] for many tokens: bound by arithmetic.
//
// A workgroup computes ROWS rows of w by TOKENS tokens, in steps of STEP along k: it decodes the weights and copies the inputs into
// workgroup memory, from where each thread multiplies 4 · QUADS rows by EACH tokens; or, with COOP, subgroups multiply matrices of
// UNIT². Where there are few tokens, and so few workgroups, SLICES parts of a workgroup take turns along k, and add up at the end.
// Consts: ROWS, TOKENS, STEP, QUADS, SLICES, WG (COOP: a subgroup for 4 UNIT² values). Flags: SLICED where there are several; X4 (x is read four values at a time), BIAS, IDS; GLU, ADD,
// POINTWISE, EPILOGUE as in matmul_vec.wgsl; F16 (factors are f16, sums f32) with SCALED (x is brought into f16's range by
// shaders/row_scale.wgsl); COOP with COOP16 or not.

#import quant

#import matmul_tile_work

#if SCALED
@group(0) @binding(9) var<storage, read> scales: array<f32>;
#end

#import threads
#if COOP
#if COOP16
const UNIT: u32 = 16u;
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;
#else
const UNIT: u32 = 8u;
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;
#end
#end

const THREADS: u32 = WG / SLICES; // of a slice, a multiple of 64
const PAIRS: u32 = 2u * QUADS; // of neighbouring rows, of a thread
const EACH: u32 = TOKENS * ROWS / (4u * QUADS * THREADS); // tokens of a thread
const EIGHTHS: u32 = STEP / 8u;
const LINES: u32 = THREADS / EIGHTHS; // rows, or tokens, that a slice loads at a time
// What a thread loads of rows and of tokens: so many times eight values; and whether all threads do the last time.
const TRIPS_W: u32 = (ROWS + LINES - 1u) / LINES;
const TRIPS_X: u32 = (TOKENS + LINES - 1u) / LINES;
const ALL_W: bool = ROWS % LINES == 0u;
const ALL_X: bool = TOKENS % LINES == 0u;

// Multiplications and additions of a thread in one step (read by tools/kernel-stats).
const MACS: u32 = ROWS * TOKENS * STEP / THREADS;

#if F16
alias Cell = f16;
#else
alias Cell = f32;
#end

#if COOP
// Rows and tokens first: matrices of the subgroups' units are read from here, A by rows and B by columns. Rows of 80 bytes: of 64, every
// other would begin in the same bank of memory.
const PITCH: u32 = STEP + 8u;
// Subgroups there must be.
const SUBGROUP_COUNT: u32 = ROWS * TOKENS / (4u * UNIT * UNIT);
var<workgroup> tile_w: array<f16, ROWS * PITCH>;
var<workgroup> tile_x: array<f16, TOKENS * PITCH>;
var<workgroup> stage: array<f32, ROWS * TOKENS>;

fn place_w(row: u32, i: u32) -> u32 { return row * PITCH + i; }
fn place_x(token: u32, i: u32) -> u32 { return token * PITCH + i; }

// Puts eight values of a row into the tile.
fn put_w(slice: u32, row: u32, eighth: u32, v: array<vec4<f32>, 2>) {
  let at = place_w(row, 8u * eighth);
  let a = vec4<f16>(v[0]);
  let b = vec4<f16>(v[1]);
  tile_w[at] = a.x;
  tile_w[at + 1u] = a.y;
  tile_w[at + 2u] = a.z;
  tile_w[at + 3u] = a.w;
  tile_w[at + 4u] = b.x;
  tile_w[at + 5u] = b.y;
  tile_w[at + 6u] = b.z;
  tile_w[at + 7u] = b.w;
}

// The same of a token.
fn put_x(slice: u32, token: u32, eighth: u32, v: array<vec4<f32>, 2>) {
  let at = place_x(token, 8u * eighth);
  let a = vec4<f16>(v[0]);
  let b = vec4<f16>(v[1]);
  tile_x[at] = a.x;
  tile_x[at + 1u] = a.y;
  tile_x[at + 2u] = a.z;
  tile_x[at + 3u] = a.w;
  tile_x[at + 4u] = b.x;
  tile_x[at + 5u] = b.y;
  tile_x[at + 6u] = b.z;
  tile_x[at + 7u] = b.w;
}
#else
// Four values along k at a time, and these along k first, so that the threads of a row or column read neighbours.
const CELLS_W: u32 = STEP / 4u * ROWS;
const CELLS_X: u32 = STEP / 4u * TOKENS;
var<workgroup> tile_w: array<vec4<Cell>, SLICES * CELLS_W>;
var<workgroup> tile_x: array<vec4<Cell>, SLICES * CELLS_X>;

// Where a row lies among those of the same fours. Even rows come before odd ones, since a thread multiplies two neighbours; and eight
// rows in turn lie in eight different parts of the memory's banks.
fn place_w(row: u32) -> u32 {
  return (row & 1u) * (ROWS / 2u) + ((row / 2u) ^ (4u * (row & 1u)));
}

// Puts eight values of a row into a slice's tile.
fn put_w(slice: u32, row: u32, eighth: u32, v: array<vec4<f32>, 2>) {
  tile_w[slice * CELLS_W + 2u * eighth * ROWS + place_w(row)] = vec4<Cell>(v[0]);
  tile_w[slice * CELLS_W + (2u * eighth + 1u) * ROWS + place_w(row)] = vec4<Cell>(v[1]);
}

// The same of a token.
fn put_x(slice: u32, token: u32, eighth: u32, v: array<vec4<f32>, 2>) {
  tile_x[slice * CELLS_X + 2u * eighth * TOKENS + token] = vec4<Cell>(v[0]);
  tile_x[slice * CELLS_X + (2u * eighth + 1u) * TOKENS + token] = vec4<Cell>(v[1]);
}
#end

// Values 8 i .. 8 i + 7 of x from `start` on; zeros past k.
fn x8(start: u32, i: u32) -> array<vec4<f32>, 2> {
  var out: array<vec4<f32>, 2>;
  if (8u * i >= params.k) {
    return out;
  }
#if X4
  let at = start / 4u + 2u * i;
  out[0] = x[at];
  out[1] = x[at + 1u];
#else
  let count = min(8u, params.k - 8u * i);
  for (var j = 0u; j < count; j++) {
    out[j / 4u][j % 4u] = x[start + 8u * i + j];
  }
#end
  return out;
}

#if SCALED
// The row of x that place `at` reads.
fn scale_row(at: u32) -> u32 {
#if IDS
  let pair = order[at];
  return select(pair, pair / params.used, params.x_step == 0u);
#else
  return at;
#end
}
#end

@compute @workgroup_size(WG)
fn main(thread_of: Thread, @builtin(workgroup_id) group: vec3<u32>) {
  let thread = thread_of.index;
  let row = params.row_base + group.x * ROWS;
  let work = work_of(group);
#if IDS
  if (work.count == 0u) {
    return;
  }
#end

  // Multiplying: four rows, or eight, and EACH tokens for each thread. Two rows are neighbours, as a gate and its partner are; the
  // other pairs lie further off, so that neighbouring threads read from neighbouring places.
#if SLICED
  let slice = thread / THREADS;
  let place = thread % THREADS;
#else
  const slice: u32 = 0u;
  let place = thread;
#end
  let first_row = 2u * (place % (ROWS / (2u * PAIRS)));
  var rows: array<u32, 2u * PAIRS>;
  for (var j = 0u; j < 2u * PAIRS; j++) {
    rows[j] = first_row + j / 2u * (ROWS / PAIRS) + j % 2u;
  }
  let my_token = EACH * (place / (ROWS / (2u * PAIRS)));
  var sums: array<vec4<f32>, EACH * QUADS>;
#if COOP
  // Two by two matrices for each subgroup.
  let unit_row = 2u * UNIT * (thread_of.subgroup % SUBGROUP_COUNT / 2u);
  let unit_token = 2u * UNIT * (thread_of.subgroup % 2u);
  var c00 = MatrixC();
  var c01 = MatrixC();
  var c10 = MatrixC();
  var c11 = MatrixC();
#else
  var places: array<u32, 2u * PAIRS>;
  for (var j = 0u; j < 2u * PAIRS; j++) {
    places[j] = slice * CELLS_W + place_w(rows[j]);
  }
  for (var t = 0u; t < EACH * QUADS; t++) {
    sums[t] = vec4<f32>(0.0);
  }
#end
  // Loading: eight values of a row, or a token, at a time; sixteen threads side by side take as many rows. The trips are constant, so
  // that what all of them ask for is on its way before any is waited for.
  let eighth = place / 16u % EIGHTHS;
  let my_line = place / (16u * EIGHTHS) * 16u + place % 16u;
  var rows_at: array<u32, TRIPS_W>;
  for (var j = 0u; j < TRIPS_W; j++) {
    rows_at[j] = (work.shard_row + min(row + my_line + j * LINES, params.rows - 1u)) * params.row_w8;
  }
  var tokens_at: array<u32, TRIPS_X>;
#if SCALED
  var factors: array<f32, TRIPS_X>;
#end
  for (var j = 0u; j < TRIPS_X; j++) {
    let place = work.first_token + min(my_line + j * LINES, work.count - 1u);
    tokens_at[j] = source(place);
#if SCALED
    factors[j] = scales[scale_row(place)];
#end
  }
  for (var start = 0u; start < params.k; start += SLICES * STEP) {
#if SLICED
    // Past k, the row's last weights meet zeros.
    let i = start / 8u + slice * EIGHTHS + eighth;
    let at = min(i, params.row_w8 - 1u);
#else
    let i = start / 8u + eighth;
    let at = i;
#end
    var w: array<QuantRaw, TRIPS_W>;
    var v: array<array<vec4<f32>, 2>, TRIPS_X>;
    for (var j = 0u; j < TRIPS_W; j++) {
      w[j] = quant_load(rows_at[j] + at);
    }
    for (var j = 0u; j < TRIPS_X; j++) {
      v[j] = x8(tokens_at[j], i);
    }
    workgroupBarrier();
    for (var j = 0u; j < TRIPS_W; j++) {
      let r = my_line + j * LINES;
      if (ALL_W || r < ROWS) {
        put_w(slice, r, eighth, quant_weights(quant_codes(w[j], rows_at[j] + at, at)));
      }
    }
    for (var j = 0u; j < TRIPS_X; j++) {
      let t = my_line + j * LINES;
      if (ALL_X || t < TOKENS) {
#if SCALED
        v[j][0] *= factors[j];
        v[j][1] *= factors[j];
#end
        put_x(slice, t, eighth, quant_order(v[j]));
      }
    }
    workgroupBarrier();
#if COOP
    for (var i = 0u; i < STEP; i += UNIT) {
      let a0 = coopLoadT<MatrixA>(&tile_w[place_w(unit_row, i)], PITCH);
      let a1 = coopLoadT<MatrixA>(&tile_w[place_w(unit_row + UNIT, i)], PITCH);
      let b0 = coopLoad<MatrixB>(&tile_x[place_x(unit_token, i)], PITCH);
      let b1 = coopLoad<MatrixB>(&tile_x[place_x(unit_token + UNIT, i)], PITCH);
      c00 = coopMultiplyAdd(a0, b0, c00);
      c01 = coopMultiplyAdd(a0, b1, c01);
      c10 = coopMultiplyAdd(a1, b0, c10);
      c11 = coopMultiplyAdd(a1, b1, c11);
    }
#else
    for (var i = 0u; i < STEP / 4u; i++) {
      var cells: array<vec4<f32>, 2u * PAIRS>;
      for (var j = 0u; j < 2u * PAIRS; j++) {
        cells[j] = vec4<f32>(tile_w[i * ROWS + places[j]]);
      }
      for (var t = 0u; t < EACH; t++) {
        let v = vec4<f32>(tile_x[slice * CELLS_X + i * TOKENS + my_token + t]);
        for (var q = 0u; q < QUADS; q++) {
          let w0 = cells[4u * q];
          let w1 = cells[4u * q + 1u];
          let w2 = cells[4u * q + 2u];
          let w3 = cells[4u * q + 3u];
          sums[t * QUADS + q] += vec4<f32>(dot(w0, v), dot(w1, v), dot(w2, v), dot(w3, v));
        }
      }
    }
#end
  }
#if COOP
  coopStoreT(c00, &stage[unit_row * TOKENS + unit_token], TOKENS);
  coopStoreT(c01, &stage[unit_row * TOKENS + unit_token + UNIT], TOKENS);
  coopStoreT(c10, &stage[(unit_row + UNIT) * TOKENS + unit_token], TOKENS);
  coopStoreT(c11, &stage[(unit_row + UNIT) * TOKENS + unit_token + UNIT], TOKENS);
  workgroupBarrier();
  // NaN if subgroups are not of the expected size: a device may choose another for each kernel.
  let wrong = thread_of.subgroups != SUBGROUP_COUNT;
  for (var t = 0u; t < EACH; t++) {
    for (var j = 0u; j < 4u; j++) {
      sums[t][j] = bitcast<f32>(select(bitcast<u32>(stage[rows[j] * TOKENS + my_token + t]), 0x7fc00000u, wrong));
    }
  }
#end
#if SLICED
  // The first slice adds up.
  workgroupBarrier();
  if (slice > 0u) {
    for (var t = 0u; t < EACH * QUADS; t++) {
      tile_w[((slice - 1u) * EACH * QUADS + t) * THREADS + place] = sums[t];
    }
  }
  workgroupBarrier();
  if (slice > 0u) {
    return;
  }
  for (var other = 1u; other < SLICES; other++) {
    for (var t = 0u; t < EACH * QUADS; t++) {
      sums[t] += tile_w[((other - 1u) * EACH * QUADS + t) * THREADS + place];
    }
  }
#end

  for (var t = 0u; t < EACH; t++) {
    if (my_token + t < work.count) {
      for (var q = 0u; q < QUADS; q++) {
        var values = sums[t * QUADS + q];
#if SCALED
        // The inverse by its exponent bits: division need not be exact.
        values *= bitcast<f32>((254u << 23u) - bitcast<u32>(scales[scale_row(work.first_token + my_token + t)]));
#end
        store(work, my_token + t, row + rows[4u * q], values.xy);
        store(work, my_token + t, row + rows[4u * q + 2u], values.zw);
      }
    }
  }
}
