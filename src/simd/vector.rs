//! The vector algebra that kernels are written in.

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
    /// 8 × f32: the even or the odd half of a sum in `Floats`.
    type Lanes: Copy;

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

    /// Lane `l` is the sum over j < 4 of `codes[4l + j] · acts[4l + j]`. Codes must be at most 127.
    fn dot_unsigned(self, codes: &[u8; 64], acts: &[i8; 64]) -> Self::Ints;
    /// The same with signed codes. Activations must not be −128, and `bias[l]` must be −128 · Σ `acts[4l..4l + 4]`:
    /// the correction that unsigned × signed hardware needs.
    fn dot_signed(self, codes: &[u8; 64], acts: &[i8; 64], bias: &[i32; 16]) -> Self::Ints;
    /// `t[l] + d[l / 4] · x ·` lane `l` of [`dot_unsigned`](Simd::dot_unsigned), for the 32 codes `q` in a register.
    fn add_unsigned(self, t: Self::Lanes, q: Self::Bytes, a: &[i8; 32], d: [f32; 2], x: f32) -> Self::Lanes;
    /// The same with [`dot_signed`](Simd::dot_signed) and its bias `b`.
    fn add_signed(self, t: Self::Lanes, q: Self::Bytes, a: &[i8; 32], b: &[i32; 8], d: [f32; 2], x: f32)
    -> Self::Lanes;
    /// The two halves of a vector.
    fn halves(self, v: Self::Floats) -> [Self::Lanes; 2];
    /// The vector of two halves.
    fn join(self, halves: [Self::Lanes; 2]) -> Self::Floats;
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
