// What a device does with numbers: x[i] holds two f16, y[2 i] and y[2 i + 1] become their bits as f32.
// Source: WGSL lets unpack2x16float flush subnormals.

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= arrayLength(&x)) {
    return;
  }
  let pair = unpack2x16float(x[id.x]);
  y[2u * id.x] = bitcast<u32>(pair.x);
  y[2u * id.x + 1u] = bitcast<u32>(pair.y);
}
