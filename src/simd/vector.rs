//! The vector algebra that kernels are written in.

use super::level::SimdKernel;

/// A set of vector instructions known to work on this machine. Implementors are zero-sized tokens.
///
/// `Words` holds 16 words of four bytes, `Ints` 16 × i32, `Floats` 16 × f32, whatever the width of the registers.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Vector registers that a kernel can count on, in units of `Floats`; a hint for how much to keep in them.
    const REGISTERS: usize;
    /// Streams that keep memory busiest.
    const STREAMS: usize = 1;
    /// How far ahead of what is read of a stream, in bytes, its lines are fetched to the second-level cache: pages of 4 KiB end the hardware's
    /// own look ahead. Measured on a Zen 4: answers at Q4_0 take 28 ms a token at 512 … 1024 bytes, 19 … 14 at 6144, 20 at 12288.
    const AHEAD: usize = 6144;
    /// How far ahead they are fetched to the first level; 0: not at all.
    const NEAR: usize = 0;
    /// 16 × i32.
    type Ints: Copy;
    /// 16 × f32.
    type Floats: Copy;
    /// 16 words of four bytes.
    type Words: Copy;

    /// Runs `kernel` with these instructions, out of line.
    fn enter<K: SimdKernel>(self, kernel: K) -> K::Out;
    /// Brings the cache line at `at` into the second-level cache: the first has too few misses in flight to keep memory busy. Any address
    /// will do.
    fn prefetch(self, at: *const u8);
    /// The same for the first level.
    fn prefetch_near(self, at: *const u8) {
        self.prefetch(at);
    }
    /// Takes the cache line at `at` away from other cores, of which it may be written soon. Any address will do.
    #[inline(always)]
    fn prefetch_to_write(self, _at: *const u8) {}
    /// Fetches what follows the `bytes` at `at` by [`AHEAD`](Simd::AHEAD) and [`NEAR`](Simd::NEAR), in a stream that leaves out `skip` bytes
    /// after the next `left`.
    #[inline(always)]
    fn fetch(self, at: *const u8, bytes: usize, (left, skip): (usize, usize)) {
        let ahead = |distance: usize| at.wrapping_add(if distance < left { distance } else { distance + skip });
        let (far, near) = (ahead(Self::AHEAD), ahead(Self::NEAR));
        for line in (0..bytes).step_by(64) {
            self.prefetch(far.wrapping_add(line));
            if Self::NEAR > 0 {
                self.prefetch_near(near.wrapping_add(line));
            }
        }
    }

    /// Reads 64 bytes.
    fn words(self, v: &[u8; 64]) -> Self::Words;
    /// Writes 64 bytes.
    fn store_words(self, v: Self::Words, out: &mut [u8; 64]);
    /// 64 times the same byte.
    fn splat_words(self, v: u8) -> Self::Words;
    /// `a & b`.
    fn and_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// `a | b`.
    fn or_words(self, a: Self::Words, b: Self::Words) -> Self::Words;
    /// Each word shifted right by `n` < 32, zeros coming in. Fast where `n` is a constant.
    fn shr_words(self, v: Self::Words, n: u32) -> Self::Words;
    /// Each word shifted left by `n` < 32, zeros coming in. Fast where `n` is a constant.
    fn shl_words(self, v: Self::Words, n: u32) -> Self::Words;
    /// Each byte `b` becomes `table[b]`; all must be below 16.
    fn lookup_words(self, table: &[i8; 16], v: Self::Words) -> Self::Words;
    /// Signed bytes as [`dot_words`](Simd::dot_words) wants them.
    fn weights_signed(self, v: Self::Words) -> Self::Words;
    /// Sixteen zeros.
    fn zero(self) -> Self::Ints;
    /// Sixteen times `n`.
    fn splat_int(self, n: i32) -> Self::Ints;
    /// Adds to lane `l` the sum over j < 4 of `weights[4l + j] · acts[j]`. Activations must not be −128; unsigned weights
    /// must be at most 127. Signed weights come from [`weights_signed`](Simd::weights_signed), and count as if
    /// [`signed_zero`](Simd::signed_zero) had been added to each of them.
    fn dot_words(self, sum: Self::Ints, weights: Self::Words, acts: [i8; 4], signed: bool) -> Self::Ints;
    /// Whether a dot product takes several instructions, the last of which may wait: then [`dot_narrow`](Simd::dot_narrow) is faster.
    const NARROW: bool = false;
    /// As [`dot_words`](Simd::dot_words) of unsigned weights, but if [`NARROW`](Simd::NARROW) to sums of 16 bits, two per lane, which begin as
    /// [`zero`](Simd::zero): the weights that are added to one must sum up to no more than 32767 / 254 = 129 at any byte of a word.
    #[inline(always)]
    fn dot_narrow(self, sum: Self::Ints, weights: Self::Words, acts: [i8; 4]) -> Self::Ints {
        self.dot_words(sum, weights, acts, false)
    }
    /// Adds to each lane of `sum` what [`dot_narrow`](Simd::dot_narrow) has added up.
    #[inline(always)]
    fn widen(self, sum: Self::Ints, narrow: Self::Ints) -> Self::Ints {
        self.add_ints(sum, narrow)
    }
    /// Whether products with both bytes of activations are best made of 16-bit numbers: [`dot_sixteen`](Simd::dot_sixteen).
    const SIXTEEN: bool = false;
    /// Σ q · a of eight words of codes (four of each row, as signed bytes) for `C` columns; activations are within ± 32639, and so sums are exact.
    /// Only if [`SIXTEEN`](Simd::SIXTEEN).
    #[inline(always)]
    fn dot_sixteen<const C: usize>(self, _words: &[[u8; 64]; 8], _acts: &[[[i16; 4]; 8]; C]) -> [Self::Ints; C] {
        unreachable!("there is no such product")
    }
    /// Whether there are products of small matrices of bytes: then unpacked words lie as [`zip_words`](Simd::zip_words) gives them, and meet two
    /// columns at a time.
    const MATRICES: bool = false;
    /// Two words as [`dot_matrices`](Simd::dot_matrices) takes them.
    #[inline(always)]
    fn zip_words(self, a: Self::Words, b: Self::Words) -> [Self::Words; 2] {
        [a, b]
    }
    /// The words of [`zip_words`](Simd::zip_words) again.
    #[inline(always)]
    fn unzip_words(self, zipped: [Self::Words; 2]) -> [Self::Words; 2] {
        zipped
    }
    /// As [`dot_words`](Simd::dot_words) with two zipped words and eight activations of each of two columns; [`columns`](Simd::columns) takes
    /// the sums apart, which begin as [`zero`](Simd::zero).
    #[inline(always)]
    fn dot_matrices(
        self,
        mut sums: [Self::Ints; 2],
        zipped: [Self::Words; 2],
        acts: [[i8; 8]; 2],
        signed: bool,
    ) -> [Self::Ints; 2] {
        for (sum, [a, b, c, d, e, f, g, h]) in sums.iter_mut().zip(acts) {
            *sum = self.dot_words(*sum, zipped[0], [a, b, c, d], signed);
            *sum = self.dot_words(*sum, zipped[1], [e, f, g, h], signed);
        }
        sums
    }
    /// The sums of either column.
    #[inline(always)]
    fn columns(self, sums: [Self::Ints; 2]) -> [Self::Ints; 2] {
        sums
    }
    /// Rounds both to nearest even: lane `l` of the words holds the whole number of `even` in its low half and of `odd` in
    /// the high one, which must fit 16 bits.
    fn pairs(self, even: Self::Floats, odd: Self::Floats) -> Self::Words;
    /// Adds to lane `l` the two products of the halves of `weights[l]` with `acts`, wrapping around.
    fn dot_pairs(self, sum: Self::Ints, weights: Self::Words, acts: [i16; 2]) -> Self::Ints;
    /// Byte `n` < 4 of each word as f32: signed, or unsigned where [`signed_zero`](Simd::signed_zero) is not 0.
    fn byte_floats(self, v: Self::Words, n: u32) -> Self::Floats;
    /// Both as bf16, to nearest: lane `l` of the words holds `even` in its low half and `odd` in the high one. Ties go either way.
    #[inline(always)]
    fn pairs_bf16(self, even: Self::Floats, odd: Self::Floats) -> Self::Words {
        // Levels with units for tiles have something better.
        let (mut words, mut a, mut b) = ([0; 64], [0.0; 16], [0.0; 16]);
        self.store(even, &mut a);
        self.store(odd, &mut b);
        for (l, word) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [a, b] = [a[l], b[l]].map(|v| half::bf16::from_f32(v).to_bits() as u32);
            *word = (a | b << 16).to_le_bytes();
        }
        self.words(&words)
    }
    /// What signed weights count too much.
    fn signed_zero(self) -> i32;
    /// `a + b`, wrapping around.
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `v − n` in each lane, wrapping around.
    fn sub_int(self, v: Self::Ints, n: i32) -> Self::Ints;
    /// 256 times each lane.
    fn times_256(self, v: Self::Ints) -> Self::Ints;
    /// Each lane as f32 (exact below 2²⁴).
    fn to_floats(self, v: Self::Ints) -> Self::Floats;

    /// Reads 16 floats.
    fn floats(self, v: &[f32; 16]) -> Self::Floats;
    /// Float `j` of vector `i` becomes float `i` of vector `j`.
    fn transpose(self, v: [Self::Floats; 16]) -> [Self::Floats; 16];
    /// Writes 16 floats.
    fn store(self, v: Self::Floats, out: &mut [f32; 16]);
    /// Sixteen times the same float.
    fn splat(self, v: f32) -> Self::Floats;
    /// 16 f16, little-endian, as f32; exact, subnormals included.
    fn widen_f16(self, v: &[u8; 32]) -> Self::Floats;
    /// 16 small numbers as f32.
    fn widen_i8(self, v: &[i8; 16]) -> Self::Floats;
    /// 2^(e − 128) of 16 exponents.
    fn exponents(self, v: &[u8; 16]) -> Self::Floats;
    /// 16 bf16, little-endian, as f32; exact.
    fn widen_bf16(self, v: &[u8; 32]) -> Self::Floats;
    /// As 16 f16, little-endian, rounded to nearest even.
    fn narrow_f16(self, v: Self::Floats, out: &mut [u8; 32]);
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
    /// The largest |x| of both vectors, NaN if any lane is NaN.
    fn amax(self, a: Self::Floats, b: Self::Floats) -> f32;
    /// The largest lane.
    fn max_lane(self, v: Self::Floats) -> f32;
    /// Rounds to nearest even and narrows; lanes must lie in −128 … 127.
    fn store_i8(self, v: Self::Floats, out: &mut [i8; 16]);

    /// Lane 4 g + i becomes the sum of lanes 4 g … 4 g + 3 of `v[i]`: of the first two and of the last two, and of these.
    fn fold(self, v: [Self::Floats; 4]) -> Self::Floats;
    /// Lane 4 i + l becomes the sum of lanes l, 4 + l, 8 + l and 12 + l of `v[i]`, in the same order.
    fn fold_across(self, v: [Self::Floats; 4]) -> Self::Floats;
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
