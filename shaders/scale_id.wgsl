// y[i, c] = scales[ids[i]] * x[i, c], i = token · used + chosen; one thread per value.

struct Params {
  rows: u32,     // tokens · used
  n: u32,
  used: u32,
  experts: u32,
  x_offset: u32,
  ids_stride: u32, // from token to token
  ids_offset: u32,
  scales_offset: u32,
  y_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read> ids: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = id.y + id.z * groups.y;
  if (id.x >= params.n || row >= params.rows) {
    return;
  }
  let chosen = u32(ids[params.ids_offset + (row / params.used) * params.ids_stride + row % params.used]);
  let scale = scales[params.scales_offset + min(chosen, params.experts - 1u)];
  y[params.y_offset + row * params.n + id.x] = scale * x[params.x_offset + row * params.n + id.x];
}
