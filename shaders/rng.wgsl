// Counter-based random numbers: a pure function of a seed and a step, with no state to carry between dispatches.
// Twin of src/sample/rng.rs: the same bits on every device, since only wrapping 32-bit integer operations are used.
// Source: PCG4D of Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020.

fn rng_pcg4d(words: vec4<u32>) -> vec4<u32> {
    var v = words * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// Uniform in [0, 1), a multiple of 2^-24. `seed` holds the low word, then the high word; `step` counts draws from 0.
fn rng_uniform(seed: vec2<u32>, step: u32) -> f32 {
    let word = rng_pcg4d(vec4<u32>(seed.x, seed.y, step, 0u)).w;
    return f32(word >> 8u) * 5.9604644775390625e-8;
}
