// y = (x - mean(x)) / sqrt(var(x) + eps) * w + b; one workgroup per row of `n` values.
// A token has `heads` rows; row r uses row r mod `w_rows` of the weight, and likewise of the bias.
// Consts: WG; TRIPS, values of a row that a thread has; with HELD it keeps them: all are asked for at once, and only once.

#import reduce

struct Params {
  rows: u32,
  n: u32,
  heads: u32,
  x_stride: u32, // from token to token
  x_offset: u32,
  y_offset: u32,
#if WEIGHT
  w_rows: u32,
  w_offset: u32,
#end
#if BIAS
  b_rows: u32,
  b_offset: u32,
#end
  eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#if WEIGHT
@group(0) @binding(3) var<storage, read> w: array<f32>;
#end
#if BIAS
@group(0) @binding(4) var<storage, read> b: array<f32>;
#end

#if HELD
#import norm_row
#end

@compute @workgroup_size(WG)
fn main(thread: Thread, @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let source = params.x_offset + row / params.heads * params.x_stride + row % params.heads * params.n;
  var sum = 0.0;
#if HELD
  let own = own_values(source, thread);
  for (var j = 0u; j < TRIPS; j++) {
    sum += own[j];
  }
#else
  for (var i = thread.index; i < params.n; i += WG) {
    sum += x[source + i];
  }
#end
  let mean = reduce_add(sum, thread) / f32(params.n);
  var squares = 0.0;
#if HELD
  for (var j = 0u; j < TRIPS; j++) {
    let d = select(0.0, own[j] - mean, thread.index + j * WG < params.n);
    squares += d * d;
  }
#else
  for (var i = thread.index; i < params.n; i += WG) {
    let d = x[source + i] - mean;
    squares += d * d;
  }
#end
  let scale = 1.0 / sqrt(reduce_add(squares, thread) / f32(params.n) + params.eps);
  let to = params.y_offset + row * params.n;
  for (var j = 0u; j < TRIPS; j++) {
    let i = thread.index + j * WG;
    if (i >= params.n) {
      return;
    }
#if HELD
    var value = (own[j] - mean) * scale;
#else
    var value = (x[source + i] - mean) * scale;
#end
#if WEIGHT
    value *= w[params.w_offset + row % params.w_rows * params.n + i];
#end
#if BIAS
    value += b[params.b_offset + row % params.b_rows * params.n + i];
#end
    y[to + i] = value;
  }
}
