// First pass of sampling: each workgroup lists the best logits of its slice of a row, best first, as (value, token) pairs.
// The k-th best is the greatest that comes after the one before it in the order (value down, token up), so nothing need be marked.
// Unused places hold the least value. A NaN or +infinity anywhere makes the slice's first token POISONED.
// Consts: SLICE (logits per workgroup), MAX_K. Flag: SUBGROUPS.

struct Params {
    vocab: u32,
    logits_offset: u32,
    slices: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(2) var<storage, read> sampler: array<u32>;
@group(0) @binding(3) var<storage, read_write> best: array<u32>;

#import sample_order

const OWN: u32 = (SLICE + WG - 1u) / WG;

var<workgroup> poisoned: atomic<u32>;

@compute @workgroup_size(WG)
fn main(place: Thread, @builtin(workgroup_id) group: vec3<u32>) {
    let thread = place.index;
    let row = group.y;
    let list = (row * params.slices + group.x) * MAX_K;
    if thread == 0u { atomicStore(&poisoned, 0u); }
    workgroupBarrier();
    // Ordered keys in registers: each logit is read once.
    var own: array<u32, OWN>;
    for (var i = 0u; i < OWN; i++) {
        let at = i * WG + thread;
        let token = group.x * SLICE + at;
        own[i] = LEAST;
        if at < SLICE && token < params.vocab {
            let bits = logits[params.logits_offset + row * params.vocab + token];
            own[i] = order_key(bits);
            if (bits & 0x7f800000u) == 0x7f800000u && bits != 0xff800000u { atomicStore(&poisoned, 1u); }
        }
    }
    let k = wanted(row);
    var last = Ranked(0xffffffffu, 0u);
    var first = true;
    for (var n = 0u; n < k; n++) {
        var mine = Ranked(LEAST, 0xffffffffu);
        for (var i = 0u; i < OWN; i++) {
            let it = Ranked(own[i], group.x * SLICE + i * WG + thread);
            if own[i] != LEAST && (first || before(last, it)) && before(it, mine) { mine = it; }
        }
        last = winner(place, mine, n);
        first = false;
        if thread == 0u {
            best[2u * (list + n)] = last.key;
            best[2u * (list + n) + 1u] = last.id;
        }
    }
    workgroupBarrier();
    if thread == 0u && atomicLoad(&poisoned) != 0u {
        best[2u * list] = 0xffffffffu;
        best[2u * list + 1u] = POISONED;
    }
}
