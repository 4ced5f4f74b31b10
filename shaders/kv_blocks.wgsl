// kv_write for caches in blocks of 32 values: Q8_0 (d = greatest / 127) or Q4_0 (d = greatest with its sign / -8).
// Source: the formats' own definitions, src/quant/q8_0.rs and src/quant/q4_0.rs.

// Two blocks' scales share a word, and two threads write it: each clears and sets its own half.
fn kv_scale(is_value: bool, block: u32, d: f32) {
  let shift = 16u * (block % 2u);
  let keep = 0xffff0000u >> shift;
  let half = (pack2x16float(vec2<f32>(d, 0.0)) & 0xffffu) << shift;
#if VALUES_BLOCKS
  if (is_value) {
    let at = params.value_scales + block / 2u;
    atomicAnd(&values[at], keep);
    atomicOr(&values[at], half);
  }
#end
#if KEYS_BLOCKS
  if (!is_value) {
    let at = params.key_scales + block / 2u;
    atomicAnd(&keys[at], keep);
    atomicOr(&keys[at], half);
  }
#end
}

// The value of block `b` of the head that is furthest from 0.
fn kv_greatest(b: u32) -> f32 {
  var greatest = 0.0;
  for (var i = 0u; i < 32u; i++) {
    let v = head[32u * b + i];
    if (abs(v) > abs(greatest)) {
      greatest = v;
    }
  }
  return greatest;
}

#if KV_Q8_0
fn kv_write_q8_0(thread: u32, is_value: bool, to: u32) {
  let dim = select(DIM_K, DIM_V, is_value);
  for (var b = thread; b < dim / 32u; b += WG) {
    let greatest = abs(kv_greatest(b));
    let inverse = 127.0 / select(greatest, 1.0, greatest == 0.0);
    for (var w = 0u; w < 8u; w++) {
      var word = 0u;
      for (var j = 0u; j < 4u; j++) {
        let q = i32(round(clamp(head[32u * b + 4u * w + j] * inverse, -127.0, 127.0)));
        word |= (bitcast<u32>(q) & 255u) << (8u * j);
      }
      kv_word(is_value, to / 4u + 8u * b + w, word);
    }
    kv_scale(is_value, to / 32u + b, greatest / 127.0);
  }
}
#end

#if KV_Q4_0
fn kv_write_q4_0(thread: u32, is_value: bool, to: u32) {
  let dim = select(DIM_K, DIM_V, is_value);
  for (var b = thread; b < dim / 32u; b += WG) {
    let greatest = kv_greatest(b);
    let inverse = -8.0 / select(greatest, 1.0, greatest == 0.0);
    for (var w = 0u; w < 4u; w++) {
      var word = 0u;
      for (var j = 0u; j < 8u; j++) {
        let q = u32(clamp(head[32u * b + 8u * w + j] * inverse + 8.5, 0.0, 15.0));
        word |= q << (4u * j);
      }
      kv_word(is_value, to / 8u + 4u * b + w, word);
    }
    kv_scale(is_value, to / 32u + b, greatest / -8.0);
  }
}
#end
