//! AVX2, FMA and F16C: every vector is two registers. With or without a dot product of bytes.
//!
//! SAFETY of every `unsafe` block here: the intrinsics need their instruction set, of which the token is the proof; those
//! that read or write memory are given arrays of at least the register's size, and need no alignment.
#![allow(unsafe_code)]

use super::level::SimdKernel;
use super::vector::Simd;
#[cfg(test)]
use super::vnni::EVEX;
use super::vnni::{NONE, VEX, dpbusd, dpwssd};
use std::arch::x86_64::*;

/// Proof that AVX2, FMA and F16C are there, and the dot product of bytes that `DOT` says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2<const DOT: u8>(());

impl<const DOT: u8> Avx2<DOT> {
    /// A token, if the machine has the features.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && match DOT {
                NONE => true,
                VEX => is_x86_feature_detected!("avxvnni"),
                _ => is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni"),
            };
        found.then_some(Avx2(()))
    }
}

/// Applies an intrinsic to both halves.
macro_rules! both {
    ($f:ident($($v:expr),*)) => {
        [$f($($v[0]),*), $f($($v[1]),*)]
    };
}

impl<const DOT: u8> Avx2<DOT> {
    #[inline(always)]
    fn transpose8(self, v: [__m256; 8]) -> [__m256; 8] {
        unsafe {
            let mut fours = v;
            for g in [0, 4] {
                let (a, b) = (_mm256_unpacklo_ps(v[g], v[g + 1]), _mm256_unpackhi_ps(v[g], v[g + 1]));
                let (c, d) = (_mm256_unpacklo_ps(v[g + 2], v[g + 3]), _mm256_unpackhi_ps(v[g + 2], v[g + 3]));
                fours[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(c)));
                fours[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(c)));
                fours[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(b), _mm256_castps_pd(d)));
                fours[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(b), _mm256_castps_pd(d)));
            }
            let mut out = v;
            for c in 0..4 {
                out[c] = _mm256_permute2f128_ps::<0x20>(fours[c], fours[4 + c]);
                out[4 + c] = _mm256_permute2f128_ps::<0x31>(fours[c], fours[4 + c]);
            }
            out
        }
    }
}

impl<const DOT: u8> Simd for Avx2<DOT> {
    const REGISTERS: usize = 8;
    type Ints = [__m256i; 2];
    type Floats = [__m256; 2];
    type Words = [__m256i; 2];

