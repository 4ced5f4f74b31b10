// What the block formats share: narrow codes out of words, f16 out of the planes.

// Four 4-bit codes from the low 16 bits.
fn quant_nibbles(w: u32) -> vec4<u32> {
    return (vec4(w) >> vec4(0u, 4u, 8u, 12u)) & vec4(15u);
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

// Planes of one or two bits per weight lie by parity too, 32 weights at a time: bits 8k + j and 8k + j + 4 of a word are those of weights
// 8j + 2k and 8j + 2k + 1; bits 8k + 2j of two words are those of the same.

// Bits of weights 8j, 8j + 2 … as bit 4 of the four bytes; those of 8j + 1, 8j + 3 … from h >> 4.
fn quant_fifths(h: u32, j: u32) -> u32 {
    return ((h >> j) & 0x01010101u) << 4u;
}

// The same as bit 2.
fn quant_thirds(h: u32, j: u32) -> u32 {
    return ((h >> j) & 0x01010101u) << 2u;
}

// Pairs of bits of weights 8j, 8j + 2 …, or of 8j + 1, 8j + 3 …, in the low bits of the four bytes.
fn quant_fours(h: u32, j: u32) -> u32 {
    return (h >> (2u * j)) & 0x03030303u;
}

// Eight codes by parity, in ascending order.
fn quant_ascending(even: u32, odd: u32) -> array<vec4<f32>, 2> {
    let a = quant_u8(even);
    let b = quant_u8(odd);
    return array(vec4(a.x, b.x, a.y, b.y), vec4(a.z, b.z, a.w, b.w));
}

#if DOT4
// Words of four codes, of the even and of the odd ones of four eights, by eights.
fn quant_by_eights(even: vec4<u32>, odd: vec4<u32>) -> array<vec4<u32>, 2> {
    return array(vec4(even.x, odd.x, even.y, odd.y), vec4(even.z, odd.z, even.w, odd.w));
}

// 32 nibbles.
fn quant_nibbles32(w: vec4<u32>) -> array<vec4<u32>, 2> {
    return quant_by_eights(w & vec4(0x0f0f0f0fu), (w >> vec4(4u)) & vec4(0x0f0f0f0fu));
}

// 32 nibbles with a fifth bit.
fn quant_fifths32(w: vec4<u32>, h: u32) -> array<vec4<u32>, 2> {
    let even = (w & vec4(0x0f0f0f0fu)) | ((vec4(h) << vec4(4u, 3u, 2u, 1u)) & vec4(0x10101010u));
    let odd = ((w >> vec4(4u)) & vec4(0x0f0f0f0fu)) | ((vec4(h) >> vec4(0u, 1u, 2u, 3u)) & vec4(0x10101010u));
    return quant_by_eights(even, odd);
}

// 32 pairs of bits, the even ones in h.x.
fn quant_fours32(h: vec2<u32>) -> array<vec4<u32>, 2> {
    let by = vec4(0u, 2u, 4u, 6u);
    return quant_by_eights((vec4(h.x) >> by) & vec4(0x03030303u), (vec4(h.y) >> by) & vec4(0x03030303u));
}
#end

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
