// y[t, n] = sum over k of w[n, k] * x[t, k] for up to eight tokens: bound by reading w, which is read once.
//
// A workgroup computes ROWS rows of w for COLS tokens; its threads share out k, eight weights at a time, and add up at the
// end. With IDS each workgroup serves one (token, used) pair, and the pair's expert id says where in w its rows lie.
// Consts: WG, ROWS, COLS. Flags: X4 (x is read four values at a time), BIAS, IDS (then COLS is 1), SUBGROUPS.

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
  y_offset: u32,
#if BIAS
  bias_offset: u32,
#end
#if IDS
  experts: u32, // experts in this shard
  pairs: u32,
  used: u32,
  x_step: u32,  // from one of a token's inputs to the next; 0 where all experts see the same
  ids_stride: u32,
  ids_offset: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> wq: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> wd: array<u32>;
#if X4
@group(0) @binding(3) var<storage, read> x: array<vec4<f32>>;
#else
@group(0) @binding(3) var<storage, read> x: array<f32>;
#end
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
#if BIAS
@group(0) @binding(5) var<storage, read> bias: array<f32>;
#end
#if IDS
@group(0) @binding(6) var<storage, read> ids: array<f32>;
#end

const SUMS: u32 = ROWS * COLS;
#if SUBGROUPS
// Subgroups may be as small as four threads.
var<workgroup> parts: array<f32, SUMS * (WG / 4u)>;
#else
var<workgroup> parts: array<f32, SUMS * WG>;
#end

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

@compute @workgroup_size(WG)
fn main(thread: Thread, @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
#if IDS
  let pair = group.y + group.z * groups.y;
  if (pair >= params.pairs) {
    return;
  }
  let row = group.x * ROWS;
  let expert = u32(ids[params.ids_offset + pair / params.used * params.ids_stride + pair % params.used]);
  if (expert < params.first || expert - params.first >= params.experts) {
    return;
  }
  let shard_row = (expert - params.first) * params.rows;
  let x_start = params.x_offset + pair / params.used * params.x_stride + pair % params.used * params.x_step;
  let to = params.y_offset + pair * params.n;
  let bias_start = expert * params.n;
#else
  let row = (group.x + group.y * groups.x) * ROWS;
  if (row >= params.rows) {
    return;
  }
  let shard_row = 0u;
  let x_start = params.x_offset;
  let to = params.y_offset + params.first;
  let bias_start = params.first;
#end

  var sums: array<f32, SUMS>;
  for (var s = 0u; s < SUMS; s++) {
    sums[s] = 0.0;
  }
  for (var i = thread.index; 8u * i < params.k; i += WG) {
    var w: array<array<vec4<f32>, 2>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      // Rows past the end repeat the last one and are not stored.
      w[r] = quant_w8((shard_row + min(row + r, params.rows - 1u)) * params.row_w8 + i);
    }
    for (var t = 0u; t < COLS; t++) {
      let v = x8(x_start + t * params.x_stride, i);
      for (var r = 0u; r < ROWS; r++) {
        sums[r * COLS + t] += dot(w[r][0], v[0]) + dot(w[r][1], v[1]);
      }
    }
  }

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
  for (var s = thread.index; s < SUMS; s += WG) {
    let r = row + s / COLS;
    if (r < params.rows) {
#if SUBGROUPS
      var sum = 0.0;
      for (var g = 0u; g < thread.subgroups; g++) {
        sum += parts[g * SUMS + s];
      }
#else
      var sum = parts[s * WG];
#end
#if BIAS
      sum += bias[params.bias_offset + bias_start + r];
#end
      y[to + s % COLS * params.n + r] = sum;
    }
  }
}
