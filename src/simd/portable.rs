//! The twin without intrinsics: plain arrays, which the compiler vectorizes as far as the target allows.
//! It defines what the other levels must compute.

use super::level::Kernel;
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

impl Simd for Portable {
    const REGISTERS: usize = 8;
    type Bytes = [u8; 32];
    type Ints = [i32; 16];
    type Floats = [f32; 16];
    type Words = [[u8; 4]; 16];

    #[inline(always)]
    fn enter<K: Kernel>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }
    #[inline(always)]
    fn prefetch(self, _v: &[u8]) {}

    #[inline(always)]
    fn bytes(self, v: &[u8; 32]) -> [u8; 32] {
        *v
    }
    #[inline(always)]
    fn store_bytes(self, v: [u8; 32], out: &mut [u8; 32]) {
        *out = v;
    }
    #[inline(always)]
    fn splat_byte(self, v: u8) -> [u8; 32] {
        [v; 32]
    }
    #[inline(always)]
    fn and(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn sub_bytes(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        zip(a, b, u8::wrapping_sub)
    }
    #[inline(always)]
    fn shr<const N: i32>(self, v: [u8; 32]) -> [u8; 32] {
        map(v, |v| v >> N)
    }
    #[inline(always)]
    fn shl<const N: i32>(self, v: [u8; 32]) -> [u8; 32] {
        map(v, |v| v << N)
    }
    #[inline(always)]
    fn nibbles(self, v: &[u8; 16]) -> [u8; 32] {
        let mut out = [0; 32];
        for i in 0..16 {
            out[i] = v[i] & 15;
            out[i + 16] = v[i] >> 4;
        }
        out
    }
    #[inline(always)]
    fn spread_bits(self, bits: u32) -> [u8; 32] {
        let mut out = [0; 32];
        for (i, out) in out.iter_mut().enumerate() {
            *out = (((bits >> i) & 1) as u8).wrapping_neg();
        }
        out
    }
    #[inline(always)]
    fn lookup(self, table: &[i8; 16], v: [u8; 32]) -> [u8; 32] {
        map(v, |v| table[v as usize & 15] as u8)
    }

    #[inline(always)]
    fn words(self, v: &[u8; 64]) -> [[u8; 4]; 16] {
        bytemuck::cast(*v)
    }
    #[inline(always)]
    fn store_words(self, v: [[u8; 4]; 16], out: &mut [u8; 64]) {
        *out = bytemuck::cast(v);
    }
    #[inline(always)]
    fn transpose(self, v: [[[u8; 4]; 16]; 16]) -> [[[u8; 4]; 16]; 16] {
        let mut out = v;
        for i in 0..16 {
            for j in 0..16 {
                out[j][i] = v[i][j];
            }
        }
        out
    }
    #[inline(always)]
    fn weights_signed(self, v: [[u8; 4]; 16]) -> [[u8; 4]; 16] {
        v
    }
    #[inline(always)]
    fn zero(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn dot_words<const SIGNED: bool>(self, mut sum: [i32; 16], weights: &[u8; 64], acts: [i8; 4]) -> [i32; 16] {
        for l in 0..16 {
            for j in 0..4 {
                let w = weights[4 * l + j];
                sum[l] += if SIGNED { w as i8 as i32 } else { w as i32 } * acts[j] as i32;
            }
        }
        sum
    }
    #[inline(always)]
    fn settle(self, sum: [i32; 16], _acts: i32) -> [i32; 16] {
        sum
    }
    #[inline(always)]
    fn times_256(self, v: [i32; 16]) -> [i32; 16] {
        map(v, |v| v << 8)
    }
    #[inline(always)]
    fn to_floats(self, v: [i32; 16]) -> [f32; 16] {
        map(v, |v| v as f32)
    }

    #[inline(always)]
    fn floats(self, v: &[f32; 16]) -> [f32; 16] {
        *v
    }
    #[inline(always)]
    fn store(self, v: [f32; 16], out: &mut [f32; 16]) {
        *out = v;
    }
    #[inline(always)]
    fn splat(self, v: f32) -> [f32; 16] {
        [v; 16]
    }
    #[inline(always)]
    fn splat_pair(self, a: f32, b: f32) -> [f32; 16] {
        let mut out = [a; 16];
        out[8..].fill(b);
        out
    }
    #[inline(always)]
    fn widen_f16(self, v: &[u8; 32]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (i, out) in out.iter_mut().enumerate() {
            *out = self.half(u16_at(v, i));
        }
        out
    }
    #[inline(always)]
    fn widen_i8(self, v: &[i8; 16]) -> [f32; 16] {
        map(*v, |v| v as f32)
    }
    #[inline(always)]
    fn widen_bf16(self, v: &[u8; 32]) -> [f32; 16] {
        let mut out = [0.0; 16];
        for (i, out) in out.iter_mut().enumerate() {
            *out = f32::from_bits((u16_at(v, i) as u32) << 16);
        }
        out
    }
    #[inline(always)]
    fn narrow_f16(self, v: [f32; 16], out: &mut [u8; 32]) {
        for i in 0..16 {
            out[2 * i..2 * i + 2].copy_from_slice(&f16::from_f32_const(v[i]).to_le_bytes());
        }
    }
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        // A shift moves exponent and mantissa into place, short of the bias 127 − 15; the product adds that, and
        // normalizes subnormals. Infinity and NaN, whose exponent would stay finite, are the only special case.
        let magnitude = (bits as u32 & 0x7fff) << 13;
        let value = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
        let bits_out = if magnitude >= 0x7c00 << 13 { magnitude | 0xff << 23 } else { value.to_bits() };
        f32::from_bits(bits_out | (bits as u32 & 0x8000) << 16)
    }
    #[inline(always)]
    fn add(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; 16], b: [f32; 16], c: [f32; 16]) -> [f32; 16] {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn exp2_int(self, n: [f32; 16]) -> [f32; 16] {
        // Adding 1.5 · 2²³ leaves n in the low mantissa bits.
        map(n, |n| f32::from_bits(((n + 12582912.0 + 127.0).to_bits()) << 23))
    }
    #[inline(always)]
    fn amax(self, a: [f32; 16], b: [f32; 16]) -> f32 {
        // Magnitudes order like their bits, and NaN lies above infinity.
        let mut bits = 0;
        for v in a.into_iter().chain(b) {
            bits = bits.max(v.to_bits() & 0x7fff_ffff);
        }
        f32::from_bits(bits)
    }
    #[inline(always)]
    fn max_lane(self, v: [f32; 16]) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    fn store_i8(self, v: [f32; 16], out: &mut [i8; 16]) {
        for i in 0..16 {
            // Adding and subtracting 1.5 · 2²³ rounds to nearest even.
            out[i] = ((v[i] + 12582912.0) - 12582912.0) as i8;
        }
    }
}
