//! What a core can do at the most: loops that do nothing but read, or nothing but multiply. They measure the machine, not the
//! kernels.
#![allow(unsafe_code)]

use super::level::{Level, SimdKernel};
use super::vector::Simd;
use std::hint::black_box;

/// A kind of multiplication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// Fused multiply-adds of `f32`.
    F32,
    /// Dot products of some `bf16`, added up in `f32`.
    Bf16,
    /// Dot products of some bytes, added up in `i32`.
    Int8,
}

/// Sums in flight: enough to hide the latency of two units at 5 cycles.
const SUMS: usize = 12;

/// Does nothing but arithmetic for `rounds` rounds. Gives the operations that were done, a multiplication and an addition
/// being two; `None` if the machine has no instruction for it.
pub fn multiply(what: Arithmetic, rounds: usize) -> Option<f64> {
    match what {
        Arithmetic::F32 => Some(Level::best().run(Fma(rounds))),
        #[cfg(target_arch = "x86_64")]
        Arithmetic::Bf16 => x86::bf16(rounds),
        #[cfg(target_arch = "x86_64")]
        Arithmetic::Int8 => x86::int8(rounds),
        #[cfg(target_arch = "aarch64")]
        Arithmetic::Bf16 => arm::bf16(rounds),
        #[cfg(target_arch = "aarch64")]
        Arithmetic::Int8 => arm::int8(rounds),
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        _ => None,
    }
}

struct Fma(usize);

impl SimdKernel for Fma {
    type Out = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        // Narrow registers take two for each vector.
        if S::REGISTERS >= 32 { fma::<S, SUMS>(s, self.0) } else { fma::<S, { SUMS / 2 }>(s, self.0) }
    }
}

#[inline(always)]
fn fma<S: Simd, const N: usize>(s: S, rounds: usize) -> f64 {
    // The sums stay finite: they converge to 2.
    let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
    let mut sums = [s.splat(0.0); N];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = s.mul_add(*sum, a, b);
        }
    }
    black_box(sums.iter().map(|v| s.sum(*v)).sum::<f32>());
    (rounds * N * 16 * 2) as f64
}

/// Reads all of `bytes`, up to a last piece of less than 256, with software prefetch `ahead` bytes ahead (0 for none). Gives
/// the disjunction of all bytes, so that nothing can be left out.
pub fn read(bytes: &[u8], ahead: usize) -> u8 {
    Level::best().run(Read { bytes, ahead })
}

struct Read<'a> {
    bytes: &'a [u8],
    ahead: usize,
}

impl SimdKernel for Read<'_> {
    type Out = u8;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u8 {
        let mut all = [s.splat_words(0); 4];
        for piece in self.bytes.as_chunks::<256>().0 {
            if self.ahead > 0 {
                (0..4).for_each(|line| prefetch(piece.as_ptr().wrapping_add(self.ahead + 64 * line)));
            }
            for (all, bytes) in all.iter_mut().zip(piece.as_chunks::<64>().0) {
                *all = s.or_words(*all, s.words(bytes));
            }
        }
        let mut lanes = [0; 64];
        let all = all.into_iter().reduce(|a, b| s.or_words(a, b)).expect("four of them");
        s.store_words(all, &mut lanes);
        lanes.iter().fold(0, |a, b| a | b)
    }
}

/// Fetches the line at `at` into the caches; any address will do.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is in every x86-64, and a prefetch of an address that is not mapped does nothing.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: it changes nothing, and any address will do.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(readonly, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = at;
}

