// Q3_K: w = d · (s − 32) · (q + 4 h − 4), 256 weights per d, 16 per s.
// Plane x: q, 2 bits, word j holds weights 16j … 16j + 15.   Plane y: h, one bit per weight.
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

fn quant_word(w: u32, h: u32, s: f32) -> array<vec4<f32>, 2> {
    let low = quant_pairs(w) | (quant_bits(h) << vec4(2u));
    let high = quant_pairs(w >> 8u) | (quant_bits(h >> 4u) << vec4(2u));
    return array(s * (vec4<f32>(low) - vec4(4.0)), s * (vec4<f32>(high) - vec4(4.0)));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let w = wd[params.planes.x + i / 2u] >> (16u * (i % 2u));
    let h = wd[params.planes.y + i / 4u] >> (8u * (i % 4u));
    return quant_word(w, h, quant_scale(i / 2u));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let s0 = quant_scale(2u * b);
    let s1 = quant_scale(2u * b + 1u);
    let h = wd[params.planes.y + b];
    let v = wd[params.planes.x + 2u * b];
    let w = wd[params.planes.x + 2u * b + 1u];
    let p = quant_word(v, h, s0);
    let q = quant_word(v >> 16u, h >> 8u, s0);
    let r = quant_word(w, h >> 16u, s1);
    let s = quant_word(w >> 16u, h >> 24u, s1);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { w: u32, h: u32, low: u32, high: u32, d: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(
        wd[params.planes.x + i / 2u], wd[params.planes.y + i / 4u], wd[params.planes.z + 3u * (i / 32u) + i / 16u % 2u],
        wd[params.planes.z + 3u * (i / 32u) + 2u], wd[params.planes.w + i / 64u],
    );
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let w = quant_spread(q.w >> (16u * (i % 2u)));
    let h = q.h >> (8u * (i % 4u));
    let even = (w & 0x03030303u) | quant_thirds(h);
    let odd = ((w >> 2u) & 0x03030303u) | quant_thirds(h >> 1u);
    let j = i / 2u % 16u;
    let s = extractBits(q.low, 4u * (j % 8u), 4u) | (extractBits(q.high, 2u * j, 2u) << 4u);
    return QuantCodes(quant_u8(even), quant_u8(odd), quant_half(q.d >> (16u * ((at / 32u) & 1u))) * (f32(s) - 32.0));
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
