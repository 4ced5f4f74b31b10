// The values that the codes of IQ4_NL and IQ4_XS stand for: -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113.

// As i8, four per word; selects, because a table indexed by a variable goes through memory.
fn quant_value(q: vec4<u32>) -> vec4<f32> {
    let low = select(vec4(0xbfad9881u), vec4(0xf6eaddcfu), (q & vec4(4u)) != vec4(0u));
    let high = select(vec4(0x26190d01u), vec4(0x71594535u), (q & vec4(4u)) != vec4(0u));
    let w = select(low, high, q >= vec4(8u));
    return vec4<f32>(bitcast<vec4<i32>>(w << (vec4(24u) - 8u * (q & vec4(3u)))) >> vec4(24u));
}

#if DOT4
// All of them, four to a word.
const QUANT_BYTES: vec4<u32> = vec4<u32>(0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);

fn quant_look(q: vec4<u32>) -> vec4<f32> {
    return quant_value(q);
}
#else
#if TABLE
// The same from workgroup memory, once quant_prepare has filled it.
var<workgroup> quant_table: array<f32, 16>;

fn quant_prepare(thread: u32) {
    if thread < 16u { quant_table[thread] = quant_value(vec4(thread)).x; }
}

fn quant_look(q: vec4<u32>) -> vec4<f32> {
    return vec4(quant_table[q.x], quant_table[q.y], quant_table[q.z], quant_table[q.w]);
}
#else
fn quant_look(q: vec4<u32>) -> vec4<f32> {
    return quant_value(q);
}
#end
#end
