//! AVX-512 with VNNI: every vector is one register.
//!
//! SAFETY of every `unsafe` block here: the intrinsics need their instruction set, of which the token is the proof; those
//! that read or write memory are given arrays of at least the register's size, and need no alignment.
#![allow(unsafe_code)]

use super::avx2::Avx2;
use super::level::SimdKernel;
use super::vector::Simd;
use super::vnni::NONE;
use std::arch::x86_64::*;

/// Proof that AVX-512 F, BW, DQ, VL and VNNI are there, and what AVX2 asks for. `NEAR`: two streams are read at a time, and what is
/// fetched ahead goes to the first-level cache, and halfway once more to the second, for what had no place. That suits Intel's: Q4_0 on
/// 2 threads of a Sapphire Rapids makes 46 tokens a second, 39 of one stream, 35 without the first level, out of 48 that memory would
/// allow; on a Zen 4 the first level loses. Asked for at run time it would cost more than it gives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512<const NEAR: bool>(Avx2<NONE>);

impl<const NEAR: bool> Avx512<NEAR> {
    /// A token, if the machine has the features.
    pub fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        Avx2::detect().filter(|_| found).map(Avx512)
    }

    /// The bits of `v`, whose upper half is then the nearest bf16. NaN stays as it is: the sum might carry into the sign.
    #[inline(always)]
    fn plus_half_bf16(self, v: __m512) -> __m512i {
        unsafe {
            let bits = _mm512_castps_si512(v);
            _mm512_mask_add_epi32(bits, _mm512_cmp_ps_mask::<_CMP_ORD_Q>(v, v), bits, _mm512_set1_epi32(0x8000))
        }
    }
}

impl<const NEAR: bool> Simd for Avx512<NEAR> {
    const REGISTERS: usize = 32;
    const STREAMS: usize = if NEAR { 2 } else { 1 };
    const AHEAD: usize = if NEAR { 1024 } else { <Avx2<NONE> as Simd>::AHEAD };
    const NEAR: usize = if NEAR { 2048 } else { 0 };
    type Ints = __m512i;
    type Floats = __m512;
    type Words = __m512i;

    #[inline(always)]
    fn enter<K: SimdKernel>(self, kernel: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn inner<K: SimdKernel, const NEAR: bool>(s: Avx512<NEAR>, kernel: K) -> K::Out {
            kernel.run(s)
        }
        // SAFETY: the token proves the features.
        unsafe { inner(self, kernel) }
    }
    #[inline(always)]
    fn prefetch(self, at: *const u8) {
        self.0.prefetch(at);
    }
    #[inline(always)]
    fn prefetch_near(self, at: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }
    #[inline(always)]
    fn prefetch_to_write(self, at: *const u8) {
        // SAFETY: a hint. Every processor with AVX-512 has the instruction, which the intrinsic is not compiled to.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) at.addr(), options(nostack, preserves_flags, nomem)) }
    }

