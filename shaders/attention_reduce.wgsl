// Merges the partial results of attention's splits: y = Σ e^(mₛ − m)·accₛ / (Σ e^(mₛ − m)·sumₛ + e^(sink − m)), over those splits that
// the token sees anything of.
// One workgroup per token and head: every SHARES-th split is added up by LANES threads, each of which has a unit of channels, OWN times.
// Consts: DIM_V, GROUP, TILE (rows of a tile), WG, OWN, LANES, SHARES. Flags: SINKS; NARROW: units of one channel instead of four.

struct Params {
    heads: u32,
    splits: u32,
    span: u32, // cells of a split
    window: u32,
    cells: u32,
    unit: u32,
    first_token: u32,
    places_offset: u32,
    begins: u32,
}

#if NARROW
alias Unit = f32;
const UNITS: u32 = DIM_V;
#else
alias Unit = vec4<f32>;
const UNITS: u32 = DIM_V / 4u;
#end

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> partial: array<Unit>;
@group(0) @binding(2) var<storage, read> softmax: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> places: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<Unit>;
#if SINKS
@group(0) @binding(5) var<storage, read> sinks: array<f32>;
#end

#import attention_cells

// Loads that are under way together.
const AHEAD: u32 = 4u;
const STEP: u32 = WG / 8u;

var<workgroup> greatest: array<f32, WG>;
var<workgroup> sums: array<f32, WG>;
var<workgroup> shares: array<Unit, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let token = params.first_token + group.y;
    let out = token * params.heads + group.x;
    let end = cells_to(token);
    // Splits are counted from what the first row of the tile sees.
    let all_first = first_cell(position_of(tile_token(token * GROUP + group.x % GROUP))) / params.span;
    let first = first_cell(position_of(token)) / params.span;
    let count = select((end + params.span - 1u) / params.span - first, 0u, end == 0u);
    let base = (group.y * params.heads + group.x) * params.splits + first - all_first;

    // The greatest score, and the sum of weights: of each thread's splits, of eight threads', of all.
    var top = -1e30;
    var sum = 0.0;
    for (var s = thread; s < count; s += WG) {
        let more = softmax[base + s];
        let next = max(top, more.x);
        sum = sum * exp(top - next) + more.y * exp(more.x - next);
        top = next;
    }
    greatest[thread] = top;
    sums[thread] = sum;
    workgroupBarrier();
    if thread < STEP {
        var m = greatest[thread];
        for (var i = 1u; i < 8u; i++) { m = max(m, greatest[thread + i * STEP]); }
        sum = 0.0;
        for (var i = 0u; i < 8u; i++) { sum += sums[thread + i * STEP] * exp(greatest[thread + i * STEP] - m); }
        greatest[thread] = m;
        sums[thread] = sum;
    }
    workgroupBarrier();
    top = greatest[0];
    for (var i = 1u; i < STEP; i++) { top = max(top, greatest[i]); }
#if SINKS
    let sink = sinks[group.x];
    top = max(top, sink);
    sum = exp(sink - top);
#else
    sum = 0.0;
#end
    for (var i = 0u; i < STEP; i++) { sum += sums[i] * exp(greatest[i] - top); }
    let norm = 1.0 / max(sum, 1e-30);

    let lane = thread % LANES;
    let share = thread / LANES;
    for (var o = 0u; o < OWN; o++) {
        let unit = min(lane + o * LANES, UNITS - 1u);
        var all = Unit(0.0);
        for (var s = share; s < count; s += AHEAD * SHARES) {
            var weights: array<f32, AHEAD>;
            var values: array<Unit, AHEAD>;
            for (var i = 0u; i < AHEAD; i++) {
                let at = base + min(s + i * SHARES, max(count, 1u) - 1u);
                weights[i] = select(0.0, exp(softmax[at].x - top), s + i * SHARES < count);
                values[i] = partial[at * UNITS + unit];
            }
            for (var i = 0u; i < AHEAD; i++) { all += weights[i] * values[i]; }
        }
        workgroupBarrier();
        shares[thread] = all;
        workgroupBarrier();
        if share == 0u && lane + o * LANES < UNITS {
            for (var i = 1u; i < SHARES; i++) { all += shares[lane + i * LANES]; }
            y[out * UNITS + unit] = all * norm;
        }
    }
}
