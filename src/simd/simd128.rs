//! WebAssembly's 128-bit vectors: every vector is four of them. They are there or not when a module is compiled, not when it runs:
//! browsers without them (none with WebGPU) refuse the module.
//!
//! SAFETY of every `unsafe` block here: what reads or writes memory is given arrays of at least the 16 bytes it takes, and needs no
//! alignment.
#![allow(unsafe_code)]

use super::level::SimdKernel;
use super::portable::Portable;
use super::vector::Simd;
use std::arch::wasm32::*;

/// 128-bit vectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Simd128;

type Four = [v128; 4];

/// Applies an intrinsic to all quarters.
macro_rules! each {
    ($f:ident ($($v:expr),*)) => {
        [$f($($v[0]),*), $f($($v[1]),*), $f($($v[2]),*), $f($($v[3]),*)]
    };
}

#[inline(always)]
fn load(v: &[u8; 16]) -> v128 {
    unsafe { v128_load(v.as_ptr().cast()) }
}

#[inline(always)]
fn load_all(v: &[u8; 64]) -> Four {
    let parts = v.as_chunks::<16>().0;
    [load(&parts[0]), load(&parts[1]), load(&parts[2]), load(&parts[3])]
}

#[inline(always)]
fn store_all(v: Four, out: &mut [u8; 64]) {
    for (v, out) in v.into_iter().zip(out.as_chunks_mut::<16>().0) {
        unsafe { v128_store(out.as_mut_ptr().cast(), v) }
    }
}

/// Each word shifted to the left.
#[inline(always)]
fn shl(v: v128, n: u32) -> v128 {
    i32x4_shl(v, n)
}

/// Sixteen unsigned halves as words.
#[inline(always)]
fn widen_u16(v: &[u8; 32]) -> Four {
    let parts = v.as_chunks::<16>().0;
    let (a, b) = (load(&parts[0]), load(&parts[1]));
    [u32x4_extend_low_u16x8(a), u32x4_extend_high_u16x8(a), u32x4_extend_low_u16x8(b), u32x4_extend_high_u16x8(b)]
}

/// Sums of four products: products in pairs, and neighbouring pairs together. The largest of them fits by far.
#[inline(always)]
fn dot_bytes(sum: v128, q: v128, a: v128) -> v128 {
    let low = i32x4_dot_i16x8(i16x8_extend_low_i8x16(q), a);
    let high = i32x4_dot_i16x8(i16x8_extend_high_i8x16(q), a);
    let (even, odd) = (i32x4_shuffle::<0, 2, 4, 6>(low, high), i32x4_shuffle::<1, 3, 5, 7>(low, high));
    i32x4_add(sum, i32x4_add(even, odd))
}

#[inline(always)]
fn transpose4(v: [v128; 4]) -> [v128; 4] {
    let (a, b) = (i32x4_shuffle::<0, 4, 1, 5>(v[0], v[1]), i32x4_shuffle::<2, 6, 3, 7>(v[0], v[1]));
    let (c, d) = (i32x4_shuffle::<0, 4, 1, 5>(v[2], v[3]), i32x4_shuffle::<2, 6, 3, 7>(v[2], v[3]));
    [i64x2_shuffle::<0, 2>(a, c), i64x2_shuffle::<1, 3>(a, c), i64x2_shuffle::<0, 2>(b, d), i64x2_shuffle::<1, 3>(b, d)]
}

/// Rounds to nearest even.
#[inline(always)]
fn whole(v: v128) -> v128 {
    i32x4_trunc_sat_f32x4(f32x4_nearest(v))
}

impl Simd for Simd128 {
    const REGISTERS: usize = 4;
    type Ints = Four;
    type Floats = Four;
    type Words = Four;

    #[inline(always)]
    fn enter<K: SimdKernel>(self, kernel: K) -> K::Out {
        // Inlined into what calls it, it took V8's code a fifth longer for a token.
        #[inline(never)]
        fn inner<K: SimdKernel>(s: Simd128, kernel: K) -> K::Out {
            kernel.run(s)
        }
        inner(self, kernel)
    }
    #[inline(always)]
    fn prefetch(self, _at: *const u8) {}

