// Causal attention over the KV cache with online softmax. Maths: src/ops/attention.rs; sizes: src/ops/attention_gpu.rs.
//
// The query heads that share a kv head are treated like further tokens: row r of the problem is token r / GROUP, head r % GROUP of
// the group. So one kernel serves prefill (many tokens) and decode (one token, GROUP rows).
//   workgroup (x, y, z): a tile of BLOCKS · ROWS rows, of one sequence; kv head y, split z of the cells
//   A unit of rows is cut into tiles from its beginning: all rows of a prompt's batch, where pieces of sequences begin at multiples of
//   16 tokens, or the rows of one token of an answer.
//   THREADS threads have ROWS rows, of which every value is one vector (Rows), and take THREADS cells at a time:
//   scores: PARTS threads share a cell, each with every PARTS-th load of its channels; each meets PARTS cells at a time
//   softmax: a thread has a cell
//   values: a thread has VALUE_UNIT channels (OWN times) of every SHARES-th cell; the shares meet at the end
// Keys and values go from memory to registers: BLOCKS threads read each, out of the nearest cache but for the first.
// Consts: DIM, DIM_V channels of keys and values; GROUP; ROWS; BLOCKS; THREADS; PARTS; WG = BLOCKS · THREADS; TILE = BLOCKS · ROWS; OWN; LANES; SHARES;
// STEPS of a thread through a run of cells, a multiple of AHEAD.
// Flags: ROWS_1, ROWS_2 or ROWS_4; FAR (PARTS is 1, and SLOTS are several runs); KEYS_*, VALUES_* as in kv_read.wgsl; SPLIT (partial results for attention_reduce), SINKS, ALIBI.

