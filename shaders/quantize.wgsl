// Rows of x, normalised or not, in bytes with a scale for every 32, for products with quantized weights. One workgroup per row.
//
// y holds three vectors for each 32 values: their codes, four to a word, and their terms: scale, the sums of the first and of the
// last sixteen, and the scale of the rest. Value = scale · code + scale of the rest · its code; the rest is there, from `low` on and
// two vectors for each 32, where the largest of 32 values is an outlier: above LIMIT times the root of the row's mean square
// (src/quant/activations.rs has the same rule, and why).
// Consts: WG, LIMIT. Flags: PARITY (words hold the codes of values 8j, 8j + 2, 8j + 4, 8j + 6 and of those between), RMS or LAYER with
// NORM_W and NORM_B as in matmul_vec.wgsl.

#import reduce

struct Params {
  rows: u32,
  n: u32,         // a multiple of 32
  per_token: u32, // rows of a token
  low: u32,
  x_stride: u32,  // from token to token
  x_offset: u32,
#if NORM
  eps: f32,
#end
#if NORM_W
  norm_w_offset: u32,
#end
#if NORM_B
  norm_b_offset: u32,
#end
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;
#if NORM_W
@group(0) @binding(3) var<storage, read> norm_w: array<vec4<f32>>;
#end
#if NORM_B
@group(0) @binding(4) var<storage, read> norm_b: array<vec4<f32>>;
#end

// Value vector i of the row that begins at vector `start`, normalised by `norm`: mean and factor.
fn value(start: u32, i: u32, norm: vec2<f32>) -> vec4<f32> {
  var v = x[start + i];
#if LAYER
  v -= norm.x;
#end
#if NORM
  v *= norm.y;
#end
#if NORM_W
  v *= norm_w[params.norm_w_offset / 4u + i];
#end
#if NORM_B
  v += norm_b[params.norm_b_offset / 4u + i];
#end
  return v;
}

// Threads take blocks of 32 values, here as later: their eight loads are under way together.

#if LAYER
// Mean, and one over the deviation; and the mean square of what they make of the row.
fn statistics(start: u32, thread: Thread) -> vec3<f32> {
  let n = f32(params.n);
  var sum = 0.0;
  for (var b = thread.index; b < params.n / 32u; b += WG) {
    for (var j = 0u; j < 8u; j++) {
      sum += dot(x[start + 8u * b + j], vec4<f32>(1.0));
    }
  }
  let mean = reduce_add(sum, thread) / n;
  var squares = 0.0;
  for (var b = thread.index; b < params.n / 32u; b += WG) {
    for (var j = 0u; j < 8u; j++) {
      let d = x[start + 8u * b + j] - mean;
      squares += dot(d, d);
    }
  }
  let norm = vec2<f32>(mean, 1.0 / sqrt(reduce_add(squares, thread) / n + params.eps));
  squares = 0.0;
  for (var b = thread.index; b < params.n / 32u; b += WG) {
    for (var j = 0u; j < 8u; j++) {
      let v = value(start, 8u * b + j, norm);
      squares += dot(v, v);
    }
  }
  return vec3<f32>(norm, reduce_add(squares, thread) / n);
}
#else
// The same with a mean of 0; without a norm the factor is 1.
fn statistics(start: u32, thread: Thread) -> vec3<f32> {
  let n = f32(params.n);
  var squares = 0.0;
  var weighted = 0.0;
  for (var b = thread.index; b < params.n / 32u; b += WG) {
    for (var j = 0u; j < 8u; j++) {
      let v = value(start, 8u * b + j, vec2<f32>(0.0, 1.0));
      weighted += dot(v, v);
#if RMS
      let u = x[start + 8u * b + j];
      squares += dot(u, u);
#end
    }
  }
  weighted = reduce_add(weighted, thread) / n;
#if RMS
  let factor = 1.0 / sqrt(reduce_add(squares, thread) / n + params.eps);
  return vec3<f32>(0.0, factor, factor * factor * weighted);
#else
  return vec3<f32>(0.0, 1.0, weighted);
#end
}
#end

// The codes of 8 values in steps, as two words.
fn pack(a: vec4<i32>, b: vec4<i32>) -> vec2<u32> {
#if PARITY
  return vec2<u32>(pack4xI8(vec4<i32>(a.xz, b.xz)), pack4xI8(vec4<i32>(a.yw, b.yw)));
#else
  return vec2<u32>(pack4xI8(a), pack4xI8(b));
#end
}

fn sum4(v: vec4<i32>) -> i32 {
  return v.x + v.y + v.z + v.w;
}

@compute @workgroup_size(WG)
fn main(thread: Thread, @builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let row = group.x + group.y * groups.x;
  if (row >= params.rows) {
    return;
  }
  let start = (params.x_offset + row / params.per_token * params.x_stride + row % params.per_token * params.n) / 4u;
  let stats = statistics(start, thread);
  let limit = f32(LIMIT) * sqrt(stats.z);
  // What is no number in a row makes all of the row none.
  let broken = (bitcast<u32>(stats.z) & 0x7fffffffu) >= 0x7f800000u;

  let blocks = params.n / 32u;
  for (var b = thread.index; b < blocks; b += WG) {
    var v: array<vec4<f32>, 8>;
    var largest = vec4<f32>(0.0);
    for (var j = 0u; j < 8u; j++) {
      v[j] = value(start, 8u * b + j, stats.xy);
      largest = max(largest, abs(v[j]));
    }
    let amax = max(max(largest.x, largest.y), max(largest.z, largest.w));
    // The inverse of less would overflow; such values are as good as zero.
    let inverse = select(0.0, 127.0 / amax, amax > 1e-36);
    var scale = amax / 127.0;
    if (broken) {
      scale = bitcast<f32>(0x7fc00000u | (row & 1u)); // NaN; a constant one is an error in WGSL
    }
    let low_scale = select(0.0, scale / 256.0, amax > limit);
    var codes: array<vec2<u32>, 4>;
    var rest: array<vec2<u32>, 4>;
    var sums = vec2<i32>(0);
    var low_sums = vec2<i32>(0);
    for (var j = 0u; j < 4u; j++) {
      let p = v[2u * j] * inverse;
      let q = v[2u * j + 1u] * inverse;
      let a = round(p);
      let c = round(q);
      codes[j] = pack(vec4<i32>(a), vec4<i32>(c));
      sums[j / 2u] += sum4(vec4<i32>(a)) + sum4(vec4<i32>(c));
      // What rounding leaves is at most half; 128 would be out of range.
      let la = vec4<i32>(clamp(round((p - a) * 256.0), vec4<f32>(-127.0), vec4<f32>(127.0)));
      let lc = vec4<i32>(clamp(round((q - c) * 256.0), vec4<f32>(-127.0), vec4<f32>(127.0)));
      rest[j] = pack(la, lc);
      low_sums[j / 2u] += sum4(la) + sum4(lc);
    }
    let at = 3u * (row * blocks + b);
    y[at] = vec4<u32>(codes[0], codes[1]);
    y[at + 1u] = vec4<u32>(codes[2], codes[3]);
    let total = scale * vec2<f32>(sums) + low_scale * vec2<f32>(low_sums);
    y[at + 2u] = bitcast<vec4<u32>>(vec4<f32>(scale, total, low_scale));
    if (low_scale != 0.0) {
      let place = params.low + 2u * (row * blocks + b);
      y[place] = vec4<u32>(rest[0], rest[1]);
      y[place + 1u] = vec4<u32>(rest[2], rest[3]);
    }
  }
}
