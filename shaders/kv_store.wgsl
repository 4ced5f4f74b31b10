// keys[cell[t]] = k[t], values[cell[t]] = v[t], in place; one workgroup per head of keys or of values, and token.
// Consts: WG, DIM_K, DIM_V channels of a head. Flags: KEYS_*, VALUES_*, KV_* as in kv_write.wgsl.

struct Params {
  heads: u32,
  cells: u32,
  k_stride: u32,
  k_offset: u32,
  v_stride: u32,
  v_offset: u32,
  places_offset: u32,
  begins: u32,
#if KEYS_BLOCKS
  key_scales: u32,
#end
#if VALUES_BLOCKS
  value_scales: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> k: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> places: array<u32>;
#import kv_bindings
#import places

#import kv_write

var<workgroup> head: array<f32, max(DIM_K, DIM_V)>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let position = position_of(group.y);
  if (position == NO_ROW) {
    return;
  }
  let cell = page_of(table_of(group.y), position) + position % PAGE_CELLS;
  if (cell >= params.cells) {
    return;
  }
  let h = group.x % params.heads;
  let is_value = group.x >= params.heads;
  if (is_value) {
    for (var i = thread; i < DIM_V; i += WG) {
      head[i] = v[params.v_offset + group.y * params.v_stride + h * DIM_V + i];
    }
  } else {
    for (var i = thread; i < DIM_K; i += WG) {
      head[i] = k[params.k_offset + group.y * params.k_stride + h * DIM_K + i];
    }
  }
  workgroupBarrier();
  kv_write(thread, is_value, (cell * params.heads + h) * select(DIM_K, DIM_V, is_value));
}
