// One thread per value. Result packed.

#import pointwise

struct Params {
  rows: u32,
  n: u32,
  x_stride: u32,
  x_offset: u32,
  y_offset: u32,
  a: f32, // factor, cap, or lower bound
  b: f32, // upper bound
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = id.y + id.z * groups.y;
  if (id.x >= params.n || row >= params.rows) {
    return;
  }
  y[params.y_offset + row * params.n + id.x] = unary_eval(x[params.x_offset + row * params.x_stride + id.x]);
}
