// Q2_K: w = d · s · q − dmin · m, 256 weights per d, 16 per s.
// Plane x: q, 2 bits, word j holds weights 16j … 16j + 15.   Plane y: s and m, nibbles of one byte per 16 weights.
// Plane z: d and dmin, f16.
#import quant/bits

// Scale and minimum of weights 16g … 16g + 15.
fn quant_scale(g: u32) -> vec2<f32> {
    let s = wd[params.planes.y + g / 4u] >> (8u * (g % 4u));
    return quant_halves_at(params.planes.z, g / 16u) * vec2(f32(s & 15u), f32((s >> 4u) & 15u));
}

fn quant_word(w: u32, s: vec2<f32>) -> array<vec4<f32>, 2> {
    return array(s.x * vec4<f32>(quant_pairs(w)) - s.y, s.x * vec4<f32>(quant_pairs(w >> 8u)) - s.y);
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    return quant_word(wd[params.planes.x + i / 2u] >> (16u * (i % 2u)), quant_scale(i / 2u));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let s0 = quant_scale(2u * b);
    let s1 = quant_scale(2u * b + 1u);
    let v = wd[params.planes.x + 2u * b];
    let w = wd[params.planes.x + 2u * b + 1u];
    let p = quant_word(v, s0);
    let q = quant_word(v >> 16u, s0);
    let r = quant_word(w, s1);
    let s = quant_word(w >> 16u, s1);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { w: u32, s: u32, dm: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, s: vec2<f32> }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wd[params.planes.x + i / 2u], wd[params.planes.y + i / 8u], wd[params.planes.z + i / 32u]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let w = quant_spread(q.w >> (16u * (i % 2u)));
    let s = q.s >> (8u * (i / 2u % 4u));
    let scale = quant_halves(q.dm) * vec2(f32(s & 15u), f32((s >> 4u) & 15u));
    return QuantCodes(quant_u8(w & 0x03030303u), quant_u8((w >> 2u) & 0x03030303u), scale);
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
