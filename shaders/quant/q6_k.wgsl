// Q6_K: w = d · s · (q + 16 h − 32), 256 weights per d, 16 per s.
// Plane x: nibbles, word j of 32 weights holds weights 8j … 8j + 7.   Plane y: h, 2 bits per weight.
// Plane z: s, i8, one byte per 16 weights.   Plane w: d, f16.
#import quant/bits

// Scale of weights 16g … 16g + 15.
fn quant_scale(g: u32) -> f32 {
    let s = extractBits(bitcast<i32>(wd[params.planes.z + g / 4u]), 8u * (g % 4u), 8u);
    return quant_half_at(params.planes.w, g / 16u) * f32(s);
}

fn quant_word(w: u32, h: u32, s: f32) -> array<vec4<f32>, 2> {
    let low = quant_nibbles(w) | (quant_pairs(h) << vec4(4u));
    let high = quant_nibbles(w >> 16u) | (quant_pairs(h >> 8u) << vec4(4u));
    return array(s * (vec4<f32>(low) - vec4(32.0)), s * (vec4<f32>(high) - vec4(32.0)));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let h = wd[params.planes.y + i / 2u] >> (16u * (i % 2u));
    return quant_word(wd[params.planes.x + i], h, quant_scale(i / 2u));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let s0 = quant_scale(2u * b);
    let s1 = quant_scale(2u * b + 1u);
    let g = wd[params.planes.y + 2u * b];
    let h = wd[params.planes.y + 2u * b + 1u];
    let w = wq[params.planes.x / 4u + b];
    let p = quant_word(w.x, g, s0);
    let q = quant_word(w.y, g >> 16u, s0);
    let r = quant_word(w.z, h, s1);
    let s = quant_word(w.w, h >> 16u, s1);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { w: u32, h: u32, s: u32, d: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wd[params.planes.x + i], wd[params.planes.y + i / 2u], wd[params.planes.z + i / 8u], wd[params.planes.w + i / 64u]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    // Nibbles of h: low two bits of an even weight, then of an odd one.
    let h = quant_spread(q.h >> (16u * (i % 2u)));
    let even = (q.w & 0x0f0f0f0fu) | ((h & 0x03030303u) << 4u);
    let odd = ((q.w >> 4u) & 0x0f0f0f0fu) | ((h & 0x0c0c0c0cu) << 2u);
    let s = extractBits(bitcast<i32>(q.s), 8u * (i / 2u % 4u), 8u);
    return QuantCodes(quant_u8(even), quant_u8(odd), quant_half(q.d >> (16u * ((at / 32u) & 1u))) * f32(s));
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
