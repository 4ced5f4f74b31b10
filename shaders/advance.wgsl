// pos[0] = pos[last] + 1, in place.

struct Params {
  last: u32,
  pos_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> pos: array<u32>;

@compute @workgroup_size(1)
fn main() {
  pos[params.pos_offset] = pos[params.pos_offset + params.last] + 1u;
}
