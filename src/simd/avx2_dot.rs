//! Dot products of bytes where AVX2 has no instruction for them, and of 16-bit numbers.
//!
//! SAFETY of every `unsafe` block here: the intrinsics need AVX2, of which the token is the proof; what is read lies within arrays.
#![allow(unsafe_code)]

use super::avx2::Avx2;
use std::arch::x86_64::*;

impl<const DOT: u8> Avx2<DOT> {
    /// Sums of four products of codes up to 127, which keeps sums of two within 16 bits.
    #[inline(always)]
    pub(super) fn dot_unsigned(self, q: __m256i, a: __m256i) -> __m256i {
        unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(q, a), _mm256_set1_epi16(1)) }
    }

    /// Sums of four products of signed codes: |q| · (a with the sign of q). The largest sum of two is 2 · 128 · 127.
    #[inline(always)]
    pub(super) fn dot_signed(self, q: __m256i, a: __m256i) -> __m256i {
        unsafe { self.dot_unsigned(_mm256_abs_epi8(q), _mm256_sign_epi8(a, q)) }
    }

    /// See [`Simd::dot_sixteen`](super::vector::Simd::dot_sixteen). Codes become 16-bit numbers on their way into a register; products of pairs of them are
    /// 32 bits wide at once. For both bytes of activations that is fewer instructions than bytes with bytes, twice.
    #[inline(always)]
    pub(super) fn sixteen<const C: usize>(self, words: &[[u8; 64]; 8], acts: &[[[i16; 4]; 8]; C]) -> [[__m256i; 2]; C] {
        unsafe {
            // Of a quarter's four rows two sums each, one beside the other.
            let mut sums = [[_mm256_setzero_si256(); 4]; C];
            for i in 0..8 {
                let mut a = [_mm256_setzero_si256(); C];
                for c in 0..C {
                    a[c] = _mm256_set1_epi64x(bytemuck::cast(acts[c][i]));
                }
                for (quarter, codes) in words[i].as_chunks::<16>().0.iter().enumerate() {
                    let w = _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.as_ptr().cast()));
                    for c in 0..C {
                        sums[c][quarter] = _mm256_add_epi32(sums[c][quarter], _mm256_madd_epi16(w, a[c]));
                    }
                }
            }
            let mut out = [[_mm256_setzero_si256(); 2]; C];
            for c in 0..C {
                for half in 0..2 {
                    let both = _mm256_hadd_epi32(sums[c][2 * half], sums[c][2 * half + 1]);
                    out[c][half] = _mm256_permute4x64_epi64::<0b11_01_10_00>(both);
                }
            }
            out
        }
    }
}
