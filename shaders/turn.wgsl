// Rotary angles in fixed point: see src/ops/rope.rs.

// cos and sin of an angle in units of 2^-32 turns, to an ulp or two.
// Source: minimax polynomials on -pi/4 .. pi/4 of Cephes, sinf.c (Moshier).
fn cos_sin(angle: u32) -> vec2<f32> {
  let quarter = (angle + 0x20000000u) >> 30u;
  let a = f32(bitcast<i32>(angle - (quarter << 30u))) * 1.4629180792671596e-9; // 2 pi / 2^32
  let z = a * a;
  let s = a + a * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4));
  let c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5));
  // A quarter turn more takes (c, s) to (-s, c).
  let swapped = select(vec2<f32>(c, s), vec2<f32>(-s, c), (quarter & 1u) == 1u);
  return select(swapped, -swapped, quarter >= 2u);
}

// The channels of pair `j` of `pairs`, within a head. Flag: ADJACENT.
fn pair_channels(j: u32, pairs: u32) -> vec2<u32> {
#if ADJACENT
  return vec2<u32>(2u * j, 2u * j + 1u);
#else
  return vec2<u32>(j, j + pairs);
#end
}

// A pair turned by `angle`, and scaled.
fn turned(v: vec2<f32>, angle: u32, scale: f32) -> vec2<f32> {
  let t = cos_sin(angle) * scale;
  return vec2<f32>(v.x * t.x - v.y * t.y, v.x * t.y + v.y * t.x);
}
