// Q2_K: w = d · s · q − dmin · m, 256 weights per d, 16 per s.
// Plane x: q, 2 bits by parity, two words per 32 weights.   Plane y: s and m, nibbles of one byte per 16 weights.
// Plane z: d and dmin, f16.
#import quant/bits

// Scale and minimum of weights 16g … 16g + 15.
fn quant_scale(g: u32) -> vec2<f32> {
    let s = wd[params.planes.y + g / 4u] >> (8u * (g % 4u));
    return quant_halves_at(params.planes.z, g / 16u) * vec2(f32(s & 15u), f32((s >> 4u) & 15u));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let q = quant_load(i);
    let c = quant_ascending(quant_fours(q.v, i % 4u), quant_fours(q.w, i % 4u));
    let s = quant_scale(i / 2u);
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
struct QuantRaw { v: u32, w: u32, s: u32, dm: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, s: vec2<f32> }

fn quant_load(i: u32) -> QuantRaw {
    let at = params.planes.x + i / 4u * 2u;
    return QuantRaw(wd[at], wd[at + 1u], wd[params.planes.y + i / 8u], wd[params.planes.z + i / 32u]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let s = q.s >> (8u * (i / 2u % 4u));
    let scale = quant_halves(q.dm) * vec2(f32(s & 15u), f32((s >> 4u) & 15u));
    return QuantCodes(quant_u8(quant_fours(q.v, i % 4u)), quant_u8(quant_fours(q.w, i % 4u)), scale);
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
const QUANT_SPLIT: bool = true; // whether the two halves differ in d and m
const QUANT_MIN: bool = true;   // whether there is an m

struct QuantRaw32 { w: vec2<u32>, s: u32, dm: u32 }

fn quant_load32(b: u32) -> QuantRaw32 {
    let w = vec2(wd[params.planes.x + 2u * b], wd[params.planes.x + 2u * b + 1u]);
    return QuantRaw32(w, wd[params.planes.y + b / 2u], wd[params.planes.z + b / 8u]);
}

fn quant_codes32(q: QuantRaw32) -> array<vec4<u32>, 2> {
    return quant_fours32(q.w);
}

fn quant_scales32(q: QuantRaw32, b: u32) -> vec4<f32> {
    let s = (vec4(q.s) >> (vec4(0u, 8u, 4u, 12u) + 16u * (b % 2u))) & vec4(15u);
    let dm = quant_halves(q.dm);
    return vec4(dm.x, dm.x, -dm.y, -dm.y) * vec4<f32>(s);
}
#end
