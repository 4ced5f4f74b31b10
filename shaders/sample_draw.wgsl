// Second pass of sampling, one workgroup: merges the slices' candidates, then one thread cuts them by top-p and min-p, draws,
// and moves the positions past the batch.
// Maths: src/ops/sample.rs. Consts: SLICES, MAX_K. Flag: SUBGROUPS.

struct Params {
    positions_offset: u32,
    last: u32,          // index of the batch's last token
    tokens_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> best: array<u32>;
@group(0) @binding(2) var<storage, read> sampler: array<u32>;
@group(0) @binding(3) var<storage, read_write> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;

#import sample_order
#import rng

var<workgroup> kept: array<Ranked, MAX_K>;

fn weight(i: u32) -> f32 {
    return exp(order_value(kept[i].key) - order_value(kept[0].key));
}

fn draw(k: u32) -> u32 {
    let temp = bitcast<f32>(sampler[0]);
    if kept[0].id == POISONED || kept[0].key == LEAST { return POISONED; }
    if temp <= 0.0 { return kept[0].id; }
    let top_p = bitcast<f32>(sampler[2]);
    let min_p = bitcast<f32>(sampler[3]);
    var count = 0u;
    var total = 0.0;
    for (; count < k && kept[count].key != LEAST; count++) { total += weight(count); }
    var nucleus = 0u;
    var reached = 0.0;
    for (; nucleus < count; nucleus++) {
        reached += weight(nucleus);
        if reached >= top_p * total { nucleus++; break; }
    }
    var n = 1u;
    while n < nucleus && weight(n) >= min_p { n++; }
    total = 0.0;
    let top = order_value(kept[0].key);
    for (var i = 0u; i < n; i++) { total += exp((order_value(kept[i].key) - top) / temp); }
    let step = positions[params.positions_offset + params.last] + 1u - sampler[6];
    var left = rng_uniform(vec2<u32>(sampler[4], sampler[5]), step) * total;
    for (var i = 0u; i < n; i++) {
        left -= exp((order_value(kept[i].key) - top) / temp);
        if left < 0.0 { return kept[i].id; }
    }
    return kept[n - 1u].id;
}

// Place `n` of list `list`, which has `k` of them.
fn candidate(list: u32, n: u32, k: u32) -> Ranked {
    if list >= SLICES || n >= k { return Ranked(LEAST, POISONED); }
    let at = 2u * (list * MAX_K + n);
    return Ranked(best[at], best[at + 1u]);
}

@compute @workgroup_size(WG)
fn main(place: Thread) {
    let thread = place.index;
    // The lists are in order: thread s offers the head of list s, and the winner moves on to its next.
    let k = wanted();
    var head = 0u;
    var mine = candidate(thread, head, k);
    for (var n = 0u; n < k; n++) {
        let next = winner(place, mine, n);
        if thread == 0u { kept[n] = next; }
        if mine.key == next.key && mine.id == next.id {
            head++;
            mine = candidate(thread, head, k);
        }
    }
    workgroupBarrier();
    if thread == 0u {
        tokens[params.tokens_offset] = draw(k);
        positions[params.positions_offset] = positions[params.positions_offset + params.last] + 1u;
    }
}
