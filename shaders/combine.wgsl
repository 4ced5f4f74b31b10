// y[t, i] = scale * sum over u of w[t, u] * x[t, u, i], plus residual[t, i] with ADD; one thread per value.

struct Params {
  rows: u32,
  n: u32,
  used: u32,
  x_stride: u32,
  x_offset: u32,
  w_stride: u32,
  w_offset: u32,
  y_offset: u32,
  scale: f32,
#if ADD
  residual_stride: u32,
  residual_offset: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#if ADD
@group(0) @binding(4) var<storage, read> residual: array<f32>;
#end

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = id.y + id.z * groups.y;
  if (id.x >= params.n || row >= params.rows) {
    return;
  }
  var sum = 0.0;
  for (var u = 0u; u < params.used; u++) {
    let weight = w[params.w_offset + row * params.w_stride + u];
    sum += weight * x[params.x_offset + row * params.x_stride + u * params.n + id.x];
  }
  sum *= params.scale;
#if ADD
  sum += residual[params.residual_offset + row * params.residual_stride + id.x];
#end
  y[params.y_offset + row * params.n + id.x] = sum;
}
