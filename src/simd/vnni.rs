//! The dot products of 256 bits that some machines add to AVX2.
//!
//! SAFETY of every `unsafe` block here: the intrinsics need their instruction set, which `avx2::Avx2::detect` has found before there is a
//! token with that `DOT`. None of them touches memory.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

/// There is no dot product of bytes.
pub(super) const NONE: u8 = 0;
/// There is AVX-VNNI's.
pub(super) const VEX: u8 = 1;
/// There is AVX-512's, of 256 bits: the same in another encoding. Tests take it where a machine has no AVX-VNNI.
#[cfg(test)]
pub(super) const EVEX: u8 = 2;

/// `sum` and the sums of four products of unsigned and signed bytes, by the instruction that `DOT` says.
#[inline(always)]
pub(super) fn dpbusd<const DOT: u8>(sum: __m256i, q: __m256i, a: __m256i) -> __m256i {
    #[cfg(test)]
    if DOT == EVEX {
        return unsafe { _mm256_dpbusd_epi32(sum, q, a) };
    }
    unsafe { _mm256_dpbusd_avx_epi32(sum, q, a) }
}

/// The same of two products of 16-bit numbers.
#[inline(always)]
pub(super) fn dpwssd<const DOT: u8>(sum: __m256i, w: __m256i, a: __m256i) -> __m256i {
    #[cfg(test)]
    if DOT == EVEX {
        return unsafe { _mm256_dpwssd_epi32(sum, w, a) };
    }
    unsafe { _mm256_dpwssd_avx_epi32(sum, w, a) }
}
