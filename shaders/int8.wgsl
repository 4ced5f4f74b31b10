// Products of 32 weights (the form for bytes of quant/) with 32 values in bytes (quantize.wgsl).

fn int8_four(a: vec4<u32>, b: vec4<u32>) -> i32 {
  return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) + dot4I8Packed(a.w, b.w);
}

// The sums of products of the codes' halves; of both in x, where the weights' scales do not differ.
fn int8_products(codes: array<vec4<u32>, 2>, v: array<vec4<u32>, 2>) -> vec2<f32> {
  let a = int8_four(codes[0], v[0]);
  let b = int8_four(codes[1], v[1]);
  if (QUANT_SPLIT) {
    return vec2<f32>(f32(a), f32(b));
  }
  return vec2<f32>(f32(a + b), 0.0);
}

// What they come to, being products of codes with values: `terms` are the values' scale, and their sums by halves.
fn int8_dot(products: vec2<f32>, scales: vec4<f32>, terms: vec4<f32>) -> f32 {
  let zero = f32(QUANT_ZERO);
  if (QUANT_SPLIT) {
    var p = products;
    if (QUANT_ZERO != 0u) {
      p -= zero * terms.yz;
    }
    var sum = scales.x * p.x + scales.y * p.y;
    if (QUANT_MIN) {
      sum += scales.z * terms.y + scales.w * terms.z;
    }
    return sum;
  }
  var p = products.x;
  if (QUANT_ZERO != 0u) {
    p -= zero * (terms.y + terms.z);
  }
  if (QUANT_MIN) {
    return scales.x * p + scales.z * (terms.y + terms.z);
  }
  return scales.x * p;
}
