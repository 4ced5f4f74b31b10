// Q3_K: w = d · (s − 32) · (q + 4 h − 4), 256 weights per d, 16 per s.
// Plane x: q, 2 bits by parity, two words per 32 weights.   Plane y: h, one bit per weight by parity.
// Plane z: three words per 256 weights: low nibbles of s 0 … 7, of s 8 … 15, high 2 bits of all.   Plane w: d, f16.
#import quant/bits

// Scale of weights 16g … 16g + 15.
fn quant_scale(g: u32) -> f32 {
    let at = params.planes.z + 3u * (g / 16u);
    let j = g % 16u;
    let low = extractBits(wd[at + j / 8u], 4u * (j % 8u), 4u);
    let high = extractBits(wd[at + 2u], 2u * j, 2u);
    return quant_half_at(params.planes.w, g / 16u) * (f32(low | (high << 4u)) - 32.0);
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let q = quant_load(i);
    let c = quant_ascending(quant_even3(q, i), quant_odd3(q, i));
    let s = quant_scale(i / 2u);
    return array(s * (c[0] - vec4(4.0)), s * (c[1] - vec4(4.0)));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let p = quant_w8(4u * b);
    let q = quant_w8(4u * b + 1u);
    let r = quant_w8(4u * b + 2u);
    let s = quant_w8(4u * b + 3u);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { v: u32, w: u32, h: u32, low: u32, high: u32, d: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    let at = params.planes.x + i / 4u * 2u;
    return QuantRaw(
        wd[at], wd[at + 1u], wd[params.planes.y + i / 4u], wd[params.planes.z + 3u * (i / 32u) + i / 16u % 2u],
        wd[params.planes.z + 3u * (i / 32u) + 2u], wd[params.planes.w + i / 64u],
    );
}

fn quant_even3(q: QuantRaw, i: u32) -> u32 {
    return quant_fours(q.v, i % 4u) | quant_thirds(q.h, i % 4u);
}

fn quant_odd3(q: QuantRaw, i: u32) -> u32 {
    return quant_fours(q.w, i % 4u) | quant_thirds(q.h >> 4u, i % 4u);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let j = i / 2u % 16u;
    let s = extractBits(q.low, 4u * (j % 8u), 4u) | (extractBits(q.high, 2u * j, 2u) << 4u);
    let d = quant_half(q.d >> (16u * ((at / 32u) & 1u))) * (f32(s) - 32.0);
    return QuantCodes(quant_u8(quant_even3(q, i)), quant_u8(quant_odd3(q, i)), d);
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return quant_parity(v);
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return c.d * (dot(c.a, x[0]) + dot(c.b, x[1]) - 4.0 * sum);
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.d * c.a - 4.0 * c.d, c.d * c.b - 4.0 * c.d);
}

#if DOT4
// The form for products of bytes: 32 weights d · (q − QUANT_ZERO) + m, four codes to a word in the order of quant_parity; d and m
// of the first sixteen and of the last (x, y and z, w).
const QUANT_ZERO: u32 = 4u;
const QUANT_SPLIT: bool = true; // whether the two halves differ in d and m
const QUANT_MIN: bool = false;   // whether there is an m

struct QuantRaw32 { w: vec2<u32>, h: u32, low: u32, high: u32, d: u32 }

fn quant_load32(b: u32) -> QuantRaw32 {
    let w = vec2(wd[params.planes.x + 2u * b], wd[params.planes.x + 2u * b + 1u]);
    let at = params.planes.z + 3u * (b / 8u);
    return QuantRaw32(w, wd[params.planes.y + b], wd[at + b / 4u % 2u], wd[at + 2u], wd[params.planes.w + b / 16u]);
}

fn quant_codes32(q: QuantRaw32) -> array<vec4<u32>, 2> {
    let low = quant_fours32(q.w);
    let a = vec4(q.h << 2u, q.h >> 2u, q.h << 1u, q.h >> 3u);
    let b = vec4(q.h, q.h >> 4u, q.h >> 1u, q.h >> 5u);
    return array(low[0] | (a & vec4(0x04040404u)), low[1] | (b & vec4(0x04040404u)));
}

fn quant_scales32(q: QuantRaw32, b: u32) -> vec4<f32> {
    let low = (vec2(q.low) >> (vec2(0u, 4u) + 8u * (b % 4u))) & vec2(15u);
    let high = (vec2(q.high) >> (vec2(0u, 2u) + 4u * (b % 8u))) & vec2(3u);
    let d = quant_half(q.d >> (16u * ((b / 8u) & 1u)));
    return vec4(d * (vec2<f32>(low | (high << vec2(4u))) - vec2(32.0)), 0.0, 0.0);
}
#end
