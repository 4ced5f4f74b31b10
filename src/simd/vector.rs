//! The vector algebra that kernels are written in.

use super::level::Kernel;

/// A set of vector instructions known to work on this machine. Implementors are zero-sized tokens.
///
/// `Bytes` holds 32 bytes, `Ints` 16 × i32, `Floats` 16 × f32, whatever the width of the registers.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Vector registers that a kernel can count on, in units of `Floats`; a hint for how much to keep in them.
    const REGISTERS: usize;
    /// 32 bytes.
    type Bytes: Copy;
    /// 16 × i32.
    type Ints: Copy;
    /// 16 × f32.
    type Floats: Copy;
    /// 16 words of four bytes.
    type Words: Copy;

    /// Runs `kernel` with these instructions, out of line.
    fn enter<K: Kernel>(self, kernel: K) -> K::Out;
    /// Brings the first byte's cache line near.
    fn prefetch(self, v: &[u8]);

    /// Reads 32 bytes.
    fn bytes(self, v: &[u8; 32]) -> Self::Bytes;
    /// Writes 32 bytes.
    fn store_bytes(self, v: Self::Bytes, out: &mut [u8; 32]);
    /// 32 times the same byte.
    fn splat_byte(self, v: u8) -> Self::Bytes;
    /// `a & b`.
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a | b`.
    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// `a − b` of each byte, wrapping around.
    fn sub_bytes(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Each byte shifted right by `N` < 8, zeros coming in.
    fn shr<const N: i32>(self, v: Self::Bytes) -> Self::Bytes;
    /// Each byte shifted left by `N` < 8, zeros coming in.
    fn shl<const N: i32>(self, v: Self::Bytes) -> Self::Bytes;
    /// The low nibbles of 16 bytes, then their high nibbles: how every block of 32 four-bit codes is stored.
    fn nibbles(self, v: &[u8; 16]) -> Self::Bytes;
    /// Byte `i` is 0xff where bit `i` is set, else 0.
    fn spread_bits(self, bits: u32) -> Self::Bytes;
    /// Byte `i` becomes `table[v[i]]`; every `v[i]` must be below 16.
    fn lookup(self, table: &[i8; 16], v: Self::Bytes) -> Self::Bytes;

    /// Reads 64 bytes.
    fn words(self, v: &[u8; 64]) -> Self::Words;
    /// Writes 64 bytes.
    fn store_words(self, v: Self::Words, out: &mut [u8; 64]);
    /// Word `j` of vector `i` becomes word `i` of vector `j`.
    fn transpose(self, v: [Self::Words; 16]) -> [Self::Words; 16];
    /// Signed bytes as [`dot_words`](Simd::dot_words) wants them.
    fn weights_signed(self, v: Self::Words) -> Self::Words;
    /// Sixteen zeros.
    fn zero(self) -> Self::Ints;
    /// Adds to lane `l` the sum over j < 4 of `weights[4l + j] · acts[j]`. Activations must not be −128; unsigned weights
    /// must be at most 127. Signed weights come from [`weights_signed`](Simd::weights_signed), and their sum is right only
    /// once it is settled.
    fn dot_words<const SIGNED: bool>(self, sum: Self::Ints, weights: &[u8; 64], acts: [i8; 4]) -> Self::Ints;
    /// Takes away what signed weights have added too much: the sum of all activations (as weighted in the sum) times an
    /// offset of the instruction set.
    fn settle(self, sum: Self::Ints, acts: i32) -> Self::Ints;
    /// 256 times each lane.
    fn times_256(self, v: Self::Ints) -> Self::Ints;
    /// Each lane as f32 (exact below 2²⁴).
    fn to_floats(self, v: Self::Ints) -> Self::Floats;

    /// Reads 16 floats.
    fn floats(self, v: &[f32; 16]) -> Self::Floats;
    /// Writes 16 floats.
    fn store(self, v: Self::Floats, out: &mut [f32; 16]);
    /// Sixteen times the same float.
    fn splat(self, v: f32) -> Self::Floats;
    /// Eight times `a`, then eight times `b`.
    fn splat_pair(self, a: f32, b: f32) -> Self::Floats;
    /// 16 f16, little-endian, as f32; exact, subnormals included.
    fn widen_f16(self, v: &[u8; 32]) -> Self::Floats;
    /// 16 small numbers as f32.
    fn widen_i8(self, v: &[i8; 16]) -> Self::Floats;
    /// 16 bf16, little-endian, as f32; exact.
    fn widen_bf16(self, v: &[u8; 32]) -> Self::Floats;
    /// As 16 f16, little-endian, rounded to nearest even.
    fn narrow_f16(self, v: Self::Floats, out: &mut [u8; 32]);
    /// One f16 from its bits.
    fn half(self, bits: u16) -> f32;
    /// `a + b`.
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a − b`.
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b`.
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a / b`.
    fn div(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once or twice, whichever is fast.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The larger of each pair; `b` where either is NaN.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// The smaller of each pair; `b` where either is NaN.
    fn min(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `2^n` of integral lanes with −126 ≤ n ≤ 127.
    fn exp2_int(self, n: Self::Floats) -> Self::Floats;
    /// The largest |x| of both vectors, NaN where any lane is NaN.
    fn amax(self, a: Self::Floats, b: Self::Floats) -> f32;
    /// The largest lane.
    fn max_lane(self, v: Self::Floats) -> f32;
    /// Rounds to nearest even and narrows; lanes must lie in −128 … 127.
    fn store_i8(self, v: Self::Floats, out: &mut [i8; 16]);

    /// The sum of the lanes, always as a tree: lanes 8 apart, then 4, 2, 1.
    #[inline(always)]
    fn sum(self, v: Self::Floats) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        let mut width = 8;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}
