//! NEON: every vector is four registers. It is part of every aarch64; byte dot products (`dotprod`) came with Armv8.2, products of small
//! matrices of bytes (`i8mm`) with Armv8.6. Cores without either multiply bytes to 16 bits and add up in pairs.
//!
//! SAFETY of every `unsafe` block here: `dotprod` and `i8mm` need the token `Neon<DOTPROD>` or `Neon<I8MM>`, which is the proof of them;
//! intrinsics that read or write memory are given arrays of at least the size they take, and need no alignment.
#![allow(unsafe_code)]

use super::level::SimdKernel;
use super::neon_dot::{DOTPROD, I8MM, PLAIN, dot_pairs, sdot, smmla, unzip, zip};
use super::vector::Simd;
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

/// Proof that the machine has the instructions of `WITH`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Neon<const WITH: u8>(());

impl<const WITH: u8> Neon<WITH> {
    /// A token, if the machine has the features.
    pub fn detect() -> Option<Self> {
        let found = (WITH < DOTPROD || is_aarch64_feature_detected!("dotprod"))
            && (WITH < I8MM || is_aarch64_feature_detected!("i8mm"));
        found.then_some(Neon(()))
    }
}

/// Applies an intrinsic to all quarters.
macro_rules! each {
    ($f:ident $(::<$n:literal>)? ($($v:expr),*)) => {
        [$f$(::<$n>)?($($v[0]),*), $f$(::<$n>)?($($v[1]),*), $f$(::<$n>)?($($v[2]),*), $f$(::<$n>)?($($v[3]),*)]
    };
}

#[inline(always)]
fn widen_u16(v: [uint16x8_t; 2]) -> [uint32x4_t; 4] {
    unsafe {
        [vmovl_u16(vget_low_u16(v[0])), vmovl_high_u16(v[0]), vmovl_u16(vget_low_u16(v[1])), vmovl_high_u16(v[1])]
    }
}

#[inline(always)]
fn halves(v: &[u8; 32]) -> [uint16x8_t; 2] {
    unsafe { [vreinterpretq_u16_u8(vld1q_u8(v.as_ptr())), vreinterpretq_u16_u8(vld1q_u8(v.as_ptr().add(16)))] }
}

#[inline(always)]
fn transpose4(v: [float32x4_t; 4]) -> [float32x4_t; 4] {
    unsafe {
        let (a, b) = (vtrn1q_f32(v[0], v[1]), vtrn1q_f32(v[2], v[3]));
        let (c, d) = (vtrn2q_f32(v[0], v[1]), vtrn2q_f32(v[2], v[3]));
        let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
        let (c, d) = (vreinterpretq_f64_f32(c), vreinterpretq_f64_f32(d));
        let out = [vtrn1q_f64(a, b), vtrn1q_f64(c, d), vtrn2q_f64(a, b), vtrn2q_f64(c, d)];
        each!(vreinterpretq_f32_f64(out))
    }
}

impl<const WITH: u8> Simd for Neon<WITH> {
    const REGISTERS: usize = 8;
    type Ints = [int32x4_t; 4];
    type Floats = [float32x4_t; 4];
    type Words = [uint8x16_t; 4];

