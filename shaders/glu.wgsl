// y = act(gate) * up; one thread per value. Result packed.

#import pointwise

struct Params {
  rows: u32,
  n: u32,
  gate_stride: u32,
  gate_offset: u32,
  up_stride: u32,
  up_offset: u32,
  y_offset: u32,
  a: f32,
  b: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gate: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = id.y + id.z * groups.y;
  if (id.x >= params.n || row >= params.rows) {
    return;
  }
  let g = gate[params.gate_offset + row * params.gate_stride + id.x];
  let u = up[params.up_offset + row * params.up_stride + id.x];
  y[params.y_offset + row * params.n + id.x] = glu_eval(g, u);
}
