// Q6_K: w = d · s · (q + 16 h − 32), 256 weights per d, 16 per s.
// Plane x: nibbles, word j of 32 weights holds weights 8j … 8j + 7.   Plane y: h, 2 bits per weight by parity, two words per 32.
// Plane z: s, i8, one byte per 16 weights.   Plane w: d, f16.
#import quant/bits

// Scale of weights 16g … 16g + 15.
fn quant_scale(g: u32) -> f32 {
    let s = extractBits(bitcast<i32>(wd[params.planes.z + g / 4u]), 8u * (g % 4u), 8u);
    return quant_half_at(params.planes.w, g / 16u) * f32(s);
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let q = quant_load(i);
    let c = quant_ascending(quant_even6(q, i), quant_odd6(q, i));
    let s = quant_scale(i / 2u);
    return array(s * (c[0] - vec4(32.0)), s * (c[1] - vec4(32.0)));
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
struct QuantRaw { w: u32, g: u32, h: u32, s: u32, d: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    let at = params.planes.y + i / 4u * 2u;
    return QuantRaw(wd[params.planes.x + i], wd[at], wd[at + 1u], wd[params.planes.z + i / 8u], wd[params.planes.w + i / 64u]);
}

fn quant_even6(q: QuantRaw, i: u32) -> u32 {
    return (q.w & 0x0f0f0f0fu) | (quant_fours(q.g, i % 4u) << 4u);
}

fn quant_odd6(q: QuantRaw, i: u32) -> u32 {
    return ((q.w >> 4u) & 0x0f0f0f0fu) | (quant_fours(q.h, i % 4u) << 4u);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let s = extractBits(bitcast<i32>(q.s), 8u * (i / 2u % 4u), 8u);
    let d = quant_half(q.d >> (16u * ((at / 32u) & 1u))) * f32(s);
    return QuantCodes(quant_u8(quant_even6(q, i)), quant_u8(quant_odd6(q, i)), d);
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return quant_parity(v);
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return c.d * (dot(c.a, x[0]) + dot(c.b, x[1]) - 32.0 * sum);
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.d * c.a - 32.0 * c.d, c.d * c.b - 32.0 * c.d);
}

#if DOT4
// The form for products of bytes: 32 weights d · (q − QUANT_ZERO) + m, four codes to a word in the order of quant_parity; d and m
// of the first sixteen and of the last (x, y and z, w).
const QUANT_ZERO: u32 = 32u;
const QUANT_SPLIT: bool = true; // whether the two halves differ in d and m
const QUANT_MIN: bool = false;   // whether there is an m

struct QuantRaw32 { w: vec4<u32>, h: vec2<u32>, s: u32, d: u32 }

fn quant_load32(b: u32) -> QuantRaw32 {
    let h = vec2(wd[params.planes.y + 2u * b], wd[params.planes.y + 2u * b + 1u]);
    return QuantRaw32(wq[params.planes.x / 4u + b], h, wd[params.planes.z + b / 2u], wd[params.planes.w + b / 16u]);
}

fn quant_codes32(q: QuantRaw32) -> array<vec4<u32>, 2> {
    let h = array(vec4(q.h.x << 4u, q.h.x << 2u, q.h.x, q.h.x >> 2u), vec4(q.h.y << 4u, q.h.y << 2u, q.h.y, q.h.y >> 2u));
    let even = (q.w & vec4(0x0f0f0f0fu)) | (h[0] & vec4(0x30303030u));
    let odd = ((q.w >> vec4(4u)) & vec4(0x0f0f0f0fu)) | (h[1] & vec4(0x30303030u));
    return quant_by_eights(even, odd);
}

fn quant_scales32(q: QuantRaw32, b: u32) -> vec4<f32> {
    let s = bitcast<i32>(q.s >> (16u * (b % 2u)));
    let d = quant_half(q.d >> (16u * ((b / 8u) & 1u)));
    return vec4(d * f32(extractBits(s, 0u, 8u)), d * f32(extractBits(s, 8u, 8u)), 0.0, 0.0);
}
#end
