// MXFP4: w = 2^(e − 128) · values[q], 32 weights per scale; the values are twice the e2m1 numbers.
// Plane x: nibbles, word j of a block holds weights 8j … 8j + 7.   Plane y: e, one byte per block.
#import quant/bits
#if DOT4
#import quant/bytes
#end

// e = 0 and 1 are subnormal: a device that flushes those gives 0 for what is below 2e-37.
fn quant_scale(b: u32) -> f32 {
    let e = extractBits(wd[params.planes.y + b / 4u], 8u * (b % 4u), 8u);
    return bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
}

// Magnitudes 0 1 2 3 4 6 8 12 as nibbles of one word; bit 3 is the sign.
fn quant_value(q: vec4<u32>) -> vec4<f32> {
    let v = vec4<f32>((vec4(0xc8643210u) >> (4u * (q & vec4(7u)))) & vec4(15u));
    return select(v, -v, q >= vec4(8u));
}

fn quant_word(w: u32, d: f32) -> array<vec4<f32>, 2> {
    return array(d * quant_value(quant_nibbles(w)), d * quant_value(quant_nibbles(w >> 16u)));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    return quant_word(wd[params.planes.x + i], quant_scale(i / 4u));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let d = quant_scale(b);
    let w = wq[params.planes.x / 4u + b];
    let p = quant_word(w.x, d);
    let q = quant_word(w.y, d);
    let r = quant_word(w.z, d);
    let s = quant_word(w.w, d);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}
// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { w: u32, e: u32 }
struct QuantCodes { a: vec4<f32>, b: vec4<f32>, d: f32 }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wd[params.planes.x + i], wd[params.planes.y + i / 16u]);
}

#if HALF
// A code is an f16 in disguise: its three low bits are the top of exponent and mantissa, and the value is 2^15 times as large. Code 1
// is a subnormal. Two codes, 4 bits apart from the word's middle, at a time.
fn quant_pair(w: u32) -> vec2<f32> {
    return unpack2x16float(((w & 0x00070007u) << 9u) | ((w & 0x00080008u) << 12u));
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let e = extractBits(q.e, 8u * (at / 4u % 4u), 8u);
    let d = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
    let a = vec4(quant_pair(q.w), quant_pair(q.w >> 4u));
    return QuantCodes(a, vec4(quant_pair(q.w >> 8u), quant_pair(q.w >> 12u)), d);
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return array(vec4(v[0].x, v[1].x, v[0].y, v[1].y), vec4(v[0].z, v[1].z, v[0].w, v[1].w));
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return c.d * (32768.0 * (dot(c.a, x[0]) + dot(c.b, x[1])));
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.d * (32768.0 * c.a), c.d * (32768.0 * c.b));
}
#else
fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    let e = extractBits(q.e, 8u * (at / 4u % 4u), 8u);
    let d = bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u));
    return QuantCodes(quant_value(quant_nibbles(q.w)), quant_value(quant_nibbles(q.w >> 16u)), d);
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
#end

#if DOT4
// The form for products of bytes: 32 weights d · (q − QUANT_ZERO) + m, four codes to a word; d and m
// of the first sixteen and of the last (x, y and z, w).
// What the codes stand for, four to a word.
const QUANT_BYTES: vec4<u32> = vec4<u32>(0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);
const QUANT_ZERO: u32 = 0u;
const QUANT_SPLIT: bool = false; // whether the two halves differ in d and m
const QUANT_MIN: bool = false;   // whether there is an m

struct QuantRaw32 { w: vec4<u32>, e: u32 }

fn quant_load32(b: u32) -> QuantRaw32 {
    return QuantRaw32(wq[params.planes.x / 4u + b], wd[params.planes.y + b / 4u]);
}

fn quant_codes32(q: QuantRaw32) -> array<vec4<u32>, 2> {
    return quant_lookup32(q.w);
}

fn quant_scales32(q: QuantRaw32, b: u32) -> vec4<f32> {
    let e = extractBits(q.e, 8u * (b % 4u), 8u);
    return vec4(bitcast<f32>(select((e - 1u) << 23u, 0x00200000u << e, e < 2u)), 0.0, 0.0, 0.0);
}
#end
