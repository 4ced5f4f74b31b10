// Merges the partial results of attention's splits: y = Σ e^(mₛ − m)·accₛ / (Σ e^(mₛ − m)·sumₛ + e^(sink − m)).
// One workgroup per token and head; thread d owns channels d, d + WG, …
// Consts: DIM_V, WG. Flag: SINKS.

struct Params {
    heads: u32,
    splits: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
#if SINKS
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
#end

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let out = group.y * params.heads + group.x;
    let first = out * params.splits * (DIM_V + 2u);

    var top = -1e30;
    for (var s = 0u; s < params.splits; s++) { top = max(top, partial[first + s * (DIM_V + 2u) + DIM_V]); }
    var sum = 0.0;
#if SINKS
    let sink = sinks[group.x];
    top = max(top, sink);
    sum = exp(sink - top);
#end
    for (var s = 0u; s < params.splits; s++) {
        let at = first + s * (DIM_V + 2u) + DIM_V;
        sum += exp(partial[at] - top) * partial[at + 1u];
    }
    for (var d = thread; d < DIM_V; d += WG) {
        var acc = 0.0;
        for (var s = 0u; s < params.splits; s++) {
            let at = first + s * (DIM_V + 2u);
            acc += exp(partial[at + DIM_V] - top) * partial[at + d];
        }
        y[out * DIM_V + d] = acc / max(sum, 1e-30);
    }
}
