// Reads the cache, a word at a time: unit i of the keys holds values KEY_UNIT i .. KEY_UNIT i + KEY_UNIT - 1, likewise of the values.
// The shader has: bindings `keys` and `values`; params.key_scales and params.value_scales for blocks, whose codes lie in one plane
// and scales (f16) in another: src/quant/gpu.rs. Flags: KEYS_F32, KEYS_F16, KEYS_Q8_0 or KEYS_Q4_0, the last two with KEYS_BLOCKS;
// likewise VALUES_*; KV_* where either is so.

#if KV_F32
fn kv_f32(word: u32) -> array<f32, 1> { return array<f32, 1>(bitcast<f32>(word)); }
#end
#if KV_F16
fn kv_f16(word: u32) -> array<f32, 2> {
    let pair = unpack2x16float(word);
    return array<f32, 2>(pair.x, pair.y);
}
#end
#if KV_Q8_0
fn kv_q8_0(word: u32, d: f32) -> array<f32, 4> {
    let q = vec4<f32>(bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u)) * d;
    return array<f32, 4>(q.x, q.y, q.z, q.w);
}
#end
#if KV_Q4_0
fn kv_nibbles(w: u32) -> vec4<u32> {
    return (vec4(w) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
}

fn kv_q4_0(word: u32, d: f32) -> array<f32, 8> {
    let p = (vec4<f32>(kv_nibbles(word)) - vec4(8.0)) * d;
    let q = (vec4<f32>(kv_nibbles(word >> 16u)) - vec4(8.0)) * d;
    return array<f32, 8>(p.x, p.y, p.z, p.w, q.x, q.y, q.z, q.w);
}
#end
#if KV_BLOCKS
fn kv_half(word: u32, block: u32) -> f32 {
    return unpack2x16float(word >> (16u * (block % 2u))).x;
}
#end

#if KEYS_F32
const KEY_UNIT: u32 = 1u;
fn kv_key(i: u32) -> array<f32, 1> { return kv_f32(keys[i]); }
#end
#if KEYS_F16
const KEY_UNIT: u32 = 2u;
fn kv_key(i: u32) -> array<f32, 2> { return kv_f16(keys[i]); }
#end
#if KEYS_BLOCKS
fn kv_key_scale(block: u32) -> f32 { return kv_half(keys[params.key_scales + block / 2u], block); }
#end
#if KEYS_Q8_0
const KEY_UNIT: u32 = 4u;
fn kv_key(i: u32) -> array<f32, 4> { return kv_q8_0(keys[i], kv_key_scale(i / 8u)); }
#end
#if KEYS_Q4_0
const KEY_UNIT: u32 = 8u;
fn kv_key(i: u32) -> array<f32, 8> { return kv_q4_0(keys[i], kv_key_scale(i / 4u)); }
#end

#if VALUES_F32
const VALUE_UNIT: u32 = 1u;
fn kv_value(i: u32) -> array<f32, 1> { return kv_f32(values[i]); }
#end
#if VALUES_F16
const VALUE_UNIT: u32 = 2u;
fn kv_value(i: u32) -> array<f32, 2> { return kv_f16(values[i]); }
#end
#if VALUES_BLOCKS
fn kv_value_scale(block: u32) -> f32 { return kv_half(values[params.value_scales + block / 2u], block); }
#end
#if VALUES_Q8_0
const VALUE_UNIT: u32 = 4u;
fn kv_value(i: u32) -> array<f32, 4> { return kv_q8_0(values[i], kv_value_scale(i / 8u)); }
#end
#if VALUES_Q4_0
const VALUE_UNIT: u32 = 8u;
fn kv_value(i: u32) -> array<f32, 8> { return kv_q4_0(values[i], kv_value_scale(i / 4u)); }
#end
