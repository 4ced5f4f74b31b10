// Q5_0: w = d · (q + 16 h − 16), 32 weights per scale.
// Plane x: nibbles, word j of a block holds weights 8j … 8j + 7.   Plane y: h, bit i of weight i.   Plane z: d, f16.
#import quant/bits

fn quant_word(w: u32, h: u32, d: f32) -> array<vec4<f32>, 2> {
    let low = quant_nibbles(w) | (quant_bits(h) << vec4(4u));
    let high = quant_nibbles(w >> 16u) | (quant_bits(h >> 4u) << vec4(4u));
    return array(d * (vec4<f32>(low) - vec4(16.0)), d * (vec4<f32>(high) - vec4(16.0)));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let h = wd[params.planes.y + i / 4u] >> (8u * (i % 4u));
    return quant_word(wd[params.planes.x + i], h, quant_half_at(params.planes.z, i / 4u));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let d = quant_half_at(params.planes.z, b);
    let h = wd[params.planes.y + b];
    let w = wq[params.planes.x / 4u + b];
    let p = quant_word(w.x, h, d);
    let q = quant_word(w.y, h >> 8u, d);
    let r = quant_word(w.z, h >> 16u, d);
    let s = quant_word(w.w, h >> 24u, d);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { w: u32, h: u32, d: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wd[params.planes.x + i], wd[params.planes.y + i / 4u], wd[params.planes.z + i / 8u]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let h = q.h >> (8u * (i % 4u));
    let even = (q.w & 0x0f0f0f0fu) | quant_fifths(h);
    let odd = ((q.w >> 4u) & 0x0f0f0f0fu) | quant_fifths(h >> 1u);
    return QuantCodes(quant_u8(even), quant_u8(odd), quant_half(q.d >> (16u * ((at / 4u) & 1u))));
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return quant_parity(v);
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return c.d * (dot(c.a, x[0]) + dot(c.b, x[1]) - 16.0 * sum);
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.d * c.a - 16.0 * c.d, c.d * c.b - 16.0 * c.d);
}
