// What both passes of sampling share: logits down, tokens up.

const WG: u32 = 256u;
#import best

const POISONED: u32 = 0xffffffffu;

// Words of a row's parameters.
const PARAMS: u32 = 8u;

// How many candidates the host asked for, for a row: one for greedy choice.
fn wanted(row: u32) -> u32 {
    if bitcast<f32>(sampler[row * PARAMS]) <= 0.0 { return 1u; }
    return clamp(sampler[row * PARAMS + 1u], 1u, MAX_K);
}
