// The form for products of bytes of formats with nibbles in plane x and one f16 for 32 weights in plane y.

struct QuantRaw32 { w: vec4<u32>, d: u32 }

fn quant_load32(b: u32) -> QuantRaw32 {
    return QuantRaw32(wq[params.planes.x / 4u + b], wd[params.planes.y + b / 2u]);
}

fn quant_scales32(q: QuantRaw32, b: u32) -> vec4<f32> {
    return vec4(quant_half(q.d >> (16u * (b & 1u))), 0.0, 0.0, 0.0);
}
