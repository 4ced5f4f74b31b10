// Nothing but memory: all threads together read x from its beginning to its end, or copy it to y.

struct Params {
  vectors: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let threads = groups.x * WG;
#if COPY
  for (var i = id.x; i < params.vectors; i += threads) {
    y[i] = x[i];
  }
#else
  var all = vec4<u32>();
  for (var i = id.x; i < params.vectors; i += threads) {
    all |= x[i];
  }
  // Each thread writes once, so that no read can be left out.
  if (id.x < params.vectors) {
    y[id.x] = all;
  }
#end
}
