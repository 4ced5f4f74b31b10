// y = x * w / sqrt(mean(x^2) + eps); one workgroup per row of `n` values. With ADD, y = residual + scale * that.
// A token has `heads` rows; row r uses row r mod `w_rows` of the weight.
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
  eps: f32,
#if ADD
  residual_stride: u32,
  residual_offset: u32,
  scale: f32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#if WEIGHT
@group(0) @binding(3) var<storage, read> w: array<f32>;
#end
#if ADD
@group(0) @binding(4) var<storage, read> residual: array<f32>;
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
  var squares = 0.0;
#if HELD
  let own = own_values(source, thread);
  for (var j = 0u; j < TRIPS; j++) {
    squares += own[j] * own[j];
  }
#else
  for (var i = thread.index; i < params.n; i += WG) {
    squares += x[source + i] * x[source + i];
  }
#end
  let scale = 1.0 / sqrt(reduce_add(squares, thread) / f32(params.n) + params.eps);
  let to = params.y_offset + row * params.n;
#if WEIGHT
  let weights = params.w_offset + row % params.w_rows * params.n;
#end
  for (var j = 0u; j < TRIPS; j++) {
    let i = thread.index + j * WG;
    if (i >= params.n) {
      return;
    }
#if HELD
    var value = own[j] * scale;
#else
    var value = x[source + i] * scale;
#end
#if WEIGHT
    value *= w[weights + i];
#end
#if ADD
    value = residual[params.residual_offset + row * params.residual_stride + i] + params.scale * value;
#end
    y[to + i] = value;
  }
}
