// What both passes of sampling share: logits down, tokens up.

const WG: u32 = 256u;
#import best

const POISONED: u32 = 0xffffffffu;

// How many candidates the host asked for: one for greedy choice.
fn wanted() -> u32 {
    if bitcast<f32>(sampler[0]) <= 0.0 { return 1u; }
    return clamp(sampler[1], 1u, MAX_K);
}
