//! The twin without intrinsics: plain arrays, which the compiler vectorizes as far as the target allows.
//! It defines what the other levels must compute.
//!
//! Each operation is a loop, and a kernel hundreds of them, which take compilers minutes. So debug builds, of which nobody asks that they
//! be fast at this level, call them.

use super::array;
use super::level::SimdKernel;
use super::vector::Simd;
use half::f16;

/// No instruction set in particular.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn map<T: Copy, U: Copy + Default, const N: usize>(v: [T; N], f: impl Fn(T) -> U) -> [U; N] {
    let mut out = [U::default(); N];
    for i in 0..N {
        out[i] = f(v[i]);
    }
    out
}

#[inline(always)]
fn zip<T: Copy + Default, const N: usize>(a: [T; N], b: [T; N], f: impl Fn(T, T) -> T) -> [T; N] {
    let mut out = [T::default(); N];
    for i in 0..N {
        out[i] = f(a[i], b[i]);
    }
    out
}

#[inline(always)]
fn u16_at(v: &[u8; 32], i: usize) -> u16 {
    u16::from_le_bytes([v[2 * i], v[2 * i + 1]])
}

/// One f16 from its bits.
#[inline(always)]
fn half(bits: u16) -> f32 {
    // A shift moves exponent and mantissa into place, short of the bias 127 − 15; the product adds that, and
    // normalizes subnormals. Infinity and NaN, whose exponent would stay finite, are the only special case.
    let magnitude = (bits as u32 & 0x7fff) << 13;
    let value = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let bits_out = if magnitude >= 0x7c00 << 13 { magnitude | 0xff << 23 } else { value.to_bits() };
    f32::from_bits(bits_out | (bits as u32 & 0x8000) << 16)
}

