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