/// SAFETY of every `unsafe` block here: the features that the called function needs were detected right before.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Level, SUMS};
    use std::arch::x86_64::*;
    use std::hint::black_box;

    pub fn bf16(rounds: usize) -> Option<f64> {
        if let Some(tiles) = Level::best().tiles() {
            return tiles.roofline(rounds);
        }
        let found = Level::best() == Level::Avx512 && is_x86_feature_detected!("avx512bf16");
        found.then(|| unsafe { bf16_512(rounds) })
    }

    pub fn int8(rounds: usize) -> Option<f64> {
        match Level::best() {
            Level::Avx512 | Level::Amx => Some(unsafe { int8_512(rounds) }),
            Level::AvxVnni if is_x86_feature_detected!("avxvnni") => Some(unsafe { int8_vnni(rounds) }),
            Level::Avx2 => Some(unsafe { int8_256(rounds) }),
            _ => None,
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_512(rounds: usize) -> f64 {
        let ones = _mm512_set1_epi32(black_box(0x3f80_3f80));
        // SAFETY: plain bits, of the same size.
        let (a, b) =
            unsafe { (std::mem::transmute::<__m512i, __m512bh>(ones), std::mem::transmute::<__m512i, __m512bh>(ones)) };
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        black_box(sums.iter().map(|v| _mm512_reduce_add_ps(*v)).sum::<f32>());
        (rounds * SUMS * 32 * 2) as f64
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn int8_512(rounds: usize) -> f64 {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(-1)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums.map(|v| _mm512_reduce_add_epi32(v)));
        (rounds * SUMS * 64 * 2) as f64
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn int8_vnni(rounds: usize) -> f64 {
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(-1)));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums.map(|v| _mm256_extract_epi32::<0>(v)));
        (rounds * SUMS * 32 * 2) as f64
    }

    #[target_feature(enable = "avx2")]
    fn int8_256(rounds: usize) -> f64 {
        let (b, ones) = (_mm256_set1_epi8(black_box(-1)), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); SUMS];
        for _ in 0..rounds {
            // The sum is an operand too: products of constants would be taken out of the loop.
            for sum in &mut sums {
                let products = _mm256_madd_epi16(_mm256_maddubs_epi16(*sum, b), ones);
                *sum = _mm256_add_epi32(*sum, products);
            }
        }
        black_box(sums.map(|v| _mm256_extract_epi32::<0>(v)));
        (rounds * SUMS * 32 * 2) as f64
    }
}

/// By inline assembly, because the intrinsics are not stable yet.
///
/// SAFETY of every `unsafe` block here: the features that the instructions need were detected right before.
#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Level;
    use std::arch::aarch64::{vdupq_n_s32, vdupq_n_u8};
    use std::arch::{asm, is_aarch64_feature_detected};
    use std::hint::black_box;

    /// Sums in flight: enough to hide the latency of four units at 4 cycles, and 8 registers are left.
    const SUMS: usize = 24;

    pub fn bf16(rounds: usize) -> Option<f64> {
        let dots = matches!(Level::best(), Level::NeonDotprod | Level::NeonI8mm);
        let found = dots && is_aarch64_feature_detected!("bf16");
        found.then(|| unsafe { bfmmla(rounds) })
    }

    /// Products of small matrices are twice the dot products, where there are such.
    pub fn int8(rounds: usize) -> Option<f64> {
        match Level::best() {
            Level::NeonI8mm => Some(unsafe { smmla(rounds) }),
            Level::NeonDotprod => Some(unsafe { sdot(rounds) }),
            _ => None,
        }
    }

    /// A function that does nothing but `$instruction`, which adds `$products` products.
    macro_rules! repeat {
        ($name:ident, $features:literal, $instruction:literal, $products:literal) => {
            #[target_feature(enable = $features)]
            fn $name(rounds: usize) -> f64 {
                // As bf16 it is 0.746.
                let (a, b) = (vdupq_n_u8(black_box(0x3f)), vdupq_n_u8(black_box(0x3f)));
                let mut sums = [vdupq_n_s32(0); SUMS];
                for _ in 0..rounds {
                    for sum in &mut sums {
                        unsafe {
                            asm!($instruction, inout(vreg) *sum, in(vreg) a, in(vreg) b,
                                options(pure, nomem, nostack, preserves_flags));
                        }
                    }
                }
                black_box(sums);
                (rounds * SUMS * $products * 2) as f64
            }
        };
    }
    repeat!(sdot, "neon,dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", 16);
    repeat!(smmla, "neon,i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", 32);
    repeat!(bfmmla, "neon,bf16", "bfmmla {0:v}.4s, {1:v}.8h, {2:v}.8h", 16);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read() {
        let mut bytes = vec![0u8; 1024];
        assert_eq!(read(&bytes, 0), 0);
        for (at, bit) in [(0, 1), (31, 2), (500, 4), (1023, 8)] {
            bytes[at] = bit;
        }
        assert_eq!((read(&bytes, 0), read(&bytes, 4096)), (15, 15));
    }

    #[test]
    fn operations_are_counted() {
        assert!(multiply(Arithmetic::F32, 10).unwrap() >= 10.0 * 6.0 * 32.0);
        for what in [Arithmetic::Bf16, Arithmetic::Int8] {
            assert!(multiply(what, 10).is_none_or(|n| n >= 10.0 * 12.0 * 64.0), "{what:?}");
        }
    }
}