impl Simd for Portable {
    const REGISTERS: usize = 8;
    // By the trait's own definition of them, so that tests on every machine go that way.
    const MATRICES: bool = true;
    type Ints = [i32; 16];
    type Floats = [f32; 16];
    type Words = [[u8; 4]; 16];

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn enter<K: SimdKernel>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn prefetch(self, _at: *const u8) {}

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn words(self, v: &[u8; 64]) -> [[u8; 4]; 16] {
        bytemuck::cast(*v)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn store_words(self, v: [[u8; 4]; 16], out: &mut [u8; 64]) {
        *out = bytemuck::cast(v);
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn splat_words(self, v: u8) -> [[u8; 4]; 16] {
        [[v; 4]; 16]
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn and_words(self, a: [[u8; 4]; 16], b: [[u8; 4]; 16]) -> [[u8; 4]; 16] {
        bytemuck::cast(zip(bytemuck::cast::<_, [u32; 16]>(a), bytemuck::cast(b), |a, b| a & b))
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn or_words(self, a: [[u8; 4]; 16], b: [[u8; 4]; 16]) -> [[u8; 4]; 16] {
        bytemuck::cast(zip(bytemuck::cast::<_, [u32; 16]>(a), bytemuck::cast(b), |a, b| a | b))
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn shr_words(self, v: [[u8; 4]; 16], n: u32) -> [[u8; 4]; 16] {
        map(v, |v| (u32::from_le_bytes(v) >> n).to_le_bytes())
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn shl_words(self, v: [[u8; 4]; 16], n: u32) -> [[u8; 4]; 16] {
        map(v, |v| (u32::from_le_bytes(v) << n).to_le_bytes())
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn lookup_words(self, table: &[i8; 16], v: [[u8; 4]; 16]) -> [[u8; 4]; 16] {
        map(v, |v| map(v, |b| table[b as usize & 15] as u8))
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn dot_words(self, mut sum: [i32; 16], weights: [[u8; 4]; 16], acts: [i8; 4], signed: bool) -> [i32; 16] {
        for l in 0..16 {
            for j in 0..4 {
                let w = weights[l][j];
                sum[l] += if signed { w as i8 as i32 } else { w as i32 } * acts[j] as i32;
            }
        }
        sum
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn pairs(self, even: [f32; 16], odd: [f32; 16]) -> [[u8; 4]; 16] {
        let mut words = [[0; 4]; 16];
        for l in 0..16 {
            let [a, b] = [even[l], odd[l]].map(|v| v.round_ties_even() as i32);
            words[l] = (a & 0xffff | b << 16).to_le_bytes();
        }
        words
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn dot_pairs(self, mut sum: [i32; 16], weights: [[u8; 4]; 16], acts: [i16; 2]) -> [i32; 16] {
        for l in 0..16 {
            let [a, b]: [i16; 2] = bytemuck::cast(weights[l]);
            let products = [a as i32 * acts[0] as i32, b as i32 * acts[1] as i32];
            sum[l] = sum[l].wrapping_add(products[0]).wrapping_add(products[1]);
        }
        sum
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn byte_floats(self, v: [[u8; 4]; 16], n: u32) -> [f32; 16] {
        map(v, |word| word[n as usize] as i8 as f32)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn signed_zero(self) -> i32 {
        0
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn add_ints(self, a: [i32; 16], b: [i32; 16]) -> [i32; 16] {
        zip(a, b, i32::wrapping_add)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn sub_int(self, v: [i32; 16], n: i32) -> [i32; 16] {
        map(v, |v| v.wrapping_sub(n))
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn exponents(self, v: &[u8; 16]) -> [f32; 16] {
        // 2^(e − 127), halved; of e = 0 the bits of 2^−127.
        map(*v, |e| f32::from_bits(((e as u32) << 23).max(0x40_0000)) * 0.5)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn weights_signed(self, v: [[u8; 4]; 16]) -> [[u8; 4]; 16] {
        v
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn zero(self) -> [i32; 16] {
        [0; 16]
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn splat_int(self, n: i32) -> [i32; 16] {
        [n; 16]
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn times_256(self, v: [i32; 16]) -> [i32; 16] {
        map(v, |v| v << 8)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn to_floats(self, v: [i32; 16]) -> [f32; 16] {
        map(v, |v| v as f32)
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn floats(self, v: &[f32; 16]) -> [f32; 16] {
        *v
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn transpose(self, v: [[f32; 16]; 16]) -> [[f32; 16]; 16] {
        let mut out = v;
        for i in 0..16 {
            for j in 0..16 {
                out[j][i] = v[i][j];
            }
        }
        out
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn fold(self, v: [[f32; 16]; 4]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (l, out) in out.iter_mut().enumerate() {
            let [a, b, c, d] = *array(&v[l % 4], l / 4 * 4);
            *out = (a + b) + (c + d);
        }
        out
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn fold_across(self, v: [[f32; 16]; 4]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (l, out) in out.iter_mut().enumerate() {
            let v = &v[l / 4];
            *out = (v[l % 4] + v[4 + l % 4]) + (v[8 + l % 4] + v[12 + l % 4]);
        }
        out
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn store(self, v: [f32; 16], out: &mut [f32; 16]) {
        *out = v;
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn splat(self, v: f32) -> [f32; 16] {
        [v; 16]
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn widen_f16(self, v: &[u8; 32]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (i, out) in out.iter_mut().enumerate() {
            *out = half(u16_at(v, i));
        }
        out
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn widen_i8(self, v: &[i8; 16]) -> [f32; 16] {
        map(*v, |v| v as f32)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn widen_bf16(self, v: &[u8; 32]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (i, out) in out.iter_mut().enumerate() {
            *out = f32::from_bits((u16_at(v, i) as u32) << 16);
        }
        out
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn narrow_f16(self, v: [f32; 16], out: &mut [u8; 32]) {
        for i in 0..16 {
            out[2 * i..2 * i + 2].copy_from_slice(&f16::from_f32_const(v[i]).to_le_bytes());
        }
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a + b)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a - b)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a * b)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a / b)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn mul_add(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        self.add(self.mul(a, b), c)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn exp2_int(self, n: [f32; 16]) -> [f32; 16] {
        // Adding 1.5 · 2²³ leaves n in the low mantissa bits.
        map(n, |n| f32::from_bits(((n + 12582912.0 + 127.0).to_bits()) << 23))
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn amax(self, a: [f32; 16], b: [f32; 16]) -> f32 {
        // Magnitudes order like their bits, and NaN lies above infinity.
        let mut bits = 0;
        for v in a.into_iter().chain(b) {
            bits = bits.max(v.to_bits() & 0x7fff_ffff);
        }
        f32::from_bits(bits)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn max_lane(self, v: [f32; 16]) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn store_i8(self, v: [f32; 16], out: &mut [i8; 16]) {
        for i in 0..16 {
            // Adding and subtracting 1.5 · 2²³ rounds to nearest even.
            out[i] = ((v[i] + 12582912.0) - 12582912.0) as i8;
        }
    }
}