    #[inline(always)]
    fn enter<K: SimdKernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn plain<S: Simd, K: SimdKernel>(s: S, kernel: K) -> K::Out {
            kernel.run(s)
        }
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn vnni<S: Simd, K: SimdKernel>(s: S, kernel: K) -> K::Out {
            kernel.run(s)
        }
        #[cfg(test)]
        #[target_feature(enable = "avx2,fma,f16c,avx512vl,avx512vnni")]
        fn evex<S: Simd, K: SimdKernel>(s: S, kernel: K) -> K::Out {
            kernel.run(s)
        }
        // A function with features of its own is inlined into others with these whatever it says: registers, which are few, would then
        // have to do for both.
        #[inline(never)]
        fn call<const DOT: u8, K: SimdKernel>(s: Avx2<DOT>, kernel: K) -> K::Out {
            // SAFETY: the token proves the features.
            match DOT {
                NONE => unsafe { plain(s, kernel) },
                #[cfg(test)]
                EVEX => unsafe { evex(s, kernel) },
                _ => unsafe { vnni(s, kernel) },
            }
        }
        call(self, kernel)
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    fn words(self, v: &[u8; 64]) -> [__m256i; 2] {
        let v = v.as_ptr().cast::<__m256i>();
        unsafe { [_mm256_loadu_si256(v), _mm256_loadu_si256(v.add(1))] }
    }
    #[inline(always)]
    fn store_words(self, v: [__m256i; 2], out: &mut [u8; 64]) {
        let out = out.as_mut_ptr().cast::<__m256i>();
        unsafe {
            _mm256_storeu_si256(out, v[0]);
            _mm256_storeu_si256(out.add(1), v[1]);
        }
    }
    #[inline(always)]
    fn splat_words(self, v: u8) -> [__m256i; 2] {
        unsafe { [_mm256_set1_epi8(v as i8); 2] }
    }
    #[inline(always)]
    fn and_words(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { both!(_mm256_and_si256(a, b)) }
    }
    #[inline(always)]
    fn or_words(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { both!(_mm256_or_si256(a, b)) }
    }
    #[inline(always)]
    fn shr_words(self, v: [__m256i; 2], n: u32) -> [__m256i; 2] {
        unsafe {
            let n = [_mm256_set1_epi32(n as i32); 2];
            both!(_mm256_srlv_epi32(v, n))
        }
    }
    #[inline(always)]
    fn shl_words(self, v: [__m256i; 2], n: u32) -> [__m256i; 2] {
        unsafe {
            let n = [_mm256_set1_epi32(n as i32); 2];
            both!(_mm256_sllv_epi32(v, n))
        }
    }
    #[inline(always)]
    fn lookup_words(self, table: &[i8; 16], v: [__m256i; 2]) -> [__m256i; 2] {
        unsafe {
            let table = [_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())); 2];
            both!(_mm256_shuffle_epi8(table, v))
        }
    }
    #[inline(always)]
    fn dot_words(self, sum: [__m256i; 2], q: [__m256i; 2], acts: [i8; 4], signed: bool) -> [__m256i; 2] {
        unsafe {
            let a = [_mm256_set1_epi32(bytemuck::cast(acts)); 2];
            if DOT != NONE {
                return [dpbusd::<DOT>(sum[0], q[0], a[0]), dpbusd::<DOT>(sum[1], q[1], a[1])];
            }
            let p = match signed {
                true => [self.dot_signed(q[0], a[0]), self.dot_signed(q[1], a[1])],
                false => [self.dot_unsigned(q[0], a[0]), self.dot_unsigned(q[1], a[1])],
            };
            both!(_mm256_add_epi32(sum, p))
        }
    }
    const NARROW: bool = DOT == NONE;
    const SIXTEEN: bool = DOT == NONE;
    #[inline(always)]
    fn dot_sixteen<const C: usize>(self, words: &[[u8; 64]; 8], acts: &[[[i16; 4]; 8]; C]) -> [[__m256i; 2]; C] {
        self.sixteen(words, acts)
    }
    #[inline(always)]
    fn dot_narrow(self, sum: [__m256i; 2], q: [__m256i; 2], acts: [i8; 4]) -> [__m256i; 2] {
        if DOT != NONE {
            return self.dot_words(sum, q, acts, false);
        }
        unsafe {
            let a = [_mm256_set1_epi32(bytemuck::cast(acts)); 2];
            let products = both!(_mm256_maddubs_epi16(q, a));
            both!(_mm256_add_epi16(sum, products))
        }
    }
    #[inline(always)]
    fn widen(self, sum: [__m256i; 2], narrow: [__m256i; 2]) -> [__m256i; 2] {
        if DOT != NONE {
            return self.add_ints(sum, narrow);
        }
        unsafe {
            let ones = [_mm256_set1_epi16(1); 2];
            let narrow = both!(_mm256_madd_epi16(narrow, ones));
            both!(_mm256_add_epi32(sum, narrow))
        }
    }
    #[inline(always)]
    fn pairs(self, even: [__m256; 2], odd: [__m256; 2]) -> [__m256i; 2] {
        unsafe {
            let mask = [_mm256_set1_epi32(0xffff); 2];
            let (even, odd) = (both!(_mm256_cvtps_epi32(even)), both!(_mm256_cvtps_epi32(odd)));
            let low = both!(_mm256_and_si256(even, mask));
            let high = [_mm256_slli_epi32::<16>(odd[0]), _mm256_slli_epi32::<16>(odd[1])];
            both!(_mm256_or_si256(low, high))
        }
    }
    #[inline(always)]
    fn dot_pairs(self, sum: [__m256i; 2], weights: [__m256i; 2], acts: [i16; 2]) -> [__m256i; 2] {
        unsafe {
            let acts = [_mm256_set1_epi32(bytemuck::cast(acts)); 2];
            if DOT != NONE {
                return [dpwssd::<DOT>(sum[0], weights[0], acts[0]), dpwssd::<DOT>(sum[1], weights[1], acts[1])];
            }
            let products = both!(_mm256_madd_epi16(weights, acts));
            both!(_mm256_add_epi32(sum, products))
        }
    }
    #[inline(always)]
    fn byte_floats(self, v: [__m256i; 2], n: u32) -> [__m256; 2] {
        unsafe {
            let up = _mm_cvtsi32_si128(24 - 8 * n as i32);
            let top = [_mm256_sll_epi32(v[0], up), _mm256_sll_epi32(v[1], up)];
            self.to_floats(match DOT {
                NONE => [_mm256_srai_epi32::<24>(top[0]), _mm256_srai_epi32::<24>(top[1])],
                _ => [_mm256_srli_epi32::<24>(top[0]), _mm256_srli_epi32::<24>(top[1])],
            })
        }
    }
    #[inline(always)]
    fn signed_zero(self) -> i32 {
        if DOT == NONE { 0 } else { 128 }
    }
    #[inline(always)]
    fn add_ints(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { both!(_mm256_add_epi32(a, b)) }
    }
    #[inline(always)]
    fn sub_int(self, v: [__m256i; 2], n: i32) -> [__m256i; 2] {
        unsafe {
            let n = [_mm256_set1_epi32(n); 2];
            both!(_mm256_sub_epi32(v, n))
        }
    }
    #[inline(always)]
    fn exponents(self, v: &[u8; 16]) -> [__m256; 2] {
        unsafe {
            // 2^(e − 127), halved; of e = 0 the bits of 2^−127.
            let v = _mm_loadu_si128(v.as_ptr().cast());
            let v = [v, _mm_unpackhi_epi64(v, v)];
            let (e, least) = (both!(_mm256_cvtepu8_epi32(v)), [_mm256_set1_epi32(0x40_0000); 2]);
            let e = [_mm256_slli_epi32::<23>(e[0]), _mm256_slli_epi32::<23>(e[1])];
            let double = both!(_mm256_max_epu32(e, least));
            let double = both!(_mm256_castsi256_ps(double));
            self.mul(double, self.splat(0.5))
        }
    }
    #[inline(always)]
    fn weights_signed(self, v: [__m256i; 2]) -> [__m256i; 2] {
        if DOT == NONE {
            return v;
        }
        // The instruction takes weights as unsigned: w + 128.
        unsafe {
            let top = [_mm256_set1_epi8(-128); 2];
            both!(_mm256_xor_si256(v, top))
        }
    }
    #[inline(always)]
    fn zero(self) -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    fn splat_int(self, n: i32) -> [__m256i; 2] {
        unsafe { [_mm256_set1_epi32(n); 2] }
    }
    #[inline(always)]
    fn times_256(self, v: [__m256i; 2]) -> [__m256i; 2] {
        unsafe { [_mm256_slli_epi32::<8>(v[0]), _mm256_slli_epi32::<8>(v[1])] }
    }
    #[inline(always)]
    fn to_floats(self, v: [__m256i; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_cvtepi32_ps(v)) }
    }

    #[inline(always)]
    fn floats(self, v: &[f32; 16]) -> [__m256; 2] {
        unsafe { [_mm256_loadu_ps(v.as_ptr()), _mm256_loadu_ps(v.as_ptr().add(8))] }
    }
    #[inline(always)]
    fn transpose(self, v: [[__m256; 2]; 16]) -> [[__m256; 2]; 16] {
        let mut out = v;
        // Four squares of eight rows and eight words.
        for i in 0..2 {
            for j in 0..2 {
                let mut square = [v[0][0]; 8];
                for r in 0..8 {
                    square[r] = v[8 * i + r][j];
                }
                let square = self.transpose8(square);
                for r in 0..8 {
                    out[8 * j + r][i] = square[r];
                }
            }
        }
        out
    }
    #[inline(always)]
    fn fold(self, v: [[__m256; 2]; 4]) -> [__m256; 2] {
        let mut out = v[0];
        for h in 0..2 {
            let [a, b, c, d] = [v[0][h], v[1][h], v[2][h], v[3][h]];
            out[h] = unsafe { _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d)) };
        }
        out
    }
    #[inline(always)]
    fn fold_across(self, v: [[__m256; 2]; 4]) -> [__m256; 2] {
        let mut out = v[0];
        for i in 0..2 {
            unsafe {
                // In each half the sum of two fours of both vectors: first the lower two, then the upper.
                let ([a, b], [c, d]) = (v[2 * i], v[2 * i + 1]);
                let low = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, c), _mm256_permute2f128_ps::<0x31>(a, c));
                let high = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(b, d), _mm256_permute2f128_ps::<0x31>(b, d));
                out[i] = _mm256_add_ps(low, high);
            }
        }
        out
    }
    #[inline(always)]
    fn store(self, v: [__m256; 2], out: &mut [f32; 16]) {
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v[1]);
        }
    }
    #[inline(always)]
    fn splat(self, v: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(v); 2] }
    }
    #[inline(always)]
    fn widen_f16(self, v: &[u8; 32]) -> [__m256; 2] {
        unsafe {
            let v = v.as_ptr().cast::<__m128i>();
            [_mm256_cvtph_ps(_mm_loadu_si128(v)), _mm256_cvtph_ps(_mm_loadu_si128(v.add(1)))]
        }
    }
    #[inline(always)]
    fn widen_i8(self, v: &[i8; 16]) -> [__m256; 2] {
        unsafe {
            let v = _mm_loadu_si128(v.as_ptr().cast());
            let v = [v, _mm_unpackhi_epi64(v, v)];
            let v = both!(_mm256_cvtepi8_epi32(v));
            both!(_mm256_cvtepi32_ps(v))
        }
    }
    #[inline(always)]
    fn widen_bf16(self, v: &[u8; 32]) -> [__m256; 2] {
        unsafe {
            let v = v.as_ptr().cast::<__m128i>();
            let words = [_mm_loadu_si128(v), _mm_loadu_si128(v.add(1))];
            let words = both!(_mm256_cvtepu16_epi32(words));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words[0])),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words[1])),
            ]
        }
    }
    #[inline(always)]
    fn narrow_f16(self, v: [__m256; 2], out: &mut [u8; 32]) {
        unsafe {
            let out = out.as_mut_ptr().cast::<__m128i>();
            _mm_storeu_si128(out, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(out.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
    }
    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_add_ps(a, b)) }
    }
    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_sub_ps(a, b)) }
    }
    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_mul_ps(a, b)) }
    }
    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_div_ps(a, b)) }
    }
    #[inline(always)]
    fn mul_add(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_fmadd_ps(a, b, c)) }
    }
    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_max_ps(a, b)) }
    }
    #[inline(always)]
    fn min(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { both!(_mm256_min_ps(a, b)) }
    }
    #[inline(always)]
    fn exp2_int(self, n: [__m256; 2]) -> [__m256; 2] {
        unsafe {
            let (n, bias) = (both!(_mm256_cvtps_epi32(n)), [_mm256_set1_epi32(127); 2]);
            let n = both!(_mm256_add_epi32(n, bias));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<23>(n[0])), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n[1]))]
        }
    }
    #[inline(always)]
    fn amax(self, a: [__m256; 2], b: [__m256; 2]) -> f32 {
        unsafe {
            let mask = [_mm256_set1_epi32(0x7fff_ffff); 2];
            let (a, b) = (both!(_mm256_castps_si256(a)), both!(_mm256_castps_si256(b)));
            let (a, b) = (both!(_mm256_and_si256(a, mask)), both!(_mm256_and_si256(b, mask)));
            let m = both!(_mm256_max_epi32(a, b));
            let m = _mm256_max_epi32(m[0], m[1]);
            let m = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256::<1>(m));
            let m = _mm_max_epi32(m, _mm_shuffle_epi32::<0b01_00_11_10>(m));
            let m = _mm_max_epi32(m, _mm_shuffle_epi32::<0b10_11_00_01>(m));
            f32::from_bits(_mm_cvtsi128_si32(m) as u32)
        }
    }
    #[inline(always)]
    fn max_lane(self, v: [__m256; 2]) -> f32 {
        unsafe {
            let m = _mm256_max_ps(v[0], v[1]);
            let m = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps::<1>(m));
            let m = _mm_max_ps(m, _mm_movehl_ps(m, m));
            _mm_cvtss_f32(_mm_max_ps(m, _mm_movehdup_ps(m)))
        }
    }
    #[inline(always)]
    fn store_i8(self, v: [__m256; 2], out: &mut [i8; 16]) {
        unsafe {
            // Packing works within 128-bit lanes, so the quarters come out as 0 2 1 3.
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn sum(self, v: [__m256; 2]) -> f32 {
        unsafe {
            let v = _mm256_add_ps(v[0], v[1]);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
}
