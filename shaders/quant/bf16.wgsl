// BF16: two weights per word, each the upper half of an f32. Plane x: the weights.

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let w = wq[params.planes.x / 4u + i];
    let low = bitcast<vec4<f32>>(w << vec4(16u));
    let high = bitcast<vec4<f32>>(w & vec4(0xffff0000u));
    return array(vec4(low.x, high.x, low.y, high.y), vec4(low.z, high.z, low.w, high.w));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let p = quant_w8(4u * b);
    let q = quant_w8(4u * b + 1u);
    let r = quant_w8(4u * b + 2u);
    let s = quant_w8(4u * b + 3u);
    return array(p[0], p[1], q[0], q[1], r[0], r[1], s[0], s[1]);
}
