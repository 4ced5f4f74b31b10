// Puts one head's values, which lie in workgroup memory, into the cache; all threads of the workgroup take part.
// The shader has: array `head` of at least DIM_K and DIM_V values; bindings `keys` and `values`; params.key_scales and
// params.value_scales for blocks. Codes lie in one plane, scales (f16) in another: src/quant/gpu.rs.
// Flags: KEYS_F32, KEYS_F16, KEYS_Q8_0 or KEYS_Q4_0, the last two with KEYS_BLOCKS; likewise VALUES_*; KV_* where either is so.

// One of the two, because WGSL has no references to bindings.
fn kv_word(is_value: bool, at: u32, word: u32) {
  if (is_value) {
#if VALUES_BLOCKS
    atomicStore(&values[at], word);
#else
    values[at] = word;
#end
  } else {
#if KEYS_BLOCKS
    atomicStore(&keys[at], word);
#else
    keys[at] = word;
#end
  }
}

#if KV_F32
fn kv_write_f32(thread: u32, is_value: bool, to: u32) {
  let dim = select(DIM_K, DIM_V, is_value);
  for (var i = thread; i < dim; i += WG) {
    kv_word(is_value, to + i, bitcast<u32>(head[i]));
  }
}
#end

#if KV_F16
fn kv_write_f16(thread: u32, is_value: bool, to: u32) {
  let dim = select(DIM_K, DIM_V, is_value);
  for (var i = thread; i < dim / 2u; i += WG) {
    // Beyond 65504 packing is undefined.
    let pair = clamp(vec2<f32>(head[2u * i], head[2u * i + 1u]), vec2<f32>(-65504.0), vec2<f32>(65504.0));
    kv_word(is_value, to / 2u + i, pack2x16float(pair));
  }
}
#end

#if KV_BLOCKS
#import kv_blocks
#end

// The head's first value is value `to` of the cache.
fn kv_write(thread: u32, is_value: bool, to: u32) {
  if (is_value) {
#if VALUES_F32
    kv_write_f32(thread, true, to);
#end
#if VALUES_F16
    kv_write_f16(thread, true, to);
#end
#if VALUES_Q8_0
    kv_write_q8_0(thread, true, to);
#end
#if VALUES_Q4_0
    kv_write_q4_0(thread, true, to);
#end
  } else {
#if KEYS_F32
    kv_write_f32(thread, false, to);
#end
#if KEYS_F16
    kv_write_f16(thread, false, to);
#end
#if KEYS_Q8_0
    kv_write_q8_0(thread, false, to);
#end
#if KEYS_Q4_0
    kv_write_q4_0(thread, false, to);
#end
  }
}
