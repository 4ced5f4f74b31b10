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

// The dot form: what a row's eight weights are read as, their codes (`at` counts eights from the start of w, `i` from the row's), and
// their product with eight values of x in quant_order, of which `sum` is the sum.
struct QuantRaw { v: vec4<u32>, w: vec4<u32> }
struct QuantCodes { a: vec4<f32>, b: vec4<f32> }

fn quant_load(i: u32) -> QuantRaw {
    return QuantRaw(wq[params.planes.x / 4u + 2u * i], wq[params.planes.x / 4u + 2u * i + 1u]);
}

fn quant_codes(q: QuantRaw, at: u32, i: u32) -> QuantCodes {
    return QuantCodes(bitcast<vec4<f32>>(q.v), bitcast<vec4<f32>>(q.w));
}

fn quant_order(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return v;
}

fn quant_dot(c: QuantCodes, x: array<vec4<f32>, 2>, sum: f32) -> f32 {
    return dot(c.a, x[0]) + dot(c.b, x[1]);
}

// The eight weights, in quant_order too.
fn quant_weights(c: QuantCodes) -> array<vec4<f32>, 2> {
    return array(c.a, c.b);
}
