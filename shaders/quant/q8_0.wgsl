// Q8_0: w = d · q, 32 weights per scale.
// Plane x: q, i8, four per word.   Plane y: d, f16.
#import quant/bits

fn quant_bytes(w: u32, d: f32) -> vec4<f32> {
    return d * vec4<f32>(bitcast<vec4<i32>>(vec4(w) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let d = quant_half_at(params.planes.y, i / 4u);
    let at = params.planes.x + 2u * i;
    return array(quant_bytes(wd[at], d), quant_bytes(wd[at + 1u], d));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let d = quant_half_at(params.planes.y, b);
    let at = params.planes.x / 4u + 2u * b;
    let v = wq[at];
    let w = wq[at + 1u];
    return array(
        quant_bytes(v.x, d), quant_bytes(v.y, d), quant_bytes(v.z, d), quant_bytes(v.w, d),
        quant_bytes(w.x, d), quant_bytes(w.y, d), quant_bytes(w.z, d), quant_bytes(w.w, d),
    );
}

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { v: u32, w: u32, d: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wd[params.planes.x + 2u * i], wd[params.planes.x + 2u * i + 1u], wd[params.planes.y + i / 8u]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    // With the sign turned over, q + 128: an unsigned byte takes one instruction, a signed one two.
    return QuantCodes(quant_u8(q.v ^ 0x80808080u), quant_u8(q.w ^ 0x80808080u), quant_half(q.d >> (16u * ((at / 4u) & 1u))));
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return v;
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return c.d * (dot(c.a, x[0]) + dot(c.b, x[1]) - 128.0 * sum);
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.d * c.a - 128.0 * c.d, c.d * c.b - 128.0 * c.d);
}

#if DOT4
// The form for products of bytes: 32 weights d · (q − QUANT_ZERO) + m, four codes to a word; d and m
// of the first sixteen and of the last (x, y and z, w).
const QUANT_ZERO: u32 = 0u;
const QUANT_SPLIT: bool = false; // whether the two halves differ in d and m
const QUANT_MIN: bool = false;   // whether there is an m

struct QuantRaw32 { v: vec4<u32>, w: vec4<u32>, d: u32 }

fn quant_load32(b: u32) -> QuantRaw32 {
    let at = params.planes.x / 4u + 2u * b;
    return QuantRaw32(wq[at], wq[at + 1u], wd[params.planes.y + b / 2u]);
}

fn quant_codes32(q: QuantRaw32) -> array<vec4<u32>, 2> {
    return array(q.v, q.w);
}

fn quant_scales32(q: QuantRaw32, b: u32) -> vec4<f32> {
    return vec4(quant_half(q.d >> (16u * (b & 1u))), 0.0, 0.0, 0.0);
}
#end
