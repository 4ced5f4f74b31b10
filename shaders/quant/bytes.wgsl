// Codes that stand for a byte out of sixteen: QUANT_BYTES, in ascending words, which the format's file gives. Two codes at a time are
// looked up, in a table that the threads of a workgroup fill: half of what single codes take.

var<workgroup> quant_pairs: array<u32, 256>;

fn quant_byte(q: u32) -> u32 {
    let w = select(select(QUANT_BYTES.x, QUANT_BYTES.y, q >= 4u), select(QUANT_BYTES.z, QUANT_BYTES.w, q >= 12u), q >= 8u);
    return (w >> (8u * (q & 3u))) & 255u;
}

// For all threads of a workgroup of WG; a barrier must follow.
fn quant_prepare(thread: u32) {
    for (var i = thread; i < 256u; i += WG) {
        quant_pairs[i] = quant_byte(i & 15u) | (quant_byte(i >> 4u) << 8u);
    }
}

// Eight codes.
fn quant_lookup(w: u32) -> vec2<u32> {
    let a = quant_pairs[w & 255u] | (quant_pairs[(w >> 8u) & 255u] << 16u);
    return vec2(a, quant_pairs[(w >> 16u) & 255u] | (quant_pairs[w >> 24u] << 16u));
}

fn quant_lookup32(w: vec4<u32>) -> array<vec4<u32>, 2> {
    return array(vec4(quant_lookup(w.x), quant_lookup(w.y)), vec4(quant_lookup(w.z), quant_lookup(w.w)));
}
