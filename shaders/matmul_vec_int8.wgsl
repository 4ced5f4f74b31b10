// What matmul_vec.wgsl adds up where inputs are bytes: a thread multiplies 32 weights at a time.

#import int8

// Adds the products of rows `row` .. of the matrix at row `base` of w with the inputs from `start` on, times `factor`.
fn accumulate(thread: u32, base: u32, row: u32, start: u32, factor: f32, sums: ptr<function, array<f32, SUMS>>) {
  var rows: array<u32, ROWS>;
  for (var r = 0u; r < ROWS; r++) {
    // Rows past the end repeat the last one and are not stored.
    rows[r] = (base + min(row + r, params.rows - 1u)) * (params.row_w8 / 4u);
  }
  let blocks = params.k / 32u;
  for (var b = thread; b < blocks; b += WG) {
    var raw: array<QuantRaw32, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      raw[r] = quant_load32(rows[r] + b);
    }
    var codes: array<array<vec4<u32>, 2>, ROWS>;
    var scales: array<vec4<f32>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      codes[r] = quant_codes32(raw[r]);
      scales[r] = quant_scales32(raw[r], rows[r] + b);
    }
    for (var t = 0u; t < COLS; t++) {
      let at = start + t * params.x_stride + 3u * b;
      let v = array<vec4<u32>, 2>(x[at], x[at + 1u]);
      var terms = bitcast<vec4<f32>>(x[at + 2u]);
#if COMBINE
      terms *= factor;
#end
      var products: array<vec2<f32>, ROWS>;
      for (var r = 0u; r < ROWS; r++) {
        products[r] = terms.x * int8_products(codes[r], v);
      }
      if (terms.w != 0.0) {
        let place = params.x_low + at / 3u * 2u;
        let rest = array<vec4<u32>, 2>(x[place], x[place + 1u]);
        for (var r = 0u; r < ROWS; r++) {
          products[r] += terms.w * int8_products(codes[r], rest);
        }
      }
      for (var r = 0u; r < ROWS; r++) {
        (*sums)[r * COLS + t] += int8_dot(products[r], scales[r], terms);
      }
    }
  }
}
