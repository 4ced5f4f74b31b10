// y = a * b; one thread per value. A row stride of 0 shares one row of b, a column step of 0 one value per row.

struct Params {
  rows: u32,
  n: u32,
  a_stride: u32,
  a_offset: u32,
  b_stride: u32,
  b_step: u32,
  b_offset: u32,
  y_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = id.y + id.z * groups.y;
  if (id.x >= params.n || row >= params.rows) {
    return;
  }
  let left = a[params.a_offset + row * params.a_stride + id.x];
  let right = b[params.b_offset + row * params.b_stride + id.x * params.b_step];
  y[params.y_offset + row * params.n + id.x] = left * right;
}
