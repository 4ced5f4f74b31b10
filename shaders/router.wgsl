// Mixture-of-experts router: scores, the best USED experts, their weights. Maths: src/ops/router.rs.
// One workgroup per token. Consts: EXPERTS, USED. Flags: SOFTMAX, SIGMOID (neither: softmax of the chosen), BIAS, NORMALIZE.

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

const WG: u32 = 64u;
const MIN_SUM: f32 = 6.1035156e-5; // f16's smallest normal number

var<workgroup> score: array<f32, EXPERTS>;
var<workgroup> key: array<f32, EXPERTS>;
var<workgroup> best_key: array<f32, WG>;
var<workgroup> best_id: array<u32, WG>;
var<workgroup> chosen: array<u32, USED>;

// Sum (or greatest) of one value per thread; every thread gets it.
fn reduce(thread: u32, value: f32, greatest: bool) -> f32 {
    best_key[thread] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if thread < half {
            let a = best_key[thread];
            let b = best_key[thread + half];
            best_key[thread] = select(a + b, max(a, b), greatest);
        }
        workgroupBarrier();
    }
    let all = best_key[0];
    workgroupBarrier();
    return all;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = params.x_offset + group.x * params.x_stride;
#if SOFTMAX
    var top = -1e30;
    for (var e = thread; e < EXPERTS; e += WG) { top = max(top, x[row + e]); }
    top = reduce(thread, top, true);
    var part = 0.0;
    for (var e = thread; e < EXPERTS; e += WG) { part += exp(x[row + e] - top); }
    let total = reduce(thread, part, false);
#end
    for (var e = thread; e < EXPERTS; e += WG) {
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
        key[e] = s;
    }
    workgroupBarrier();

    for (var u = 0u; u < USED; u++) {
        var k = -1e38;
        var id = EXPERTS;
        for (var e = thread; e < EXPERTS; e += WG) {
            if key[e] > k { k = key[e]; id = e; }
        }
        best_key[thread] = k;
        best_id[thread] = id;
        workgroupBarrier();
        for (var half = WG / 2u; half > 0u; half /= 2u) {
            if thread < half {
                let other = best_key[thread + half];
                let other_id = best_id[thread + half];
                if other > best_key[thread] || (other == best_key[thread] && other_id < best_id[thread]) {
                    best_key[thread] = other;
                    best_id[thread] = other_id;
                }
            }
            workgroupBarrier();
        }
        if thread == 0u {
            let e = min(best_id[0], EXPERTS - 1u);
            chosen[u] = e;
            key[e] = -1e38;
        }
        workgroupBarrier();
    }

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