    #[inline(always)]
    fn words(self, v: &[u8; 64]) -> Four {
        load_all(v)
    }
    #[inline(always)]
    fn store_words(self, v: Four, out: &mut [u8; 64]) {
        store_all(v, out);
    }
    #[inline(always)]
    fn splat_words(self, v: u8) -> Four {
        [u8x16_splat(v); 4]
    }
    #[inline(always)]
    fn and_words(self, a: Four, b: Four) -> Four {
        each!(v128_and(a, b))
    }
    #[inline(always)]
    fn or_words(self, a: Four, b: Four) -> Four {
        each!(v128_or(a, b))
    }
    #[inline(always)]
    fn shr_words(self, v: Four, n: u32) -> Four {
        v.map(|v| u32x4_shr(v, n))
    }
    #[inline(always)]
    fn shl_words(self, v: Four, n: u32) -> Four {
        v.map(|v| shl(v, n))
    }
    #[inline(always)]
    fn lookup_words(self, table: &[i8; 16], v: Four) -> Four {
        let table = load(bytemuck::cast_ref(table));
        v.map(|v| i8x16_swizzle(table, v))
    }
    #[inline(always)]
    fn weights_signed(self, v: Four) -> Four {
        v
    }
    #[inline(always)]
    fn zero(self) -> Four {
        [i32x4_splat(0); 4]
    }
    #[inline(always)]
    fn splat_int(self, n: i32) -> Four {
        [i32x4_splat(n); 4]
    }
    #[inline(always)]
    fn dot_words(self, sum: Four, q: Four, acts: [i8; 4], _signed: bool) -> Four {
        // Unsigned weights are at most 127, so that signed products do for both.
        let a = [i64x2_splat(bytemuck::cast(acts.map(i16::from))); 4];
        each!(dot_bytes(sum, q, a))
    }
    #[inline(always)]
    fn pairs(self, even: Four, odd: Four) -> Four {
        let (even, odd, mask) = (even.map(whole), odd.map(whole), [i32x4_splat(0xffff); 4]);
        let (low, high) = (each!(v128_and(even, mask)), odd.map(|v| shl(v, 16)));
        each!(v128_or(low, high))
    }
    #[inline(always)]
    fn dot_pairs(self, sum: Four, weights: Four, acts: [i16; 2]) -> Four {
        let a = [i32x4_splat(bytemuck::cast(acts)); 4];
        let products = each!(i32x4_dot_i16x8(weights, a));
        each!(i32x4_add(sum, products))
    }
    #[inline(always)]
    fn byte_floats(self, v: Four, n: u32) -> Four {
        v.map(|v| f32x4_convert_i32x4(i32x4_shr(shl(v, 24 - 8 * n), 24)))
    }
    #[inline(always)]
    fn signed_zero(self) -> i32 {
        0
    }
    #[inline(always)]
    fn add_ints(self, a: Four, b: Four) -> Four {
        each!(i32x4_add(a, b))
    }
    #[inline(always)]
    fn sub_int(self, v: Four, n: i32) -> Four {
        let n = [i32x4_splat(n); 4];
        each!(i32x4_sub(v, n))
    }
    #[inline(always)]
    fn times_256(self, v: Four) -> Four {
        v.map(|v| shl(v, 8))
    }
    #[inline(always)]
    fn to_floats(self, v: Four) -> Four {
        each!(f32x4_convert_i32x4(v))
    }

