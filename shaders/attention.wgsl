// Causal attention over the KV cache, tiled, with online softmax. Maths: src/ops/attention.rs.
//
// The query heads that share a kv head are treated like further tokens: row r of the problem is token r / GROUP, head r % GROUP of
// the group. So one kernel serves prefill (many tokens) and decode (one token, GROUP rows), and each key and value that is loaded
// meets all rows of the tile.
//   workgroup (x, y, z): rows row_base + x·ROWS …, kv head y, part z of the cells
//   thread = (row r, column c): one score per tile; of the result it owns channels c, c + COLS, …
// Consts: DIM, DIM_V channels of keys and values; GROUP; ROWS; COLS; WG = ROWS · COLS; OWN = ceil(DIM_V / COLS).
// Flags: KEYS_*, VALUES_*, KV_* as in kv_read.wgsl; SPLIT (partial results for attention_reduce), SINKS.

struct Params {
    rows: u32,          // tokens · GROUP
    row_base: u32,      // the first of them that this dispatch computes: long work is cut
    kv_heads: u32,
    q_offset: u32,
    q_stride: u32,      // from token to token
    window: u32,        // 0: none
    splits: u32,
    cells: u32,         // of the cache: no position is trusted to lie below
    scale: f32,
    softcap: f32,       // 0: none
    slope_base: f32,    // ALiBi: slope of head h < slope_heads is base^(h+1) …
    slope_base_rest: f32, // … of the others rest^(2(h − slope_heads)+1); both 0: none
    slope_heads: u32,
    pos_offset: u32,
#if KEYS_BLOCKS
    key_scales: u32,
#end
#if VALUES_BLOCKS
    value_scales: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> keys: array<u32>;
@group(0) @binding(3) var<storage, read> values: array<u32>;
@group(0) @binding(4) var<storage, read> pos: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
#if SINKS
@group(0) @binding(6) var<storage, read> sinks: array<f32>;
#end

#import kv_read

// Finite, so that no NaN can come out of differences: WGSL may assume there are no infinities.
const MASKED: f32 = -1e30;
const PITCH: u32 = max(DIM, DIM_V) + 1u; // odd where DIM is even: threads of a column hit different banks

var<workgroup> query: array<f32, ROWS * DIM>;
var<workgroup> tile: array<f32, COLS * PITCH>;
var<workgroup> weights: array<f32, ROWS * COLS>;

fn first_cell(p: u32) -> u32 {
    if params.window == 0u || p + 1u <= params.window { return 0u; }
    return p + 1u - params.window;
}

fn slope(h: u32) -> f32 {
    if params.slope_base == 0.0 { return 0.0; }
    if h < params.slope_heads { return pow(params.slope_base, f32(h + 1u)); }
    return pow(params.slope_base_rest, f32(2u * (h - params.slope_heads) + 1u));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let kv = group.y;
    let heads = params.kv_heads * GROUP;
    let first_row = params.row_base + group.x * ROWS;
    let last_row = min(first_row + ROWS, params.rows) - 1u;

    // Rows past the end compute what the last row does, and store nothing.
    for (var i = thread; i < ROWS * DIM; i += WG) {
        let r = min(first_row + i / DIM, last_row);
        query[i] = q[params.q_offset + (r / GROUP) * params.q_stride + (kv * GROUP + r % GROUP) * DIM + i % DIM];
    }

    let low = min(first_cell(pos[params.pos_offset + first_row / GROUP]), params.cells);
    let high = min(pos[params.pos_offset + last_row / GROUP] + 1u, params.cells);
    let per_split = ((max(high, low) - low + params.splits - 1u) / params.splits + COLS - 1u) / COLS * COLS;
    let start = low + group.z * per_split;
    let end = min(start + per_split, high);

    let r = thread / COLS;
    let c = thread % COLS;
    let row = min(first_row + r, last_row);
    let head = kv * GROUP + row % GROUP;
    let p = pos[params.pos_offset + row / GROUP];
    let row_first = first_cell(p);
    let row_slope = slope(head);

    var greatest = MASKED;
    var sum = 0.0;
    var own: array<f32, OWN>;
    for (var i = 0u; i < OWN; i++) { own[i] = 0.0; }

    for (var base = start; base < end; base += COLS) {
        workgroupBarrier();
        for (var i = thread; i < COLS * (DIM / KEY_UNIT); i += WG) {
            let cell = i / (DIM / KEY_UNIT);
            let unit = i % (DIM / KEY_UNIT);
            var k: array<f32, KEY_UNIT>;
            if base + cell < end { k = kv_key(((base + cell) * params.kv_heads + kv) * (DIM / KEY_UNIT) + unit); }
            for (var j = 0u; j < KEY_UNIT; j++) { tile[cell * PITCH + KEY_UNIT * unit + j] = k[j]; }
        }
        workgroupBarrier();
        var score = 0.0;
        for (var d = 0u; d < DIM; d++) { score += query[r * DIM + d] * tile[c * PITCH + d]; }
        score *= params.scale;
        if params.softcap != 0.0 { score = params.softcap * tanh(clamp(score / params.softcap, -10.0, 10.0)); }
        let cell = base + c;
        let seen = cell < end && cell <= p && cell >= row_first;
        score -= row_slope * (f32(p) - f32(cell));
        weights[thread] = select(MASKED, score, seen);
        workgroupBarrier();

        for (var i = thread; i < COLS * (DIM_V / VALUE_UNIT); i += WG) {
            let at = i / (DIM_V / VALUE_UNIT);
            let unit = i % (DIM_V / VALUE_UNIT);
            var v: array<f32, VALUE_UNIT>;
            if base + at < end { v = kv_value(((base + at) * params.kv_heads + kv) * (DIM_V / VALUE_UNIT) + unit); }
            for (var j = 0u; j < VALUE_UNIT; j++) { tile[at * PITCH + VALUE_UNIT * unit + j] = v[j]; }
        }
        var tile_greatest = greatest;
        for (var i = 0u; i < COLS; i++) { tile_greatest = max(tile_greatest, weights[r * COLS + i]); }
        workgroupBarrier();
        // What is not seen may exceed the greatest of what is: no infinity even where it is not used.
        weights[thread] = select(0.0, exp(min(score - tile_greatest, 0.0)), seen);
        workgroupBarrier();
        let fade = exp(greatest - tile_greatest);
        greatest = tile_greatest;
        sum *= fade;
        for (var i = 0u; i < OWN; i++) { own[i] *= fade; }
        for (var at = 0u; at < COLS; at++) {
            let w = weights[r * COLS + at];
            sum += w;
            for (var i = 0u; i < OWN; i++) {
                // Channels past DIM_V read padding and are not stored.
                own[i] += w * tile[min(at * PITCH + c + i * COLS, COLS * PITCH - 1u)];
            }
        }
    }

    if first_row + r > last_row { return; }
    let out = (row / GROUP) * heads + head;
#if SPLIT
    // Partial: DIM_V channels, then the greatest score and the sum of weights.
    let at = (out * params.splits + group.z) * (DIM_V + 2u);
    for (var i = 0u; i < OWN; i++) {
        if c + i * COLS < DIM_V { y[at + c + i * COLS] = own[i]; }
    }
    if c == 0u {
        y[at + DIM_V] = greatest;
        y[at + DIM_V + 1u] = sum;
    }
#else
    var norm = 1.0 / max(sum, 1e-30);
#if SINKS
    let top = max(greatest, sinks[head]);
    norm = exp(greatest - top) / (sum * exp(greatest - top) + exp(sinks[head] - top));
#end
    for (var i = 0u; i < OWN; i++) {
        if c + i * COLS < DIM_V { y[out * DIM_V + c + i * COLS] = own[i] * norm; }
    }
#end
}
