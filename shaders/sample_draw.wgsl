// Second pass of sampling, a workgroup for each row: merges the slices' candidates, then one thread cuts them by top-p and min-p,
// draws, and moves the positions on: all by one if each token has a row, place 0 past the last if there is one row.
// Maths: src/ops/sample.rs. Consts: SLICES, MAX_K. Flag: SUBGROUPS.

struct Params {
    positions_offset: u32,
    rows: u32,
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

const NO_ROW: u32 = 0xffffffffu;

// Where the position of a row's token is: of one row, the last.
fn position_of(row: u32) -> u32 {
    return params.positions_offset + select(row, params.last, params.rows == 1u);
}

fn draw(row: u32, k: u32) -> u32 {
    let own = row * PARAMS;
    let temp = bitcast<f32>(sampler[own]);
    if kept[0].id == POISONED || kept[0].key == LEAST { return POISONED; }
    if temp <= 0.0 { return kept[0].id; }
    let top_p = bitcast<f32>(sampler[own + 2u]);
    let min_p = bitcast<f32>(sampler[own + 3u]);
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
    let counted = positions[position_of(row)] + 1u - sampler[own + 6u];
    let step = select(counted, sampler[own + 6u], sampler[own + 7u] != 0u);
    var left = rng_uniform(vec2<u32>(sampler[own + 4u], sampler[own + 5u]), step) * total;
    for (var i = 0u; i < n; i++) {
        left -= exp((order_value(kept[i].key) - top) / temp);
        if left < 0.0 { return kept[i].id; }
    }
    return kept[n - 1u].id;
}

// Place `n` of a row's list `list`, which has `k` of them.
fn candidate(row: u32, list: u32, n: u32, k: u32) -> Ranked {
    if list >= SLICES || n >= k { return Ranked(LEAST, POISONED); }
    let at = 2u * ((row * SLICES + list) * MAX_K + n);
    return Ranked(best[at], best[at + 1u]);
}

@compute @workgroup_size(WG)
fn main(place: Thread, @builtin(workgroup_id) group: vec3<u32>) {
    let thread = place.index;
    let row = group.x;
    // The lists are in order: thread s offers the head of list s, and the winner moves on to its next.
    let k = wanted(row);
    var head = 0u;
    var mine = candidate(row, thread, head, k);
    for (var n = 0u; n < k; n++) {
        let next = winner(place, mine, n);
        if thread == 0u { kept[n] = next; }
        if mine.key == next.key && mine.id == next.id {
            head++;
            mine = candidate(row, thread, head, k);
        }
    }
    workgroupBarrier();
    if thread == 0u {
        tokens[params.tokens_offset + row] = draw(row, k);
        let position = positions[position_of(row)];
        let moves = params.rows == 1u || params.rows == params.last + 1u;
        if moves && position != NO_ROW { positions[params.positions_offset + row] = position + 1u; }
    }
}
