// Mixture-of-experts router: scores, the best USED experts, their weights. Maths: src/ops/router.rs.
// One workgroup per token. Consts: WG, EXPERTS, USED. Flags: SOFTMAX, SIGMOID (neither: softmax of the chosen), BIAS, NORMALIZE, SUBGROUPS.

#import reduce
#import best

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

const OWN: u32 = (EXPERTS + WG - 1u) / WG; // experts of a thread

var<workgroup> score: array<f32, EXPERTS>;
var<workgroup> chosen: array<u32, USED>;

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
    var keys: array<u32, OWN>;
    for (var j = 0u; j < OWN; j++) {
        let e = thread + j * WG;
        keys[j] = LEAST;
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
        // Zeros are equal, whatever their sign.
        let bits = bitcast<u32>(s);
        keys[j] = order_key(select(bits, 0u, bits == 0x80000000u));
    }

    for (var u = 0u; u < USED; u++) {
        var mine = Ranked(LEAST, EXPERTS);
        for (var j = 0u; j < OWN; j++) {
            if keys[j] > mine.key { mine = Ranked(keys[j], thread + j * WG); }
        }
        let best = winner(place, mine, u);
        for (var j = 0u; j < OWN; j++) {
            if thread + j * WG == best.id { keys[j] = LEAST; }
        }
        if thread == 0u { chosen[u] = min(best.id, EXPERTS - 1u); }
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
