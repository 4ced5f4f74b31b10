// Mixture-of-experts router: scores, the best USED experts, their weights. Maths: src/ops/router.rs.
// One workgroup per token. Consts: WG, EXPERTS, USED. Flags: SOFTMAX, SIGMOID (neither: softmax of the chosen), BIAS, NORMALIZE, SUBGROUPS.

#import reduce

struct Params {
    x_offset: u32,
    x_stride: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#if BIAS
@group(0) @binding(3) var<storage, read> bias: array<f32>;
#end

const MIN_SUM: f32 = 6.1035156e-5; // f16's smallest normal number

// An expert that was chosen is out of it.
const OUT: f32 = -1e38;

struct Best {
    key: f32,
    id: u32,
}

const OWN: u32 = (EXPERTS + WG - 1u) / WG; // experts of a thread

var<workgroup> score: array<f32, EXPERTS>;
var<workgroup> chosen: array<u32, USED>;
// Of two turns, in turn: what is written in one is read before the next but one.
var<workgroup> bests: array<Best, 2u * WG>;

fn better(a: Best, b: Best) -> bool {
    return a.key > b.key || (a.key == b.key && a.id < b.id);
}

// The best of one expert per thread, ties to the lower one; every thread gets it.
fn winner(thread: Thread, mine: Best, turn: u32) -> Best {
    let at = WG * (turn & 1u);
#if SUBGROUPS
    let key = subgroupMax(mine.key);
    let id = subgroupMin(select(EXPERTS, mine.id, mine.key == key));
    if thread.lane == 0u { bests[at + thread.subgroup] = Best(key, id); }
    workgroupBarrier();
    var best = bests[at];
    for (var i = 1u; i < thread.subgroups; i++) {
        if better(bests[at + i], best) { best = bests[at + i]; }
    }
    return best;
#else
    bests[at + thread.index] = mine;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if thread.index < half && better(bests[at + thread.index + half], bests[at + thread.index]) {
            bests[at + thread.index] = bests[at + thread.index + half];
        }
        workgroupBarrier();
    }
    return bests[at];
#end
}

@compute @workgroup_size(WG)
fn main(place: Thread, @builtin(workgroup_id) group: vec3<u32>) {
    let thread = place.index;
    let row = params.x_offset + group.x * params.x_stride;
#if SOFTMAX
    var top = -1e30;
    for (var e = thread; e < EXPERTS; e += WG) { top = max(top, x[row + e]); }
    top = reduce_max(top, place);
    var part = 0.0;
    for (var e = thread; e < EXPERTS; e += WG) { part += exp(x[row + e] - top); }
    let total = reduce_add(part, place);
#end
    // Each thread keeps the keys of its own experts.
    var keys: array<f32, OWN>;
    for (var j = 0u; j < OWN; j++) {
        let e = thread + j * WG;
        keys[j] = OUT;
        if e >= EXPERTS { continue; }
        var s = x[row + e];
#if SOFTMAX
        s = exp(s - top) / total;
#end
#if SIGMOID
        s = 1.0 / (1.0 + exp(-max(s, -80.0))); // exp stays finite
#end
        score[e] = s;
#if BIAS
        s += bias[e];
#end
        keys[j] = s;
    }

    for (var u = 0u; u < USED; u++) {
        var mine = Best(OUT, EXPERTS);
        for (var j = 0u; j < OWN; j++) {
            if keys[j] > mine.key { mine = Best(keys[j], thread + j * WG); }
        }
        let best = winner(place, mine, u);
        if best.id == mine.id {
            for (var j = 0u; j < OWN; j++) {
                if thread + j * WG == best.id { keys[j] = OUT; }
            }
            if best.id < EXPERTS { chosen[u] = best.id; }
        }
        if thread == 0u && best.id == EXPERTS { chosen[u] = EXPERTS - 1u; }
    }
    workgroupBarrier();

    if thread != 0u { return; }
    let out = group.x * 2u * USED;
    var sum = 0.0;
    for (var u = 0u; u < USED; u++) {
#if SOFTMAX
        sum += score[chosen[u]];
#else
#if SIGMOID
        sum += score[chosen[u]];
#else
        sum += exp(score[chosen[u]] - score[chosen[0]]);
#end
#end
    }
    for (var u = 0u; u < USED; u++) {
        var w = score[chosen[u]];
#if OF_CHOSEN
        w = exp(w - score[chosen[0]]) / sum;
#else
#if NORMALIZE
        w /= max(sum, MIN_SUM);
#end
#end
        y[out + u] = f32(chosen[u]);
        y[out + USED + u] = w * params.scale;
    }
}