    #[inline(always)]
    fn words(self, v: &[u8; 64]) -> __m512i {
        unsafe { _mm512_loadu_si512(v.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_words(self, v: __m512i, out: &mut [u8; 64]) {
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn splat_words(self, v: u8) -> __m512i {
        unsafe { _mm512_set1_epi8(v as i8) }
    }
    #[inline(always)]
    fn and_words(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn or_words(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn shr_words(self, v: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_srlv_epi32(v, _mm512_set1_epi32(n as i32)) }
    }
    #[inline(always)]
    fn shl_words(self, v: __m512i, n: u32) -> __m512i {
        unsafe { _mm512_sllv_epi32(v, _mm512_set1_epi32(n as i32)) }
    }
    #[inline(always)]
    fn lookup_words(self, table: &[i8; 16], v: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), v) }
    }
    #[inline(always)]
    fn dot_words(self, sum: __m512i, weights: __m512i, acts: [i8; 4], _signed: bool) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(bytemuck::cast(acts))) }
    }
    #[inline(always)]
    fn pairs(self, even: __m512, odd: __m512) -> __m512i {
        unsafe {
            let low = _mm512_and_si512(_mm512_cvtps_epi32(even), _mm512_set1_epi32(0xffff));
            _mm512_or_si512(low, _mm512_slli_epi32::<16>(_mm512_cvtps_epi32(odd)))
        }
    }
    #[inline(always)]
    fn dot_pairs(self, sum: __m512i, weights: __m512i, acts: [i16; 2]) -> __m512i {
        unsafe { _mm512_dpwssd_epi32(sum, weights, _mm512_set1_epi32(bytemuck::cast(acts))) }
    }
    #[inline(always)]
    fn byte_floats(self, v: __m512i, n: u32) -> __m512 {
        unsafe {
            let low = match n {
                3 => _mm512_srli_epi32::<24>(v),
                _ => _mm512_and_si512(self.shr_words(v, 8 * n), _mm512_set1_epi32(255)),
            };
            self.to_floats(low)
        }
    }
    #[inline(always)]
    fn pairs_bf16(self, even: __m512, odd: __m512) -> __m512i {
        unsafe {
            let (even, odd) = (self.plus_half_bf16(even), self.plus_half_bf16(odd));
            // odd's upper half, or even's moved down.
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            _mm512_ternarylogic_epi32::<0xf8>(_mm512_srli_epi32::<16>(even), odd, upper)
        }
    }
    #[inline(always)]
    fn signed_zero(self) -> i32 {
        128
    }
    #[inline(always)]
    fn add_ints(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub_int(self, v: __m512i, n: i32) -> __m512i {
        unsafe { _mm512_sub_epi32(v, _mm512_set1_epi32(n)) }
    }
    #[inline(always)]
    fn exponents(self, v: &[u8; 16]) -> __m512 {
        unsafe {
            // 2^(e − 127), halved; of e = 0 the bits of 2^−127.
            let e = _mm512_slli_epi32::<23>(_mm512_cvtepu8_epi32(_mm_loadu_si128(v.as_ptr().cast())));
            let double = _mm512_castsi512_ps(_mm512_max_epu32(e, _mm512_set1_epi32(0x40_0000)));
            _mm512_mul_ps(double, _mm512_set1_ps(0.5))
        }
    }
    #[inline(always)]
    fn weights_signed(self, v: __m512i) -> __m512i {
        // The instruction takes weights as unsigned: w + 128.
        unsafe { _mm512_xor_si512(v, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    fn zero(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn splat_int(self, n: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(n) }
    }
    #[inline(always)]
    fn times_256(self, v: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi32::<8>(v) }
    }
    #[inline(always)]
    fn to_floats(self, v: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(v) }
    }

    #[inline(always)]
    fn floats(self, v: &[f32; 16]) -> __m512 {
        unsafe { _mm512_loadu_ps(v.as_ptr()) }
    }
    #[inline(always)]
    fn transpose(self, v: [__m512; 16]) -> [__m512; 16] {
        unsafe {
            // Words 0, 1, 2, 3 of four rows side by side, in each 128-bit lane; then lanes change places.
            let mut fours = v;
            for g in (0..16).step_by(4) {
                let (a, b) = (_mm512_unpacklo_ps(v[g], v[g + 1]), _mm512_unpackhi_ps(v[g], v[g + 1]));
                let (c, d) = (_mm512_unpacklo_ps(v[g + 2], v[g + 3]), _mm512_unpackhi_ps(v[g + 2], v[g + 3]));
                fours[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
                fours[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
                fours[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
                fours[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
            }
            let mut out = v;
            for c in 0..4 {
                let (low, high) = ((fours[c], fours[4 + c]), (fours[8 + c], fours[12 + c]));
                let even = (_mm512_shuffle_f32x4::<0x88>(low.0, low.1), _mm512_shuffle_f32x4::<0x88>(high.0, high.1));
                let odd = (_mm512_shuffle_f32x4::<0xdd>(low.0, low.1), _mm512_shuffle_f32x4::<0xdd>(high.0, high.1));
                out[c] = _mm512_shuffle_f32x4::<0x88>(even.0, even.1);
                out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1);
                out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even.0, even.1);
                out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1);
            }
            out
        }
    }
    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; 16]) {
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn splat(self, v: f32) -> __m512 {
        unsafe { _mm512_set1_ps(v) }
    }
    #[inline(always)]
    fn widen_f16(self, v: &[u8; 32]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(v.as_ptr().cast())) }
    }
    #[inline(always)]
    fn widen_i8(self, v: &[i8; 16]) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(v.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn widen_bf16(self, v: &[u8; 32]) -> __m512 {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(v.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))
        }
    }
    #[inline(always)]
    fn narrow_f16(self, v: __m512, out: &mut [u8; 32]) {
        unsafe {
            let halves = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), halves);
        }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }
    #[inline(always)]
    fn amax(self, a: __m512, b: __m512) -> f32 {
        unsafe {
            let mask = _mm512_set1_epi32(0x7fff_ffff);
            let a = _mm512_and_si512(_mm512_castps_si512(a), mask);
            let b = _mm512_and_si512(_mm512_castps_si512(b), mask);
            f32::from_bits(_mm512_reduce_max_epi32(_mm512_max_epi32(a, b)) as u32)
        }
    }
    #[inline(always)]
    fn max_lane(self, v: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    fn store_i8(self, v: __m512, out: &mut [i8; 16]) {
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v))) }
    }
    #[inline(always)]
    fn fold(self, v: [__m512; 4]) -> __m512 {
        /// Sums of pairs of lanes: of both vectors by turns, in each four lanes two and two.
        #[inline(always)]
        fn pairs(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b)) }
        }
        pairs(pairs(v[0], v[1]), pairs(v[2], v[3]))
    }
    #[inline(always)]
    fn fold_across(self, v: [__m512; 4]) -> __m512 {
        /// The same of fours of lanes.
        #[inline(always)]
        fn pairs(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)) }
        }
        pairs(pairs(v[0], v[1]), pairs(v[2], v[3]))
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        self.0.sum(unsafe { [_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)] })
    }
}
