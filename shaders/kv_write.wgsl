// Puts one head's values, which lie in workgroup memory, into the cache; all threads of the workgroup take part.
// The shader has: array `head` of at least DIM_K and DIM_V values; bindings `keys` and `values`; params.key_scales and
// params.value_scales for blocks. Codes lie in one plane, scales (f16) in another: src/quant/gpu.rs.
// Flags: KV_F32, KV_F16, or KV_BLOCKS with KV_Q8_0 or KV_Q4_0.

#if KV_BLOCKS
#import kv_blocks
#else
// One of the two, because WGSL has no references to bindings.
fn kv_word(is_value: bool, at: u32, word: u32) {
  if (is_value) {
    values[at] = word;
  } else {
    keys[at] = word;
  }
}

// The head's first value is value `to` of the cache.
fn kv_write(thread: u32, is_value: bool, to: u32) {
  let dim = select(DIM_K, DIM_V, is_value);
#if KV_F16
  for (var i = thread; i < dim / 2u; i += WG) {
    // Beyond 65504 packing is undefined.
    let pair = clamp(vec2<f32>(head[2u * i], head[2u * i + 1u]), vec2<f32>(-65504.0), vec2<f32>(65504.0));
    kv_word(is_value, to / 2u + i, pack2x16float(pair));
  }
#else
  for (var i = thread; i < dim; i += WG) {
    kv_word(is_value, to + i, bitcast<u32>(head[i]));
  }
#end
}
#end
