// IQ4_NL: w = d · values[q], 32 weights per scale.
// Plane x: nibbles, word j of a block holds weights 8j … 8j + 7.   Plane y: d, f16.
#import quant/bits
#import quant/iq4_values
#if DOT4
#import quant/bytes
#end

fn quant_word(w: u32, d: f32) -> array<vec4<f32>, 2> {
    return array(d * quant_value(quant_nibbles(w)), d * quant_value(quant_nibbles(w >> 16u)));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    return quant_word(wd[params.planes.x + i], quant_half_at(params.planes.y, i / 4u));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let d = quant_half_at(params.planes.y, b);
    let w = wq[params.planes.x / 4u + b];
    let p = quant_word(w.x, d);
    let q = quant_word(w.y, d);
    let r = quant_word(w.z, d);
    let s = quant_word(w.w, d);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { w: u32, d: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wd[params.planes.x + i], wd[params.planes.y + i / 8u]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    return QuantCodes(quant_look(quant_nibbles(q.w)), quant_look(quant_nibbles(q.w >> 16u)), quant_half(q.d >> (16u * ((at / 4u) & 1u))));
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return v;
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return c.d * (dot(c.a, x[0]) + dot(c.b, x[1]));
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.d * c.a, c.d * c.b);
}

#if DOT4
// The form for products of bytes: 32 weights d · (q − QUANT_ZERO) + m, four codes to a word; d and m
// of the first sixteen and of the last (x, y and z, w).
const QUANT_ZERO: u32 = 0u;
const QUANT_SPLIT: bool = false; // whether the two halves differ in d and m
const QUANT_MIN: bool = false;   // whether there is an m

#import quant/nibbles_half

fn quant_codes32(q: QuantRaw32) -> array<vec4<u32>, 2> {
    return quant_lookup32(q.w);
}
#end
