// Reads the cache, a word at a time: unit i holds values KV_UNIT i .. KV_UNIT i + KV_UNIT - 1.
// The shader has: bindings `keys` and `values`; params.key_scales and params.value_scales for blocks, whose codes lie in one plane
// and scales (f16) in another: src/quant/gpu.rs. Flags: KV_F32, KV_F16, or KV_BLOCKS
// with KV_Q8_0 or KV_Q4_0.

#if KV_F32
const KV_UNIT: u32 = 1u;

fn kv_decode(word: u32, d: f32) -> array<f32, KV_UNIT> {
    return array<f32, KV_UNIT>(bitcast<f32>(word));
}
#end
#if KV_F16
const KV_UNIT: u32 = 2u;

fn kv_decode(word: u32, d: f32) -> array<f32, KV_UNIT> {
    let pair = unpack2x16float(word);
    return array<f32, KV_UNIT>(pair.x, pair.y);
}
#end
#if KV_Q8_0
const KV_UNIT: u32 = 4u;

fn kv_decode(word: u32, d: f32) -> array<f32, KV_UNIT> {
    let q = vec4<f32>(bitcast<vec4<i32>>(vec4(word) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u)) * d;
    return array<f32, KV_UNIT>(q.x, q.y, q.z, q.w);
}
#end
#if KV_Q4_0
const KV_UNIT: u32 = 8u;

fn kv_nibbles(w: u32) -> vec4<u32> {
    return (vec4(w) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
}

fn kv_decode(word: u32, d: f32) -> array<f32, KV_UNIT> {
    let p = (vec4<f32>(kv_nibbles(word)) - vec4(8.0)) * d;
    let q = (vec4<f32>(kv_nibbles(word >> 16u)) - vec4(8.0)) * d;
    return array<f32, KV_UNIT>(p.x, p.y, p.z, p.w, q.x, q.y, q.z, q.w);
}
#end

fn kv_half(word: u32, block: u32) -> f32 {
    return unpack2x16float(word >> (16u * (block % 2u))).x;
}

#if KV_BLOCKS
#import kv_read_blocks
#else
fn kv_key(i: u32) -> array<f32, KV_UNIT> { return kv_decode(keys[i], 1.0); }
fn kv_value(i: u32) -> array<f32, KV_UNIT> { return kv_decode(values[i], 1.0); }
#end