struct Params {
    row_base: u32,      // what this dispatch begins with, TILE for each tile before: long work is cut
    unit: u32,          // rows of a unit
    first_token: u32,   // the first that this dispatch computes
    kv_heads: u32,
    q_offset: u32,
    q_stride: u32,      // from token to token
    window: u32,        // 0: none
    cells: u32,         // of a sequence
    scale: f32,
    softcap: f32,       // 0: none
    places_offset: u32,
    begins: u32,
#if ALIBI
    slope_base: f32,    // slope of head h < slope_heads is base^(h+1) …
    slope_base_rest: f32, // … of the others rest^(2(h − slope_heads)+1)
    slope_heads: u32,
#end
#if SPLIT
    splits: u32,
    span: u32,          // cells of a split, a multiple of THREADS
#end
#if KEYS_BLOCKS
    key_scales: u32,
#end
#if VALUES_BLOCKS
    value_scales: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(4) var<storage, read> places: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
#if SPLIT
@group(0) @binding(6) var<storage, read_write> softmax: array<vec2<f32>>;
#else
#if SINKS
@group(0) @binding(7) var<storage, read> sinks: array<f32>;
#end
#end

// Cells that lie in a row in the cache: those of a page.
const RUN: u32 = 64u;

#import kv_read
#import attention_cells
#import attention_rows

// Finite, so that no NaN can come out of differences: WGSL may assume there are no infinities.
const MASKED: f32 = -1e30;
const KEY_WORDS: u32 = DIM / KEY_UNIT;
const UNITS: u32 = DIM_V / VALUE_UNIT;
const RUNS: u32 = THREADS / RUN;
const SLOTS: u32 = THREADS / PARTS;
// Loads of values that are under way together.
const AHEAD: u32 = 4u;
// One more than a load's channels, so that the parts' reads hit different banks.
const QUERY_PITCH: u32 = KEY_UNIT + 1u;
const PART_PITCH: u32 = THREADS + 8u / PARTS;
const RUN_PITCH: u32 = STEPS * SHARES;
// Sums that are exchanged at a time in the end.
const ROUND: u32 = min(PARTS, VALUE_UNIT);

// Multiplications and additions of a thread in one step through the cells (read by tools/kernel-stats).
const MACS: u32 = ROWS * (DIM + DIM_V);

var<workgroup> query: array<Rows, BLOCKS * KEY_WORDS * QUERY_PITCH>;
var<workgroup> parts: array<Rows, BLOCKS * PARTS * PART_PITCH>;
// Scores, then weights: of each run, then zeros.
var<workgroup> weights: array<Rows, BLOCKS * RUNS * RUN_PITCH>;
var<workgroup> eighths: array<Rows, BLOCKS * THREADS / 8u>;

fn load_query(i: u32, kv: u32, first_row: u32, last_row: u32) {
    let row = rows_from(first_row + i / DIM * ROWS, last_row);
    let d = i % DIM;
    let at = params.q_offset + row / GROUP * params.q_stride + (kv * GROUP + row % GROUP) * DIM + d;
    query[i / DIM * KEY_WORDS * QUERY_PITCH + d / KEY_UNIT * QUERY_PITCH + d % KEY_UNIT] = gather_q(at) * params.scale;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let kv = group.y;
    let tile = params.row_base / TILE + group.x;
    let tiles = (params.unit + TILE - 1u) / TILE;
    let unit = params.first_token * GROUP + tile / tiles * params.unit;
    let first_row = unit + tile % tiles * TILE;
    let last_row = min(first_row + TILE, unit + params.unit) - 1u;

    // Rows that are none follow those of a sequence. A tile of nothing else sees nothing.
    let table = table_of(first_row / GROUP);
    let low = first_cell(position_of(first_row / GROUP));
    var high = 0u;
    for (var i = first_row / GROUP; i <= last_row / GROUP; i++) { high = max(high, cells_to(i)); }
#if SPLIT
    let split = low / params.span + group.z;
    let start = max(low, split * params.span);
    let end = min(high, (split + 1u) * params.span);
    if start >= end { return; }
#else
    let start = low;
    let end = high;
#end

    for (var i = 0u; i < BLOCKS * DIM / WG; i++) { load_query(thread + i * WG, kv, first_row, last_row); }
    if thread < BLOCKS * DIM % WG { load_query(BLOCKS * DIM - 1u - thread, kv, first_row, last_row); }

    // Zeros behind the weights of a run.
    for (var i = thread; i < BLOCKS * RUNS; i += WG) {
        for (var j = RUN; j < RUN_PITCH; j++) { weights[i * RUN_PITCH + j] = Rows(0.0); }
    }

    let block = thread / THREADS;
    let t = thread % THREADS;
    // Rows past the end compute what the last row does, and store nothing.
    let own_row = first_row + block * ROWS;
    let row = rows_from(own_row, last_row);
    let head = kv * GROUP + row % GROUP;
    let p = gather_pos(row / GROUP);
    let row_first = first_cells(p);
#if ALIBI
    let row_slope = slopes(head);
#end
    let slot = t / PARTS;
    let part = t % PARTS;
    let queries = block * KEY_WORDS * QUERY_PITCH;
    let own_weight = (block * RUNS + t / RUN) * RUN_PITCH + t % RUN;
    let lane = t % LANES;
    let share = t / LANES;

    var greatest = Rows(MASKED);
    var sum = Rows(0.0);
    var own: array<Rows, OWN * VALUE_UNIT>;
    for (var i = 0u; i < OWN * VALUE_UNIT; i++) { own[i] = Rows(0.0); }
    workgroupBarrier();

    for (var base = start / THREADS * THREADS; base < end; base += THREADS) {
        // Scores: what lies past the end is read as the last cell, and masked. No page is read in which nothing is seen: it may be gone.
        var sums: array<Rows, PARTS>;
        var at: array<u32, PARTS>;
        for (var j = 0u; j < PARTS; j++) {
            sums[j] = Rows(0.0);
#if FAR
            let run = clamp(base + slot / RUN * RUN, start / RUN * RUN, (end - 1u) / RUN * RUN);
            let cell = min(slot % RUN, end - 1u - run);
#else
            let run = clamp(base + j * SLOTS / RUN * RUN, start / RUN * RUN, (end - 1u) / RUN * RUN);
            let cell = min(j * SLOTS % RUN + slot, end - 1u - run);
#end
            at[j] = ((page_of(table, run) + cell) * params.kv_heads + kv) * KEY_WORDS;
        }
        for (var w = 0u; w < KEY_WORDS / PARTS; w++) {
            let word = part + w * PARTS;
            var raw: array<KeyWord, PARTS>;
            for (var j = 0u; j < PARTS; j++) { raw[j] = keys[at[j] + word]; }
            let first = queries + word * QUERY_PITCH;
#if KEYS_NARROW
            for (var u = 0u; u < KEY_UNIT; u++) {
                let a = query[first + u];
                for (var j = 0u; j < PARTS; j++) { sums[j] += a * key_channel(raw[j], u); }
            }
#else
            var dots: array<Rows, PARTS>;
#if KEYS_BLOCKS
            for (var j = 0u; j < PARTS; j++) { dots[j] = Rows(0.0); }
#else
            for (var j = 0u; j < PARTS; j++) { dots[j] = sums[j]; }
#end
            for (var u = 0u; u < KEY_UNIT / 8u; u++) {
                let q0 = query[first + 8u * u];
                let q1 = query[first + 8u * u + 1u];
                let q2 = query[first + 8u * u + 2u];
                let q3 = query[first + 8u * u + 3u];
                for (var j = 0u; j < PARTS; j++) {
                    let k = key_low(raw[j], u);
                    var dot = dots[j];
                    dot += q0 * k.x;
                    dot += q1 * k.y;
                    dot += q2 * k.z;
                    dot += q3 * k.w;
                    dots[j] = dot;
                }
                let q4 = query[first + 8u * u + 4u];
                let q5 = query[first + 8u * u + 5u];
                let q6 = query[first + 8u * u + 6u];
                let q7 = query[first + 8u * u + 7u];
                for (var j = 0u; j < PARTS; j++) {
                    let k = key_high(raw[j], u);
                    var dot = dots[j];
                    dot += q4 * k.x;
                    dot += q5 * k.y;
                    dot += q6 * k.z;
                    dot += q7 * k.w;
                    dots[j] = dot;
                }
            }
#if KEYS_BLOCKS
            for (var j = 0u; j < PARTS; j++) { sums[j] += dots[j] * key_scale(at[j] + word); }
#else
            for (var j = 0u; j < PARTS; j++) { sums[j] = dots[j]; }
#end
#end
        }
        for (var j = 0u; j < PARTS; j++) { parts[(block * PARTS + part) * PART_PITCH + slot + j * SLOTS] = sums[j]; }
        workgroupBarrier();

        var score = Rows(0.0);
        for (var i = 0u; i < PARTS; i++) { score += parts[(block * PARTS + i) * PART_PITCH + t]; }
        if params.softcap != 0.0 {
            score = params.softcap * tanh(clamp(score / params.softcap, Rows(-10.0), Rows(10.0)));
        }
        let cell = base + t;
#if ALIBI
        score -= row_slope * (Rows(p) - f32(cell));
#end
        let seen = (Indices(cell) < Indices(end)) & (Indices(cell) <= p) & (Indices(cell) >= row_first)
            & (p != Indices(NO_ROW));
        score = select(Rows(MASKED), score, seen);
        weights[own_weight] = score;
        workgroupBarrier();

        var top = weights[own_weight / 8u * 8u];
        for (var i = 1u; i < 8u; i++) { top = max(top, weights[own_weight / 8u * 8u + i]); }
        eighths[thread / 8u] = top;
        workgroupBarrier();
        var next = greatest;
        for (var i = 0u; i < THREADS / 8u; i++) { next = max(next, eighths[block * (THREADS / 8u) + i]); }
        // Where a row sees nothing yet, everything is MASKED, and its weights are none.
        let weight = select(Rows(0.0), exp(score - next), seen);
        weights[own_weight] = weight;
        let fade = exp(greatest - next);
        greatest = next;
        sum = sum * fade + weight;
        workgroupBarrier();

        for (var i = 0u; i < OWN * VALUE_UNIT; i++) { own[i] *= fade; }
        if share < SHARES {
            for (var run = 0u; run < RUNS; run++) {
                let first = clamp(base + run * RUN, start / RUN * RUN, (end - 1u) / RUN * RUN);
                let cells = page_of(table, first);
                for (var s = 0u; s < STEPS; s += AHEAD) {
                    var raw: array<ValueWord, AHEAD * OWN>;
                    var place: array<u32, AHEAD * OWN>;
                    for (var i = 0u; i < AHEAD; i++) {
                        let c = min(share + (s + i) * SHARES, end - 1u - first);
                        for (var o = 0u; o < OWN; o++) {
                            let unit = kv * UNITS + min(lane + o * LANES, UNITS - 1u);
                            place[i * OWN + o] = (cells + c) * params.kv_heads * UNITS + unit;
                            raw[i * OWN + o] = values[place[i * OWN + o]];
                        }
                    }
                    for (var i = 0u; i < AHEAD; i++) {
                        let weight = weights[(block * RUNS + run) * RUN_PITCH + share + (s + i) * SHARES];
                        for (var o = 0u; o < OWN; o++) {
#if VALUES_BLOCKS
                            let w = weight * value_scale(place[i * OWN + o]);
#else
                            let w = weight;
#end
#if VALUES_NARROW
                            for (var u = 0u; u < VALUE_UNIT; u++) {
                                own[o * VALUE_UNIT + u] += w * value_channel(raw[i * OWN + o], u);
                            }
#else
                            let low = value_low(raw[i * OWN + o]);
                            let high = value_high(raw[i * OWN + o]);
                            own[o * VALUE_UNIT] += w * low.x;
                            own[o * VALUE_UNIT + 1u] += w * low.y;
                            own[o * VALUE_UNIT + 2u] += w * low.z;
                            own[o * VALUE_UNIT + 3u] += w * low.w;
                            own[o * VALUE_UNIT + 4u] += w * high.x;
                            own[o * VALUE_UNIT + 5u] += w * high.y;
                            own[o * VALUE_UNIT + 6u] += w * high.z;
                            own[o * VALUE_UNIT + 7u] += w * high.w;
#end
                        }
                    }
                }
            }
        }
    }

    workgroupBarrier();
    weights[own_weight] = sum;
    workgroupBarrier();
    sum = weights[own_weight / 8u * 8u];
    for (var i = 1u; i < 8u; i++) { sum += weights[own_weight / 8u * 8u + i]; }
    eighths[thread / 8u] = sum;
    workgroupBarrier();
    sum = Rows(0.0);
    for (var i = 0u; i < THREADS / 8u; i++) { sum += eighths[block * (THREADS / 8u) + i]; }

    let count = min(max(last_row + 1u, own_row) - own_row, ROWS);
    let out = row / GROUP * (params.kv_heads * GROUP) + head;
#if SPLIT
    let at = (out - params.first_token * params.kv_heads * GROUP) * params.splits + group.z;
    let to = at * DIM_V;
    let norm = Rows(1.0);
    if t == 0u { put_softmax(at, greatest, sum, count); }
#else
    let to = out * DIM_V;
#if SINKS
    let sink = gather_sinks(head);
    let top = max(greatest, sink);
    let norm = exp(greatest - top) / (sum * exp(greatest - top) + exp(sink - top));
#else
    let norm = 1.0 / max(sum, Rows(1e-30));
#end
#end
    // The shares of each channel meet, some channels of a unit at a time.
    for (var o = 0u; o < OWN; o++) {
        for (var r = 0u; r < VALUE_UNIT; r += ROUND) {
            workgroupBarrier();
            if share < SHARES {
                for (var i = 0u; i < ROUND; i++) { parts[(block * ROUND + i) * THREADS + t] = own[o * VALUE_UNIT + r + i]; }
            }
            workgroupBarrier();
            for (var i = t; i < LANES * ROUND; i += THREADS) {
                let place = (block * ROUND + i % ROUND) * THREADS + i / ROUND;
                var all = parts[place];
                for (var s = 1u; s < SHARES; s++) { all += parts[place + s * LANES]; }
                let unit = i / ROUND + o * LANES;
                if unit < UNITS { put(to + unit * VALUE_UNIT + r + i % ROUND, all * norm, count); }
            }
        }
    }
}
