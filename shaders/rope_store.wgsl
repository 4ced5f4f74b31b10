// q' = rope(norm(q)), keys[cell] = rope(norm(k)), values[cell] = v; one workgroup per head of q, k or v, and token.
// Consts: WG, DIM_K, DIM_V channels of a head; HEADS of q; KV_HEADS.
// Flags: KEYS_*, VALUES_*, KV_* as in kv_write.wgsl; ADJACENT (pairs of channels 2j and 2j + 1); NORMS: NORM (RMS, before turning) or NORM_AFTER; WIDE (over
// all heads' channels together); NORM_HEADS (a weight for each head's channels);
// LAYER (layer norm of each head instead of RMS).

#if NORMS
#import reduce
#else
#import threads
#end
#import turn

struct Params {
  cells: u32,
  pairs: u32, // turned pairs of a head
  qk_stride: u32,
  qk_offset: u32,
  v_stride: u32,
  v_offset: u32,
  places_offset: u32,
  begins: u32,
  turns_offset: u32,
  y_offset: u32,
  mscale: f32,
  eps: f32,
#if KEYS_BLOCKS
  key_scales: u32,
#end
#if VALUES_BLOCKS
  value_scales: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qk: array<f32>;
@group(0) @binding(2) var<storage, read> v: array<f32>;
@group(0) @binding(3) var<storage, read> places: array<u32>;
@group(0) @binding(4) var<storage, read> turns: array<u32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
#if NORMS
@group(0) @binding(6) var<storage, read> norms: array<f32>; // of q, then of k
#end
#import kv_bindings
#import places

#import kv_write

var<workgroup> head: array<f32, max(DIM_K, DIM_V)>;

#if NORMS
// Normalises the head in workgroup memory; `h` counts q's heads, then k's.
fn norm(thread: Thread, token: u32, h: u32) {
  let of_k = h >= HEADS;
  var squares = 0.0;
#if LAYER
  var sum = 0.0;
  for (var i = thread.index; i < DIM_K; i += WG) {
    sum += head[i];
  }
  let mean = reduce_add(sum, thread) / f32(DIM_K);
  for (var i = thread.index; i < DIM_K; i += WG) {
    head[i] -= mean;
  }
#end
#if WIDE
  let count = select(HEADS, KV_HEADS, of_k) * DIM_K;
  let start = params.qk_offset + token * params.qk_stride + select(0u, HEADS * DIM_K, of_k);
  for (var i = thread.index; i < count; i += WG) {
    squares += qk[start + i] * qk[start + i];
  }
#else
  let count = DIM_K;
  for (var i = thread.index; i < DIM_K; i += WG) {
    squares += head[i] * head[i];
  }
#end
  let scale = 1.0 / sqrt(reduce_add(squares, thread) / f32(count) + params.eps);
#if NORM_HEADS
  let weight = h * DIM_K;
#else
  let weight = select(0u, DIM_K, of_k);
#end
  for (var i = thread.index; i < DIM_K; i += WG) {
    head[i] *= scale * norms[weight + i];
  }
  workgroupBarrier();
}
#end

// Pairs of a thread at the most.
const TURNS: u32 = (DIM_K / 2u + WG - 1u) / WG;

// What a thread's pairs turn by from position to position; asked for early, since memory is far away.
fn load_turns(thread: u32) -> array<u32, TURNS> {
  var own: array<u32, TURNS>;
  for (var j = 0u; j < TURNS; j++) {
    own[j] = turns[params.turns_offset + min(thread + j * WG, max(params.pairs, 1u) - 1u)];
  }
  return own;
}

fn rope(thread: u32, position: u32, own: array<u32, TURNS>) {
  for (var j = 0u; j < TURNS; j++) {
    let pair = thread + j * WG;
    if (pair < params.pairs) {
      let at = pair_channels(pair, params.pairs);
      // The product wraps around at whole turns.
      let v = turned(vec2<f32>(head[at.x], head[at.y]), position * own[j], params.mscale);
      head[at.x] = v.x;
      head[at.y] = v.y;
    }
  }
  workgroupBarrier();
}

@compute @workgroup_size(WG)
fn main(thread: Thread, @builtin(workgroup_id) group: vec3<u32>) {
  let token = group.y;
  let h = group.x;
  let is_value = h >= HEADS + KV_HEADS;
  let position = position_of(token);
  let own_turns = load_turns(thread.index);
  if (is_value) {
    let source = params.v_offset + token * params.v_stride + (h - HEADS - KV_HEADS) * DIM_V;
    for (var j = 0u; j < (DIM_V + WG - 1u) / WG; j++) {
      let i = thread.index + j * WG;
      if (i < DIM_V) {
        head[i] = v[source + i];
      }
    }
    workgroupBarrier();
  } else {
    let source = params.qk_offset + token * params.qk_stride + h * DIM_K;
    for (var j = 0u; j < (DIM_K + WG - 1u) / WG; j++) {
      let i = thread.index + j * WG;
      if (i < DIM_K) {
        head[i] = qk[source + i];
      }
    }
    workgroupBarrier();
#if NORM
    norm(thread, token, h);
#end
    rope(thread.index, position, own_turns);
#if NORM_AFTER
    norm(thread, token, h);
#end
  }
  if (h < HEADS) {
    for (var i = thread.index; i < DIM_K; i += WG) {
      y[params.y_offset + (token * HEADS + h) * DIM_K + i] = head[i];
    }
    return;
  }
  if (position == NO_ROW) {
    return;
  }
  let cell = page_of(table_of(token), position) + position % PAGE_CELLS;
  if (cell >= params.cells) {
    return;
  }
  let kv = select(h - HEADS, h - HEADS - KV_HEADS, is_value);
  kv_write(thread.index, is_value, (cell * KV_HEADS + kv) * select(DIM_K, DIM_V, is_value));
}
