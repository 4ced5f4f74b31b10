// Turns pairs of channels by pos * turns[pair], an angle in units of 2^-32 turns; one thread per pair or copied channel.
// Angles are reduced to an eighth of a turn in integers, exactly; drivers' own sin and cos may be off by 5e-4.

struct Params {
  rows: u32,  // tokens
  n: u32,     // channels of a token
  dim: u32,   // channels of a head
  pairs: u32, // turned pairs of a head
  per_head: u32, // threads of a head: dim - pairs
  x_stride: u32,
  x_offset: u32,
  pos_offset: u32,
  turns_offset: u32,
  y_offset: u32,
  mscale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> pos: array<u32>;
@group(0) @binding(3) var<storage, read> turns: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

#import turn

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = id.y + id.z * groups.y;
  let head = id.x / params.per_head;
  let j = id.x % params.per_head;
  if (head * params.dim >= params.n || row >= params.rows) {
    return;
  }
  let source = params.x_offset + row * params.x_stride + head * params.dim;
  let to = params.y_offset + row * params.n + head * params.dim;
  if (j >= params.pairs) {
    // Channels behind the turned ones.
    y[to + params.pairs + j] = x[source + params.pairs + j];
    return;
  }
  let at = pair_channels(j, params.pairs);
  // The product wraps around at whole turns.
  let angle = pos[params.pos_offset + row] * turns[params.turns_offset + j];
  let v = turned(vec2<f32>(x[source + at.x], x[source + at.y]), angle, params.mscale);
  y[to + at.x] = v.x;
  y[to + at.y] = v.y;
}
