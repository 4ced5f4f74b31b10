// What tiles of products have in common: their part of the work, where a token's input begins, how sums are stored.
// With IDS the "tokens" are (token, used) pairs sorted by expert (shaders/matmul_id_sort.wgsl), so that all of a tile see the same weights.
// Flags as in matmul_vec.wgsl.

struct Params {
  planes: vec4<u32>,
  k: u32,
  row_w8: u32,   // eights of a row of w, padding included
  rows: u32,     // rows of w in this shard; with IDS, of one expert
  row_base: u32, // the first of them that this dispatch computes: long work is cut
  n: u32,        // rows of all of w; with IDS, of one expert
  first: u32,    // first row of this shard; with IDS, its first expert
  x_stride: u32, // with DOT4, in vectors
  x_offset: u32,
#if DOT4
  x_low: u32,
#end
  y_stride: u32,
  y_offset: u32,
#if BIAS
  bias_offset: u32,
#end
#if IDS
  experts: u32, // experts in this shard
  used: u32,
  x_step: u32,  // from one of a token's inputs to the next; 0 if all experts see the same
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

struct Work {
  count: u32,       // tokens; with IDS, 0 if there is nothing to do
  first_token: u32, // with IDS, its place in `order`
  shard_row: u32,   // where the matrix begins in this shard
  bias_start: u32,
  column: u32,      // of y, where this shard's rows begin
}

// A workgroup's part.
fn work_of(group: vec3<u32>) -> Work {
#if IDS
  let tile = tiles[group.y];
  if (tile.x < params.first || tile.x - params.first >= params.experts) {
    return Work(0u, 0u, 0u, 0u, 0u);
  }
  return Work(tile.z, tile.y, (tile.x - params.first) * params.rows, tile.x * params.n, 0u);
#else
  let first = group.y * TOKENS;
  return Work(min(TOKENS, params.tokens - first), first, 0u, params.first, params.first);
#end
}

// Where x begins for place `at` of the tokens, or of the sorted pairs.
fn source(at: u32) -> u32 {
#if IDS
  let pair = order[at];
  return params.x_offset + pair / params.used * params.x_stride + pair % params.used * params.x_step;
#else
  return params.x_offset + at * params.x_stride;
#end
}

// Stores the sums of rows r and r + 1, which may be a gate and its partner, for token number `place` of the tile.
fn store(work: Work, place: u32, r: u32, sums: vec2<f32>) {
#if IDS
  let token = order[work.first_token + place];
#else
  let token = work.first_token + place;
#end
  var values = sums;
#if BIAS
  let last = params.rows - 1u; // rows past the end are not stored
  let biases = params.bias_offset + work.bias_start;
  values += vec2<f32>(bias[biases + min(r, last)], bias[biases + min(r + 1u, last)]);
#end
  let at = params.y_offset + token * params.y_stride;
#if GLU
  if (r < params.rows) {
    y[at + (work.column + r) / 2u] = glu_eval(values.x, values.y);
  }
#else
  for (var e = 0u; e < 2u; e++) {
    if (r + e < params.rows) {
      var value = values[e];
#if POINTWISE
      value = unary_eval(value);
#end
#if ADD
      value = residual[params.residual_offset + token * params.residual_stride + work.column + r + e] + params.a * value;
#end
      y[at + work.column + r + e] = value;
    }
  }
#end
}
