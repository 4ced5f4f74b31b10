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
