// Q8_0: w = d · q, 32 weights per scale.
// Plane x: q, i8, four per word.   Plane y: d, f16.
#import quant/bits

fn quant_bytes(w: u32, d: f32) -> vec4<f32> {
    return d * vec4<f32>(bitcast<vec4<i32>>(vec4(w) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u));
}

fn quant_w8(i: u32) -> array<vec4<f32>, 2> {
    let d = quant_half_at(params.planes.y, i / 4u);
    let at = params.planes.x + 2u * i;
    return array(quant_bytes(wd[at], d), quant_bytes(wd[at + 1u], d));
}

fn quant_w32(b: u32) -> array<vec4<f32>, 8> {
    let d = quant_half_at(params.planes.y, b);
    let at = params.planes.x / 4u + 2u * b;
    let v = wq[at];
    let w = wq[at + 1u];
    return array(
        quant_bytes(v.x, d), quant_bytes(v.y, d), quant_bytes(v.z, d), quant_bytes(v.w, d),
        quant_bytes(w.x, d), quant_bytes(w.y, d), quant_bytes(w.z, d), quant_bytes(w.w, d),
    );
}
