// scales[row] = a power of two that brings the row's greatest value near 256: f16 ends at 65504, and what networks compute does
// not. Its inverse is a number too, so that it is undone exactly. One workgroup per row.

#import reduce

struct Params {
  rows: u32,
  n: u32,
  per_token: u32, // rows of a token
  x_stride: u32,  // from token to token
  x_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> scales: array<f32>;

@compute @workgroup_size(WG)
fn main(thread: Thread, @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let source = params.x_offset + row / params.per_token * params.x_stride + row % params.per_token * params.n;
  var greatest = 0.0;
  for (var i = thread.index; i < params.n; i += WG) {
    greatest = max(greatest, abs(x[source + i]));
  }
  greatest = reduce_max(greatest, thread);
  if (thread.index == 0u) {
    // 2^(8 - e) by its exponent bits, e being the exponent of the greatest.
    let exponent = clamp(262 - i32(bitcast<u32>(greatest) >> 23u), 8, 246);
    scales[row] = bitcast<f32>(u32(exponent) << 23u);
  }
}
