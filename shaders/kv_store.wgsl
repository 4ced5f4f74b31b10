// cache[pos[t]] = x[t]; one thread per pair of values, which is one word of an f16 cache. In place.

struct Params {
  rows: u32, // tokens
  n: u32,    // values of a cell, even
  cells: u32,
  x_stride: u32,
  x_offset: u32,
  pos_offset: u32,
  cache_offset: u32, // even for f16
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> pos: array<u32>;
@group(0) @binding(3) var<storage, read_write> cache: array<u32>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = id.y + id.z * groups.y;
  let i = 2u * id.x;
  if (i >= params.n || row >= params.rows) {
    return;
  }
  let cell = pos[params.pos_offset + row];
  if (cell >= params.cells) {
    return;
  }
  let source = params.x_offset + row * params.x_stride + i;
  let values = vec2<f32>(x[source], x[source + 1u]);
  let to = params.cache_offset + cell * params.n + i;
#if F16_CACHE
  // Beyond 65504 packing is undefined.
  cache[to / 2u] = pack2x16float(clamp(values, vec2<f32>(-65504.0), vec2<f32>(65504.0)));
#else
  cache[to] = bitcast<u32>(values.x);
  cache[to + 1u] = bitcast<u32>(values.y);
#end
}