    #[inline(always)]
    fn floats(self, v: &[f32; 16]) -> Four {
        load_all(bytemuck::cast_ref(v))
    }
    #[inline(always)]
    fn transpose(self, v: [Four; 16]) -> [Four; 16] {
        let mut out = v;
        // Sixteen squares of four rows and four words.
        for i in 0..4 {
            for j in 0..4 {
                let square = transpose4([v[4 * i][j], v[4 * i + 1][j], v[4 * i + 2][j], v[4 * i + 3][j]]);
                for r in 0..4 {
                    out[4 * j + r][i] = square[r];
                }
            }
        }
        out
    }
    #[inline(always)]
    fn fold(self, v: [Four; 4]) -> Four {
        let pairs = |a, b| f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b));
        std::array::from_fn(|g| pairs(pairs(v[0][g], v[1][g]), pairs(v[2][g], v[3][g])))
    }
    #[inline(always)]
    fn fold_across(self, v: [Four; 4]) -> Four {
        v.map(|v| f32x4_add(f32x4_add(v[0], v[1]), f32x4_add(v[2], v[3])))
    }
    #[inline(always)]
    fn store(self, v: Four, out: &mut [f32; 16]) {
        store_all(v, bytemuck::cast_mut(out));
    }
    #[inline(always)]
    fn splat(self, v: f32) -> Four {
        [f32x4_splat(v); 4]
    }
    #[inline(always)]
    fn widen_f16(self, v: &[u8; 32]) -> Four {
        widen_u16(v).map(|bits| {
            // As the portable twin does it: a shift, a product for the bias, and infinity and NaN apart.
            let magnitude = shl(v128_and(bits, i32x4_splat(0x7fff)), 13);
            let value = f32x4_mul(magnitude, f32x4_splat(f32::from_bits((127 + 112) << 23)));
            let special = u32x4_ge(magnitude, i32x4_splat(0x7c00 << 13));
            let value = v128_bitselect(v128_or(magnitude, i32x4_splat(0xff << 23)), value, special);
            v128_or(value, shl(v128_and(bits, i32x4_splat(0x8000)), 16))
        })
    }
    #[inline(always)]
    fn widen_i8(self, v: &[i8; 16]) -> Four {
        let v = load(bytemuck::cast_ref(v));
        let (a, b) = (i16x8_extend_low_i8x16(v), i16x8_extend_high_i8x16(v));
        let v = [
            i32x4_extend_low_i16x8(a),
            i32x4_extend_high_i16x8(a),
            i32x4_extend_low_i16x8(b),
            i32x4_extend_high_i16x8(b),
        ];
        each!(f32x4_convert_i32x4(v))
    }
    #[inline(always)]
    fn exponents(self, v: &[u8; 16]) -> Four {
        // 2^(e − 127), halved; of e = 0 the bits of 2^−127.
        let v = load(v);
        let (a, b) = (u16x8_extend_low_u8x16(v), u16x8_extend_high_u8x16(v));
        let e = [
            u32x4_extend_low_u16x8(a),
            u32x4_extend_high_u16x8(a),
            u32x4_extend_low_u16x8(b),
            u32x4_extend_high_u16x8(b),
        ];
        e.map(|e| f32x4_mul(u32x4_max(shl(e, 23), i32x4_splat(0x40_0000)), f32x4_splat(0.5)))
    }
    #[inline(always)]
    fn widen_bf16(self, v: &[u8; 32]) -> Four {
        widen_u16(v).map(|v| shl(v, 16))
    }
    #[inline(always)]
    fn narrow_f16(self, v: Four, out: &mut [u8; 32]) {
        let mut floats = [0.0; 16];
        self.store(v, &mut floats);
        Portable.narrow_f16(floats, out);
    }
    #[inline(always)]
    fn add(self, a: Four, b: Four) -> Four {
        each!(f32x4_add(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Four, b: Four) -> Four {
        each!(f32x4_sub(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Four, b: Four) -> Four {
        each!(f32x4_mul(a, b))
    }
    #[inline(always)]
    fn div(self, a: Four, b: Four) -> Four {
        each!(f32x4_div(a, b))
    }
    #[inline(always)]
    fn mul_add(self, a: Four, b: Four, c: Four) -> Four {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: Four, b: Four) -> Four {
        // "b where b < a is false": `pmax(b, a)` is `b < a ? a : b`.
        each!(f32x4_pmax(b, a))
    }
    #[inline(always)]
    fn min(self, a: Four, b: Four) -> Four {
        each!(f32x4_pmin(b, a))
    }
    #[inline(always)]
    fn exp2_int(self, n: Four) -> Four {
        n.map(|n| shl(i32x4_add(i32x4_trunc_sat_f32x4(n), i32x4_splat(127)), 23))
    }
    #[inline(always)]
    fn amax(self, a: Four, b: Four) -> f32 {
        // As integers, where NaN lies above infinity.
        let (a, b) = (each!(f32x4_abs(a)), each!(f32x4_abs(b)));
        let m = each!(u32x4_max(a, b));
        let m = u32x4_max(u32x4_max(m[0], m[1]), u32x4_max(m[2], m[3]));
        let m = u32x4_max(m, i64x2_shuffle::<1, 0>(m, m));
        f32::from_bits(u32x4_extract_lane::<0>(m).max(u32x4_extract_lane::<1>(m)))
    }
    #[inline(always)]
    fn max_lane(self, v: Four) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn store_i8(self, v: Four, out: &mut [i8; 16]) {
        let v = v.map(whole);
        let bytes = i8x16_narrow_i16x8(i16x8_narrow_i32x4(v[0], v[1]), i16x8_narrow_i32x4(v[2], v[3]));
        unsafe { v128_store(out.as_mut_ptr().cast(), bytes) }
    }
}
