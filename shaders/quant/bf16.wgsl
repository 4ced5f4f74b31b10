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

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { w: vec4<u32> }
struct QuantCodes { a: vec4<f32>, b: vec4<f32> }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wq[params.planes.x / 4u + i]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    return QuantCodes(bitcast<vec4<f32>>(q.w << vec4(16u)), bitcast<vec4<f32>>(q.w & vec4(0xffff0000u)));
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return array(vec4(v[0].xz, v[1].xz), vec4(v[0].yw, v[1].yw));
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return dot(c.a, x[0]) + dot(c.b, x[1]);
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.a, c.b);
}
