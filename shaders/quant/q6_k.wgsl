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
