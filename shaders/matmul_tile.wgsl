// y[t, n] = sum over k of w[n, k] * x[t, k] for many tokens: bound by arithmetic.
//
// A workgroup of 256 threads computes 64 rows of w by TOKENS tokens, in steps of 32 along k: it decodes the weights and
// copies the inputs into workgroup memory, from where each thread multiplies 4 rows by TOKENS / 16 tokens.
// With IDS the "tokens" are (token, used) pairs sorted by expert (shaders/matmul_id_sort.wgsl), so that all of a tile see
// the same weights.
// Consts: TOKENS (32 or 64). Flags: X4 (x is read four values at a time), BIAS, IDS; GLU, ADD, POINTWISE, EPILOGUE as in
// matmul_vec.wgsl.

#import quant

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
#if BIAS
  bias_offset: u32,
#end
#if IDS
  experts: u32, // experts in this shard
  used: u32,
  x_step: u32,  // from one of a token's inputs to the next; 0 where all experts see the same
#else
  tokens: u32,
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
@group(0) @binding(6) var<storage, read> tiles: array<vec4<u32>>; // expert, first place in `order`, pairs
@group(0) @binding(7) var<storage, read> order: array<u32>;
#end

const WG: u32 = 256u;
const ROWS: u32 = 64u;
const STEP: u32 = 32u;
const EACH: u32 = TOKENS / 16u; // tokens of a thread

// Both along k first, so that the threads of a row or column read neighbours.
var<workgroup> tile_w: array<f32, STEP * ROWS>;
var<workgroup> tile_x: array<f32, STEP * TOKENS>;

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

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = group.x * ROWS;
#if IDS
  let tile = tiles[group.y];
  let count = tile.z;
  if (count == 0u || tile.x < params.first || tile.x - params.first >= params.experts) {
    return;
  }
  let shard_row = (tile.x - params.first) * params.rows;
  let bias_start = tile.x * params.n;
  let column = 0u;
#else
  let shard_row = 0u;
  let bias_start = params.first;
  let column = params.first;
  let first_token = group.y * TOKENS;
  let count = min(TOKENS, params.tokens - first_token);
#end

  // Loading: one row, or one token, and a quarter of the step for each thread.
  let load_row = (shard_row + min(row + thread % ROWS, params.rows - 1u)) * params.row_w8;
  let load_w = thread / ROWS;
  let load_token = thread % TOKENS;
  let load_x = thread / TOKENS;
  let place = min(load_token, count - 1u);
#if IDS
  let load_pair = order[tile.y + place];
  let x_start = params.x_offset + load_pair / params.used * params.x_stride + load_pair % params.used * params.x_step;
#else
  let x_start = params.x_offset + (first_token + place) * params.x_stride;
#end

  // Multiplying: four rows and EACH tokens for each thread.
  let my_row = 4u * (thread % 16u);
  let my_token = EACH * (thread / 16u);
  var sums: array<vec4<f32>, EACH>;
  for (var t = 0u; t < EACH; t++) {
    sums[t] = vec4<f32>(0.0);
  }
  for (var start = 0u; start < params.k; start += STEP) {
    workgroupBarrier();
    let w = quant_w8(load_row + start / 8u + load_w);
    for (var j = 0u; j < 8u; j++) {
      tile_w[(8u * load_w + j) * ROWS + thread % ROWS] = w[j / 4u][j % 4u];
    }
    if (load_x < 4u) {
      let v = x8(x_start, start / 8u + load_x);
      for (var j = 0u; j < 8u; j++) {
        tile_x[(8u * load_x + j) * TOKENS + load_token] = v[j / 4u][j % 4u];
      }
    }
    workgroupBarrier();
    for (var i = 0u; i < STEP; i++) {
      let at = i * ROWS + my_row;
      let four = vec4<f32>(tile_w[at], tile_w[at + 1u], tile_w[at + 2u], tile_w[at + 3u]);
      for (var t = 0u; t < EACH; t++) {
        sums[t] += four * tile_x[i * TOKENS + my_token + t];
      }
    }
  }

  for (var t = 0u; t < EACH; t++) {
    if (my_token + t < count) {
#if IDS
      let token = order[tile.y + my_token + t];
#else
      let token = first_token + my_token + t;
#end
      var values = sums[t];
#if BIAS
      for (var j = 0u; j < 4u; j++) {
        let last = params.rows - 1u; // rows past the end are not stored
        values[j] += bias[params.bias_offset + bias_start + min(row + my_row + j, last)];
      }
#end
#if GLU
      for (var j = 0u; j < 2u; j++) {
        if (row + my_row + 2u * j < params.rows) {
          let at = (column + row + my_row) / 2u + j;
          y[params.y_offset + token * params.y_stride + at] = glu_eval(values[2u * j], values[2u * j + 1u]);
        }
      }
#else
      for (var j = 0u; j < 4u; j++) {
        let r = row + my_row + j;
        if (r < params.rows) {
          var value = values[j];
#if POINTWISE
          value = unary_eval(value);
#end
#if ADD
          value = residual[params.residual_offset + token * params.residual_stride + column + r] + params.a * value;
#end
          y[params.y_offset + token * params.y_stride + column + r] = value;
        }
      }
#end
    }
  }
}
