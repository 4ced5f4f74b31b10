// What the block formats share: narrow codes out of words, f16 out of the planes.

// Four 4-bit codes from the low 16 bits.
fn quant_nibbles(w: u32) -> vec4<u32> {
    return (vec4(w) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
}

// Four 2-bit codes from the low 8 bits.
fn quant_pairs(w: u32) -> vec4<u32> {
    return (vec4(w) >> vec4(0u, 2u, 4u, 6u)) & vec4(3u);
}

// Four bits from the low 4 bits.
fn quant_bits(w: u32) -> vec4<u32> {
    return (vec4(w) >> vec4(0u, 1u, 2u, 3u)) & vec4(1u);
}

// The f16 in the low 16 bits. Not unpack2x16float, which may flush subnormals: the scales of Q3_K and Q6_K often are
// (largest weight / 4096). No infinities: a scale is finite.
fn quant_half(h: u32) -> f32 {
    let m = h & 0x7fffu;
    let normal = bitcast<f32>((m << 13u) + 0x38000000u);
    let v = select(normal, f32(m) * 0x1p-24f, m < 0x400u);
    return select(v, -v, (h & 0x8000u) != 0u);
}

// f16 number i of the plane at word `plane`.
fn quant_half_at(plane: u32, i: u32) -> f32 {
    return quant_half(wd[plane + i / 2u] >> (16u * (i & 1u)));
}

// Both f16 of word i of the plane at word `plane`.
fn quant_halves_at(plane: u32, i: u32) -> vec2<f32> {
    let w = wd[plane + i];
    return vec2(quant_half(w), quant_half(w >> 16u));
}
