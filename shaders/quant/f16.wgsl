// F16: two weights per word. Plane x: the weights.
// unpack2x16float is one instruction; a driver may flush subnormals (below 6.1e-5), which as weights do not matter.

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let w = wq[params.planes.x / 4u + i];
    return array(
        vec4(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
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
    let a = vec4(unpack2x16float(q.w.x), unpack2x16float(q.w.y));
    return QuantCodes(a, vec4(unpack2x16float(q.w.z), unpack2x16float(q.w.w)));
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