    #[inline(always)]
    fn enter<K: SimdKernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "neon,dotprod")]
        fn with_dotprod<S: Simd, K: SimdKernel>(s: S, kernel: K) -> K::Out {
            kernel.run(s)
        }
        #[target_feature(enable = "neon,dotprod,i8mm")]
        fn with_i8mm<S: Simd, K: SimdKernel>(s: S, kernel: K) -> K::Out {
            kernel.run(s)
        }
        #[inline(never)]
        fn plain<S: Simd, K: SimdKernel>(s: S, kernel: K) -> K::Out {
            kernel.run(s)
        }
        // SAFETY: the token proves the features.
        match WITH {
            PLAIN => plain(self, kernel),
            DOTPROD => unsafe { with_dotprod(self, kernel) },
            _ => unsafe { with_i8mm(self, kernel) },
        }
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        // SAFETY: it changes nothing, and any address will do.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) at, options(readonly, nostack, preserves_flags)) }
    }

    #[inline(always)]
    fn words(self, v: &[u8; 64]) -> [uint8x16_t; 4] {
        let v = v.as_ptr();
        unsafe { [vld1q_u8(v), vld1q_u8(v.add(16)), vld1q_u8(v.add(32)), vld1q_u8(v.add(48))] }
    }
    #[inline(always)]
    fn store_words(self, v: [uint8x16_t; 4], out: &mut [u8; 64]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<16>().0) {
            unsafe { vst1q_u8(out.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn splat_words(self, v: u8) -> [uint8x16_t; 4] {
        unsafe { [vdupq_n_u8(v); 4] }
    }
    #[inline(always)]
    fn and_words(self, a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        unsafe { each!(vandq_u8(a, b)) }
    }
    #[inline(always)]
    fn or_words(self, a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        unsafe { each!(vorrq_u8(a, b)) }
    }
    #[inline(always)]
    fn shr_words(self, v: [uint8x16_t; 4], n: u32) -> [uint8x16_t; 4] {
        unsafe {
            // To the left by less than nothing; a shift to the right takes constants only.
            let (v, n) = (each!(vreinterpretq_u32_u8(v)), [vdupq_n_s32(-(n as i32)); 4]);
            let v = each!(vshlq_u32(v, n));
            each!(vreinterpretq_u8_u32(v))
        }
    }
    #[inline(always)]
    fn shl_words(self, v: [uint8x16_t; 4], n: u32) -> [uint8x16_t; 4] {
        unsafe {
            let (v, n) = (each!(vreinterpretq_u32_u8(v)), [vdupq_n_s32(n as i32); 4]);
            let v = each!(vshlq_u32(v, n));
            each!(vreinterpretq_u8_u32(v))
        }
    }
    #[inline(always)]
    fn lookup_words(self, table: &[i8; 16], v: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        unsafe {
            let table = [vreinterpretq_u8_s8(vld1q_s8(table.as_ptr())); 4];
            each!(vqtbl1q_u8(table, v))
        }
    }
    #[inline(always)]
    fn dot_words(self, sum: [int32x4_t; 4], q: [uint8x16_t; 4], acts: [i8; 4], _signed: bool) -> [int32x4_t; 4] {
        // Unsigned weights are at most 127, so that signed products do for both.
        unsafe {
            let (q, a) = (each!(vreinterpretq_s8_u8(q)), [bytemuck::cast(acts); 4]);
            if WITH == PLAIN { each!(dot_pairs(sum, q, a)) } else { each!(sdot(sum, q, a)) }
        }
    }
    const MATRICES: bool = WITH == I8MM;
    #[inline(always)]
    fn zip_words(self, a: [uint8x16_t; 4], b: [uint8x16_t; 4]) -> [[uint8x16_t; 4]; 2] {
        if WITH != I8MM {
            return [a, b];
        }
        let [[p, q], [r, t], [u, v], [w, x]] = each!(zip(a, b));
        [[p, q, r, t], [u, v, w, x]]
    }
    #[inline(always)]
    fn unzip_words(self, zipped: [[uint8x16_t; 4]; 2]) -> [[uint8x16_t; 4]; 2] {
        if WITH != I8MM {
            return zipped;
        }
        let [[p, q, r, t], [u, v, w, x]] = zipped;
        let [[a0, b0], [a1, b1], [a2, b2], [a3, b3]] = [unzip(p, q), unzip(r, t), unzip(u, v), unzip(w, x)];
        [[a0, a1, a2, a3], [b0, b1, b2, b3]]
    }
    #[inline(always)]
    fn dot_matrices(
        self,
        sums: [[int32x4_t; 4]; 2],
        zipped: [[uint8x16_t; 4]; 2],
        acts: [[i8; 8]; 2],
        _signed: bool,
    ) -> [[int32x4_t; 4]; 2] {
        assert!(WITH == I8MM, "needs i8mm");
        let mut sums = sums;
        // As with `sdot`, unsigned weights are at most 127.
        unsafe {
            let columns = vld1q_s8(acts.as_flattened().as_ptr());
            for h in 0..2 {
                for i in 0..4 {
                    sums[h][i] = smmla(sums[h][i], vreinterpretq_s8_u8(zipped[h][i]), columns);
                }
            }
        }
        sums
    }
    #[inline(always)]
    fn columns(self, sums: [[int32x4_t; 4]; 2]) -> [[int32x4_t; 4]; 2] {
        if WITH != I8MM {
            return sums;
        }
        // Each register has the sums of two rows, each with both columns.
        let mut out = sums;
        for i in 0..4 {
            let (a, b) = (sums[i / 2][2 * (i % 2)], sums[i / 2][2 * (i % 2) + 1]);
            unsafe { (out[0][i], out[1][i]) = (vuzp1q_s32(a, b), vuzp2q_s32(a, b)) }
        }
        out
    }
    #[inline(always)]
    fn byte_floats(self, v: [uint8x16_t; 4], n: u32) -> [float32x4_t; 4] {
        unsafe {
            let (words, up) = (each!(vreinterpretq_s32_u8(v)), [vdupq_n_s32(24 - 8 * n as i32); 4]);
            let top = each!(vshlq_s32(words, up));
            self.to_floats(each!(vshrq_n_s32::<24>(top)))
        }
    }
    #[inline(always)]
    fn signed_zero(self) -> i32 {
        0
    }
    #[inline(always)]
    fn add_ints(self, a: [int32x4_t; 4], b: [int32x4_t; 4]) -> [int32x4_t; 4] {
        unsafe { each!(vaddq_s32(a, b)) }
    }
    #[inline(always)]
    fn sub_int(self, v: [int32x4_t; 4], n: i32) -> [int32x4_t; 4] {
        unsafe {
            let n = [vdupq_n_s32(n); 4];
            each!(vsubq_s32(v, n))
        }
    }
    #[inline(always)]
    fn exponents(self, v: &[u8; 16]) -> [float32x4_t; 4] {
        unsafe {
            // 2^(e − 127), halved; of e = 0 the bits of 2^−127.
            let v = vld1q_u8(v.as_ptr());
            let e = widen_u16([vmovl_u8(vget_low_u8(v)), vmovl_high_u8(v)]);
            let (e, least) = (each!(vshlq_n_u32::<23>(e)), [vdupq_n_u32(0x40_0000); 4]);
            let double = each!(vmaxq_u32(e, least));
            let double = each!(vreinterpretq_f32_u32(double));
            self.mul(double, self.splat(0.5))
        }
    }
    #[inline(always)]
    fn weights_signed(self, v: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        v
    }
    #[inline(always)]
    fn zero(self) -> [int32x4_t; 4] {
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    fn splat_int(self, n: i32) -> [int32x4_t; 4] {
        unsafe { [vdupq_n_s32(n); 4] }
    }
    #[inline(always)]
    fn pairs(self, even: [float32x4_t; 4], odd: [float32x4_t; 4]) -> [uint8x16_t; 4] {
        unsafe {
            let (even, odd, mask) = (each!(vcvtnq_s32_f32(even)), each!(vcvtnq_s32_f32(odd)), [vdupq_n_s32(0xffff); 4]);
            let (low, high) = (each!(vandq_s32(even, mask)), each!(vshlq_n_s32::<16>(odd)));
            let words = each!(vorrq_s32(low, high));
            each!(vreinterpretq_u8_s32(words))
        }
    }
    #[inline(always)]
    fn dot_pairs(self, sum: [int32x4_t; 4], weights: [uint8x16_t; 4], acts: [i16; 2]) -> [int32x4_t; 4] {
        unsafe {
            let a = [vreinterpretq_s16_s32(vdupq_n_s32(bytemuck::cast(acts))); 4];
            let w = each!(vreinterpretq_s16_u8(weights));
            let (low_w, low_a) = (each!(vget_low_s16(w)), each!(vget_low_s16(a)));
            let (low, high) = (each!(vmull_s16(low_w, low_a)), each!(vmull_high_s16(w, a)));
            let products = each!(vpaddq_s32(low, high));
            each!(vaddq_s32(sum, products))
        }
    }
    #[inline(always)]
    fn times_256(self, v: [int32x4_t; 4]) -> [int32x4_t; 4] {
        unsafe { each!(vshlq_n_s32::<8>(v)) }
    }
    #[inline(always)]
    fn to_floats(self, v: [int32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe { each!(vcvtq_f32_s32(v)) }
    }

    #[inline(always)]
    fn floats(self, v: &[f32; 16]) -> [float32x4_t; 4] {
        let v = v.as_ptr();
        unsafe { [vld1q_f32(v), vld1q_f32(v.add(4)), vld1q_f32(v.add(8)), vld1q_f32(v.add(12))] }
    }
    #[inline(always)]
    fn transpose(self, v: [[float32x4_t; 4]; 16]) -> [[float32x4_t; 4]; 16] {
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
    fn fold(self, v: [[float32x4_t; 4]; 4]) -> [float32x4_t; 4] {
        let mut out = v[0];
        for g in 0..4 {
            out[g] = unsafe { vpaddq_f32(vpaddq_f32(v[0][g], v[1][g]), vpaddq_f32(v[2][g], v[3][g])) };
        }
        out
    }
    #[inline(always)]
    fn fold_across(self, v: [[float32x4_t; 4]; 4]) -> [float32x4_t; 4] {
        let mut out = v[0];
        for i in 0..4 {
            out[i] = unsafe { vaddq_f32(vaddq_f32(v[i][0], v[i][1]), vaddq_f32(v[i][2], v[i][3])) };
        }
        out
    }
    #[inline(always)]
    fn store(self, v: [float32x4_t; 4], out: &mut [f32; 16]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            unsafe { vst1q_f32(out.as_mut_ptr(), v) }
        }
    }
    #[inline(always)]
    fn splat(self, v: f32) -> [float32x4_t; 4] {
        unsafe { [vdupq_n_f32(v); 4] }
    }
    #[inline(always)]
    fn widen_f16(self, v: &[u8; 32]) -> [float32x4_t; 4] {
        unsafe {
            let v = halves(v);
            let v = [vget_low_u16(v[0]), vget_high_u16(v[0]), vget_low_u16(v[1]), vget_high_u16(v[1])];
            let v = each!(vreinterpret_f16_u16(v));
            each!(vcvt_f32_f16(v))
        }
    }
    #[inline(always)]
    fn widen_i8(self, v: &[i8; 16]) -> [float32x4_t; 4] {
        unsafe {
            let v = vld1q_s8(v.as_ptr());
            let (a, b) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
            let v = [vmovl_s16(vget_low_s16(a)), vmovl_high_s16(a), vmovl_s16(vget_low_s16(b)), vmovl_high_s16(b)];
            each!(vcvtq_f32_s32(v))
        }
    }
    #[inline(always)]
    fn widen_bf16(self, v: &[u8; 32]) -> [float32x4_t; 4] {
        unsafe {
            let v = widen_u16(halves(v));
            let v = each!(vshlq_n_u32::<16>(v));
            each!(vreinterpretq_f32_u32(v))
        }
    }
    #[inline(always)]
    fn narrow_f16(self, v: [float32x4_t; 4], out: &mut [u8; 32]) {
        unsafe {
            let v = each!(vcvt_f16_f32(v));
            let v = each!(vreinterpret_u8_f16(v));
            vst1q_u8(out.as_mut_ptr(), vcombine_u8(v[0], v[1]));
            vst1q_u8(out.as_mut_ptr().add(16), vcombine_u8(v[2], v[3]));
        }
    }
    #[inline(always)]
    fn add(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe { each!(vaddq_f32(a, b)) }
    }
    #[inline(always)]
    fn sub(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe { each!(vsubq_f32(a, b)) }
    }
    #[inline(always)]
    fn mul(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe { each!(vmulq_f32(a, b)) }
    }
    #[inline(always)]
    fn div(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe { each!(vdivq_f32(a, b)) }
    }
    #[inline(always)]
    fn mul_add(self, a: [float32x4_t; 4], b: [float32x4_t; 4], c: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe { each!(vfmaq_f32(c, a, b)) }
    }
    #[inline(always)]
    fn max(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe {
            // The instruction for it would give NaN if either is.
            let larger = each!(vcgtq_f32(a, b));
            each!(vbslq_f32(larger, a, b))
        }
    }
    #[inline(always)]
    fn min(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe {
            let smaller = each!(vcltq_f32(a, b));
            each!(vbslq_f32(smaller, a, b))
        }
    }
    #[inline(always)]
    fn exp2_int(self, n: [float32x4_t; 4]) -> [float32x4_t; 4] {
        unsafe {
            let (n, bias) = (each!(vcvtq_s32_f32(n)), [vdupq_n_s32(127); 4]);
            let n = each!(vaddq_s32(n, bias));
            let n = each!(vshlq_n_s32::<23>(n));
            each!(vreinterpretq_f32_s32(n))
        }
    }
    #[inline(always)]
    fn amax(self, a: [float32x4_t; 4], b: [float32x4_t; 4]) -> f32 {
        unsafe {
            // As integers, where NaN lies above infinity.
            let (a, b) = (each!(vabsq_f32(a)), each!(vabsq_f32(b)));
            let (a, b) = (each!(vreinterpretq_u32_f32(a)), each!(vreinterpretq_u32_f32(b)));
            let m = each!(vmaxq_u32(a, b));
            f32::from_bits(vmaxvq_u32(vmaxq_u32(vmaxq_u32(m[0], m[1]), vmaxq_u32(m[2], m[3]))))
        }
    }
    #[inline(always)]
    fn max_lane(self, v: [float32x4_t; 4]) -> f32 {
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(v[0], v[1]), vmaxnmq_f32(v[2], v[3]))) }
    }
    #[inline(always)]
    fn store_i8(self, v: [float32x4_t; 4], out: &mut [i8; 16]) {
        unsafe {
            let v = each!(vcvtnq_s32_f32(v));
            let v = each!(vqmovn_s32(v));
            let bytes = vcombine_s8(vqmovn_s16(vcombine_s16(v[0], v[1])), vqmovn_s16(vcombine_s16(v[2], v[3])));
            vst1q_s8(out.as_mut_ptr(), bytes);
        }
    }
    #[inline(always)]
    fn sum(self, v: [float32x4_t; 4]) -> f32 {
        unsafe {
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            vpadds_f32(vadd_f32(vget_low_f32(v), vget_high_f32(v)))
        }
    }
}
