// The order of candidates, shared by both passes of sampling: logits down, tokens up; and the reduction that finds the best.

const POISONED: u32 = 0xffffffffu;
const LEAST: u32 = 0u;

// The place in the order: a key that grows with the logit, and the token.
struct Ranked {
    key: u32,
    token: u32,
}

// Floats as integers of the same order; -infinity and below get LEAST and are never drawn.
fn order_key(bits: u32) -> u32 {
    if bits == 0xff800000u { return LEAST; }
    if (bits & 0x80000000u) != 0u { return ~bits; }
    return bits | 0x80000000u;
}

fn order_value(key: u32) -> f32 {
    if (key & 0x80000000u) != 0u { return bitcast<f32>(key & 0x7fffffffu); }
    return bitcast<f32>(~key);
}

fn before(a: Ranked, b: Ranked) -> bool {
    return a.key > b.key || (a.key == b.key && a.token < b.token);
}

// How many candidates the host asked for: one for greedy choice.
fn wanted() -> u32 {
    if bitcast<f32>(sampler[0]) <= 0.0 { return 1u; }
    return clamp(sampler[1], 1u, MAX_K);
}

#import threads

// The best of one candidate per thread (256 of them); every thread gets it. `turn` counts the calls.
#if SUBGROUPS
// Of two turns, in turn: what is written in one is read before the next but one. Subgroups may be as small as four threads.
var<workgroup> ranked: array<Ranked, 128>;

fn winner(thread: Thread, mine: Ranked, turn: u32) -> Ranked {
    let key = subgroupMax(mine.key);
    let token = subgroupMin(select(0xffffffffu, mine.token, mine.key == key));
    let at = 64u * (turn & 1u);
    if thread.lane == 0u { ranked[at + thread.subgroup] = Ranked(key, token); }
    workgroupBarrier();
    var best = ranked[at];
    for (var i = 1u; i < thread.subgroups; i++) {
        if before(ranked[at + i], best) { best = ranked[at + i]; }
    }
    return best;
}
#else
var<workgroup> ranked: array<Ranked, 256>;

fn winner(thread: Thread, mine: Ranked, turn: u32) -> Ranked {
    ranked[thread.index] = mine;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if thread.index < half && before(ranked[thread.index + half], ranked[thread.index]) {
            ranked[thread.index] = ranked[thread.index + half];
        }
        workgroupBarrier();
    }
    let best = ranked[0];
    workgroupBarrier();
    return best;
}
#end
