// F32: one word per weight. Plane x: the weights.

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let at = params.planes.x / 4u + 2u * i;
    return array(bitcast<vec4<f32>>(wq[at]), bitcast<vec4<f32>>(wq[at + 1u]));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let p = quant_w8(4u * b);
    let q = quant_w8(4u * b + 1u);
    let r = quant_w8(4u * b + 2u);
    let s = quant_w8(4u * b + 3u);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}
