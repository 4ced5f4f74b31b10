//! What ARM cores have to multiply bytes with.
//!
//! SAFETY of every `unsafe` block here: none of the instructions touches memory. Those that not every core has stand in functions with the
//! `target_feature`, which callers answer for: `neon` calls them with a token that proves it.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;

/// There is no dot product of bytes.
pub(super) const PLAIN: u8 = 0;
/// There is one.
pub(super) const DOTPROD: u8 = 1;
/// There are products of small matrices of bytes, too.
pub(super) const I8MM: u8 = 2;

/// Sums of four products, with the first four bytes of `a`. The intrinsic is not stable yet (stdarch_neon_dotprod).
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut sum: int32x4_t, q: int8x16_t, a: i32) -> int32x4_t {
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[0]", inout(vreg) sum, in(vreg) q, in(vreg) a,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The products of two rows of eight bytes with two columns of as many: row by row. The intrinsic is not stable yet (stdarch_neon_i8mm).
#[inline]
#[target_feature(enable = "neon,i8mm")]
pub(super) fn smmla(mut sum: int32x4_t, rows: int8x16_t, columns: int8x16_t) -> int32x4_t {
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sum, in(vreg) rows, in(vreg) columns,
            options(pure, nomem, nostack, preserves_flags));
    }
    sum
}

/// The first two words of `a` and `b` in turn, and the last two: each register has eight bytes of two rows.
#[inline(always)]
pub(super) fn zip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
    unsafe {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))]
    }
}

/// What [`zip`] was given.
#[inline(always)]
pub(super) fn unzip(a: uint8x16_t, b: uint8x16_t) -> [uint8x16_t; 2] {
    unsafe {
        let (a, b) = (vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b));
        [vreinterpretq_u8_u32(vuzp1q_u32(a, b)), vreinterpretq_u8_u32(vuzp2q_u32(a, b))]
    }
}

/// Sums of four products without `dotprod`. The largest sum of two is 2 · 128 · 127, which 16 bits hold.
#[inline(always)]
pub(super) fn dot_pairs(sum: int32x4_t, q: int8x16_t, a: i32) -> int32x4_t {
    unsafe {
        let a = vreinterpretq_s8_s32(vdupq_n_s32(a));
        let (low, high) = (vmull_s8(vget_low_s8(q), vget_low_s8(a)), vmull_high_s8(q, a));
        vpadalq_s16(sum, vpaddq_s16(low, high))
    }
}
