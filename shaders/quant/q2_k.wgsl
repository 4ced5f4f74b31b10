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
