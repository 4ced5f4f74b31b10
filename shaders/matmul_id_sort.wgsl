// Sorts the (token, used) pairs of a batch by expert and cuts each expert's pairs into tiles of up to TOKENS.
// One workgroup; threads own experts, so the order is the same every time.
// Consts: EXPERTS, TOKENS.

struct Params {
  pairs: u32,
  used: u32,
  tiles: u32, // entries of the table of tiles; those not needed get no pairs
  ids_stride: u32,
  ids_offset: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<f32>;
@group(0) @binding(2) var<storage, read_write> tiles: array<vec4<u32>>; // expert, first place in `order`, pairs
@group(0) @binding(3) var<storage, read_write> order: array<u32>;

const WG: u32 = 256u;

var<workgroup> chunk: array<u32, WG>; // experts of pairs
var<workgroup> counts: array<u32, EXPERTS>;
var<workgroup> places: array<u32, EXPERTS>;      // where an expert's pairs begin
var<workgroup> tile_places: array<u32, EXPERTS>; // where its tiles begin
var<workgroup> tiles_used: u32;

// Puts the experts of pairs `start` .. `start + WG` into workgroup memory.
fn load(start: u32, thread: u32) {
  workgroupBarrier();
  let pair = start + thread;
  chunk[thread] = EXPERTS;
  if (pair < params.pairs) {
    chunk[thread] = u32(ids[params.ids_offset + pair / params.used * params.ids_stride + pair % params.used]);
  }
  workgroupBarrier();
}

// Which of pairs 4 i .. 4 i + 3 of the chunk are an expert's.
fn pairs_of(e: u32, i: u32) -> vec4<bool> {
  return vec4<u32>(chunk[4u * i], chunk[4u * i + 1u], chunk[4u * i + 2u], chunk[4u * i + 3u]) == vec4<u32>(e);
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) thread: u32) {
  for (var e = thread; e < EXPERTS; e += WG) {
    counts[e] = 0u;
  }
  for (var start = 0u; start < params.pairs; start += WG) {
    load(start, thread);
    for (var e = thread; e < EXPERTS; e += WG) {
      var count = vec4<u32>(0u);
      for (var i = 0u; i < WG / 4u; i++) {
        count += select(vec4<u32>(0u), vec4<u32>(1u), pairs_of(e, i));
      }
      counts[e] += count.x + count.y + count.z + count.w;
    }
  }
  workgroupBarrier();
  if (thread == 0u) {
    var place = 0u;
    var tile = 0u;
    for (var e = 0u; e < EXPERTS; e++) {
      places[e] = place;
      tile_places[e] = tile;
      place += counts[e];
      tile += (counts[e] + TOKENS - 1u) / TOKENS;
    }
    tiles_used = tile;
  }
  workgroupBarrier();
  for (var t = tiles_used + thread; t < params.tiles; t += WG) {
    tiles[t] = vec4<u32>(0u);
  }
  for (var e = thread; e < EXPERTS; e += WG) {
    for (var i = 0u; i * TOKENS < counts[e]; i++) {
      tiles[tile_places[e] + i] = vec4<u32>(e, places[e] + i * TOKENS, min(TOKENS, counts[e] - i * TOKENS), 0u);
    }
  }
  for (var start = 0u; start < params.pairs; start += WG) {
    load(start, thread);
    for (var e = thread; e < EXPERTS; e += WG) {
      var place = places[e];
      for (var i = 0u; i < WG / 4u; i++) {
        let found = pairs_of(e, i);
        if (any(found)) {
          for (var j = 0u; j < 4u; j++) {
            if (found[j]) {
              order[place] = start + 4u * i + j;
              place++;
            }
          }
        }
      }
      places[e] = place;
    }
  }
}
