// Q5_K: w = d · s · (q + 16 h) − dmin · m, 256 weights per d, 32 per s.
// Plane x: nibbles, word j of 32 weights holds weights 8j … 8j + 7.   Plane y: h, one bit per weight by parity.
// Plane z: s and m, one byte each per 32 weights.   Plane w: d and dmin, f16.
#import quant/bits

// Scale and minimum of weights 32b … 32b + 31.
fn quant_scale(b: u32) -> vec2<f32> {
    let s = wd[params.planes.z + b / 2u] >> (16u * (b % 2u));
    return quant_halves_at(params.planes.w, b / 8u) * vec2(f32(s & 255u), f32((s >> 8u) & 255u));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let q = quant_load(i);
    let c = quant_ascending(quant_even5(q, i), quant_odd5(q, i));
    let s = quant_scale(i / 4u);
    return array(s.x * c[0] - s.y, s.x * c[1] - s.y);
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
struct QuantRaw { w: u32, h: u32, s: u32, dm: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, s: vec2<f32> }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wd[params.planes.x + i], wd[params.planes.y + i / 4u], wd[params.planes.z + i / 8u], wd[params.planes.w + i / 32u]);
}

fn quant_even5(q: QuantRaw, i: u32) -> u32 {
    return (q.w & 0x0f0f0f0fu) | quant_fifths(q.h, i % 4u);
}

fn quant_odd5(q: QuantRaw, i: u32) -> u32 {
    return ((q.w >> 4u) & 0x0f0f0f0fu) | quant_fifths(q.h >> 4u, i % 4u);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let s = q.s >> (16u * (i / 4u % 2u));
    let scale = quant_halves(q.dm) * vec2(f32(s & 255u), f32((s >> 8u) & 255u));
    return QuantCodes(quant_u8(quant_even5(q, i)), quant_u8(quant_odd5(q, i)), scale);
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return quant_parity(v);
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return c.s.x * (dot(c.a, x[0]) + dot(c.b, x[1])) - c.s.y * sum;
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.s.x * c.a - c.s.y, c.s.x * c.b - c.s.y);
}

#if DOT4
// The form for products of bytes: 32 weights d · (q − QUANT_ZERO) + m, four codes to a word in the order of quant_parity; d and m
// of the first sixteen and of the last (x, y and z, w).
const QUANT_ZERO: u32 = 0u;
const QUANT_SPLIT: bool = false; // whether the two halves differ in d and m
const QUANT_MIN: bool = true;   // whether there is an m

struct QuantRaw32 { w: vec4<u32>, h: u32, s: u32, dm: u32 }

fn quant_load32(b: u32) -> QuantRaw32 {
    let w = wq[params.planes.x / 4u + b];
    return QuantRaw32(w, wd[params.planes.y + b], wd[params.planes.z + b / 2u], wd[params.planes.w + b / 8u]);
}

fn quant_codes32(q: QuantRaw32) -> array<vec4<u32>, 2> {
    return quant_fifths32(q.w, q.h);
}

fn quant_scales32(q: QuantRaw32, b: u32) -> vec4<f32> {
    let s = q.s >> (16u * (b % 2u));
    let dm = quant_halves(q.dm);
    return vec4(dm.x * f32(s & 255u), 0.0, -dm.y * f32((s >> 8u) & 255u), 0.0);
}
#end
