// The best of a workgroup's candidates, by the order of sampling and of the router: keys down, ids up. Const: WG.
// Flags: SUBGROUPS, with it MANY (there are many of them).

#import threads

// No key is lower. -infinity has it too, so ids decide among those.
const LEAST: u32 = 0u;

// The place in the order: a key that grows with the value, and what has it.
struct Ranked {
    key: u32,
    id: u32,
}

// Floats as integers of the same order; -infinity gets LEAST.
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
    return a.key > b.key || (a.key == b.key && a.id < b.id);
}

// The best of one candidate per thread; every thread gets it. `turn` counts the calls.
#if SUBGROUPS
// Of two turns, in turn: what is written in one is read before the next but one. Subgroups may be as small as four threads.
var<workgroup> ranked: array<Ranked, 2u * (WG / 4u)>;

fn winner(thread: Thread, mine: Ranked, turn: u32) -> Ranked {
    let key = subgroupMax(mine.key);
    let id = subgroupMin(select(0xffffffffu, mine.id, mine.key == key));
    let at = WG / 4u * (turn & 1u);
    if thread.lane == 0u { ranked[at + thread.subgroup] = Ranked(key, id); }
    workgroupBarrier();
#if MANY
    // Each subgroup shares out the others' best among its threads.
    var best = Ranked(LEAST, 0xffffffffu);
    for (var i = thread.lane; i < thread.subgroups; i += WG / thread.subgroups) {
        if before(ranked[at + i], best) { best = ranked[at + i]; }
    }
    let most = subgroupMax(best.key);
    return Ranked(most, subgroupMin(select(0xffffffffu, best.id, best.key == most)));
#else
    var best = ranked[at];
    for (var i = 1u; i < thread.subgroups; i++) {
        if before(ranked[at + i], best) { best = ranked[at + i]; }
    }
    return best;
#end
}
#else
var<workgroup> ranked: array<Ranked, WG>;

fn winner(thread: Thread, mine: Ranked, turn: u32) -> Ranked {
    ranked[thread.index] = mine;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
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
