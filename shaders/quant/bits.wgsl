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

// Four bytes as numbers.
fn quant_u8(w: u32) -> vec4<f32> {
    return vec4<f32>((vec4(w) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u));
}

// What the dot form shares. Words of eight codes are split by parity, for the bytes of (w & 0x0f0f0f0f) are the codes 0 2 4 6, and
// GPUs make a number of a byte in one instruction.
fn quant_even(w: u32) -> vec4<f32> {
    return quant_u8(w & 0x0f0f0f0fu);
}
fn quant_odd(w: u32) -> vec4<f32> {
    return quant_u8((w >> 4u) & 0x0f0f0f0fu);
}

// Activations in the order of those codes.
fn quant_parity(v: array<vec4<f32>, 2>) -> array<vec4<f32>, 2> {
    return array(vec4(v[0].xz, v[1].xz), vec4(v[0].yw, v[1].yw));
}

// The four nibbles of the low 16 bits, each in a byte of its own.
fn quant_spread(h: u32) -> u32 {
    let x = h & 0xffffu;
    let y = (x | (x << 8u)) & 0x00ff00ffu;
    return (y | (y << 4u)) & 0x0f0f0f0fu;
}

// Bits 0 2 4 6 as bit 4 of the four bytes: the product copies them there, and what else it makes is masked. Bits 1 3 5 7: h >> 1.
fn quant_fifths(h: u32) -> u32 {
    return ((h & 0x55u) * 0x00410410u) & 0x10101010u;
}

// The same as bit 2.
fn quant_thirds(h: u32) -> u32 {
    return ((h & 0x55u) * 0x00104104u) & 0x04040404u;
}

#if HALF
// The f16 in the low 16 bits. HALF: the device was seen to keep subnormals, which the scales of Q3_K and Q6_K often are (largest
// weight / 4096).
fn quant_half(h: u32) -> f32 {
    return unpack2x16float(h).x;
}

// Both f16 of a word.
fn quant_halves(w: u32) -> vec2<f32> {
    return unpack2x16float(w);
}
#else
// The f16 in the low 16 bits. Not unpack2x16float, which may flush subnormals: the scales of Q3_K and Q6_K often are
// (largest weight / 4096). No infinities: a scale is finite.
fn quant_half(h: u32) -> f32 {
    let m = h & 0x7fffu;
    let normal = bitcast<f32>((m << 13u) + 0x38000000u);
    let v = select(normal, f32(m) * 0x1p-24f, m < 0x400u);
    return select(v, -v, (h & 0x8000u) != 0u);
}

// Both f16 of a word.
fn quant_halves(w: u32) -> vec2<f32> {
    return vec2(quant_half(w), quant_half(w >> 16u));
}
#end

// f16 number i of the plane at word `plane`.
fn quant_half_at(plane: u32, i: u32) -> f32 {
    return quant_half(wd[plane + i / 2u] >> (16u * (i & 1u)));
}

// Both f16 of word i of the plane at word `plane`.
fn quant_halves_at(plane: u32, i: u32) -> vec2<f32> {
    return quant_halves(wd[plane + i]);
}
