// Reads keys and values, as many as one load takes: KEY_UNIT and VALUE_UNIT channels. A function gives eight of them (channels 8u …),
// or one (NARROW, where heads are no whole multiples of eight). Of blocks these are the codes; their scales (f16) lie in a plane of
// their own: src/quant/gpu.rs. The shader has params.key_scales and params.value_scales for them.
// Flags: KEYS_F32, KEYS_F16, KEYS_Q8_0 or KEYS_Q4_0, the last two with KEYS_BLOCKS; KEYS_NARROW; likewise VALUES_*; KV_* where either
// is so.

struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

#if KV_Q4_0
// The first four and the last four of the eight weights in a word.
fn kv_low_q4_0(w: u32) -> vec4<f32> {
    let even = unpack4xU8(w & 0x0f0f0f0fu);
    let odd = unpack4xU8((w >> 4u) & 0x0f0f0f0fu);
    return vec4<f32>(vec4(even.x, odd.x, even.y, odd.y)) - 8.0;
}
fn kv_high_q4_0(w: u32) -> vec4<f32> {
    let even = unpack4xU8(w & 0x0f0f0f0fu);
    let odd = unpack4xU8((w >> 4u) & 0x0f0f0f0fu);
    return vec4<f32>(vec4(even.z, odd.z, even.w, odd.w)) - 8.0;
}
#end
#if KV_Q8_0
fn kv_q8_0(w: u32) -> vec4<f32> { return vec4<f32>(unpack4xI8(w)); }
#end
#if KV_F16
fn kv_f16(w: vec2<u32>) -> vec4<f32> { return vec4(unpack2x16float(w.x), unpack2x16float(w.y)); }
#end
#if KV_BLOCKS
fn kv_half(word: u32, block: u32) -> f32 { return unpack2x16float(word >> (16u * (block % 2u))).x; }
#end

#if KEYS_F32
#if KEYS_NARROW
alias KeyWord = u32;
const KEY_UNIT: u32 = 1u;
fn key_channel(w: KeyWord, u: u32) -> f32 { return bitcast<f32>(w); }
#else
alias KeyWord = Eight;
const KEY_UNIT: u32 = 8u;
fn key_low(w: KeyWord, u: u32) -> vec4<f32> { return w.low; }
fn key_high(w: KeyWord, u: u32) -> vec4<f32> { return w.high; }
#end
#end
#if KEYS_F16
#if KEYS_NARROW
alias KeyWord = u32;
const KEY_UNIT: u32 = 2u;
fn key_channel(w: KeyWord, u: u32) -> f32 { return unpack2x16float(w)[u]; }
#else
alias KeyWord = vec4<u32>;
const KEY_UNIT: u32 = 8u;
fn key_low(w: KeyWord, u: u32) -> vec4<f32> { return kv_f16(w.xy); }
fn key_high(w: KeyWord, u: u32) -> vec4<f32> { return kv_f16(w.zw); }
#end
#end
#if KEYS_Q8_0
alias KeyWord = vec4<u32>;
const KEY_UNIT: u32 = 16u;
fn key_low(w: KeyWord, u: u32) -> vec4<f32> { return kv_q8_0(select(w.x, w.z, u == 1u)); }
fn key_high(w: KeyWord, u: u32) -> vec4<f32> { return kv_q8_0(select(w.y, w.w, u == 1u)); }
#end
#if KEYS_Q4_0
alias KeyWord = vec4<u32>;
const KEY_UNIT: u32 = 32u;
fn key_low(w: KeyWord, u: u32) -> vec4<f32> { return kv_low_q4_0(w[u]); }
fn key_high(w: KeyWord, u: u32) -> vec4<f32> { return kv_high_q4_0(w[u]); }
#end
@group(0) @binding(2) var<storage, read> keys: array<KeyWord>;
#if KEYS_BLOCKS
// The scale of load `i`.
fn key_scale(i: u32) -> f32 {
    let block = i * KEY_UNIT / 32u;
    let at = params.key_scales + block / 2u;
    return kv_half(keys[at / 4u][at % 4u], block);
}
#end

#if VALUES_F32
#if VALUES_NARROW
alias ValueWord = u32;
const VALUE_UNIT: u32 = 1u;
fn value_channel(w: ValueWord, u: u32) -> f32 { return bitcast<f32>(w); }
#else
alias ValueWord = Eight;
const VALUE_UNIT: u32 = 8u;
fn value_low(w: ValueWord) -> vec4<f32> { return w.low; }
fn value_high(w: ValueWord) -> vec4<f32> { return w.high; }
#end
#end
#if VALUES_F16
#if VALUES_NARROW
alias ValueWord = u32;
const VALUE_UNIT: u32 = 2u;
fn value_channel(w: ValueWord, u: u32) -> f32 { return unpack2x16float(w)[u]; }
#else
alias ValueWord = vec4<u32>;
const VALUE_UNIT: u32 = 8u;
fn value_low(w: ValueWord) -> vec4<f32> { return kv_f16(w.xy); }
fn value_high(w: ValueWord) -> vec4<f32> { return kv_f16(w.zw); }
#end
#end
#if VALUES_Q8_0
alias ValueWord = vec2<u32>;
const VALUE_UNIT: u32 = 8u;
fn value_low(w: ValueWord) -> vec4<f32> { return kv_q8_0(w.x); }
fn value_high(w: ValueWord) -> vec4<f32> { return kv_q8_0(w.y); }
#end
#if VALUES_Q4_0
alias ValueWord = u32;
const VALUE_UNIT: u32 = 8u;
fn value_low(w: ValueWord) -> vec4<f32> { return kv_low_q4_0(w); }
fn value_high(w: ValueWord) -> vec4<f32> { return kv_high_q4_0(w); }
#end
@group(0) @binding(3) var<storage, read> values: array<ValueWord>;
#if VALUES_BLOCKS
// The scale of load `i`.
fn value_scale(i: u32) -> f32 {
    let block = i * VALUE_UNIT / 32u;
    let at = params.value_scales + block / 2u;
#if VALUES_Q8_0
    return kv_half(values[at / 2u][at % 2u], block);
#else
    return kv_half(values[at], block);
#end
}
#end
