//! Activations as fixed point in two bytes each, with one f32 scale per 32 values.

use super::tile::{Byte, CHUNK, IntTile, TILE, Terms, WeightCodes};
use crate::simd::{Simd, SimdKernel, array, array_mut};

/// Quantizes a column, a multiple of [`CHUNK`] values, to the tiles `to`.
pub(super) struct Quantize<'a> {
    pub x: &'a [f32],
    pub to: &'a mut [IntTile],
    /// Chunks whose largest value is not above this get no low bytes.
    pub limit: f32,
    /// What terms are of and for.
    pub terms: Option<(Byte, WeightCodes)>,
}

impl SimdKernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Quantize { x, to, limit, terms } = self;
        for (x, to) in x.chunks(TILE).zip(to) {
            // Other cores have read what was here before.
            let lines = (&raw const *to).cast::<u8>();
            (0..size_of::<IntTile>()).step_by(64).for_each(|i| s.prefetch_to_write(lines.wrapping_add(i)));
            quantize(s, x.as_chunks().0, limit, to);
            if let Some((bytes, weights)) = terms {
                to.terms = Terms::of(to, bytes, weights);
            }
        }
    }
}

/// Quantizes up to [`TILE`] values.
#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[[f32; CHUNK]], limit: f32, to: &mut IntTile) {
    let (mut scales, mut wide) = ([0.0; TILE / CHUNK], 0);
    let mut sums = [[0.0; TILE / CHUNK * 2]; 2];
    // Codes are summed up while registers hold them: what was written in small parts is slow to read as a whole.
    for (g, x) in x.chunks(CHUNKS).enumerate() {
        let mut folded = [[s.splat(0.0); CHUNKS / 2]; 2];
        for (i, x) in x.chunks(2).enumerate() {
            let mut codes = [[s.splat(0.0); 4]; 2];
            for j in 0..2 {
                let Some(x) = x.get(j) else { continue };
                let b = CHUNKS * g + 2 * i + j;
                let (high, low) = (&mut to.high[8 * b..][..8], &mut to.low[8 * b..][..8]);
                let (scale, is_wide, [high, low]) =
                    codes_of(s, x, limit, high.as_flattened_mut(), low.as_flattened_mut());
                (scales[b], wide) = (scale, wide | u16::from(is_wide) << b);
                for h in 0..2 {
                    (codes[0][2 * j + h], codes[1][2 * j + h]) = (high[h], low[h]);
                }
            }
            folded[0][i] = s.fold(codes[0]);
            folded[1][i] = s.fold(codes[1]);
        }
        for (sums, folded) in sums.iter_mut().zip(folded) {
            s.store(s.fold_across(folded), array_mut(sums, 2 * CHUNKS * g));
        }
    }
    (to.scales, to.wide) = (scales, wide);
    let (of_both, of_low) = (to.sums.as_flattened_mut(), to.low_sums.as_flattened_mut());
    for (i, (both, low)) in of_both.iter_mut().zip(of_low).enumerate() {
        *low = whole(sums[1][i]);
        *both = 256 * whole(sums[0][i]) + *low;
    }
}

/// Chunks whose sums fill a vector.
const CHUNKS: usize = 8;

/// Quantizes one chunk: gives its scale, whether it has low bytes, and both bytes' codes.
#[inline(always)]
fn codes_of<S: Simd>(
    s: S,
    x: &[f32; CHUNK],
    limit: f32,
    high: &mut [i8],
    low: &mut [i8],
) -> (f32, bool, [[S::Floats; 2]; 2]) {
    // What rounding leaves is at most half; 128 would be out of range, and 127 is off by a 65,000th of the largest value.
    let (top, bottom) = (s.splat(127.0), s.splat(-127.0));
    let halves = [s.floats(array(x, 0)), s.floats(array(x, 16))];
    let amax = s.amax(halves[0], halves[1]);
    // The inverse of less would overflow; such a chunk is as good as zero.
    let inverse = s.splat(if amax > 1e-36 { 127.0 / amax } else { 0.0 });
    let wide = amax > limit;
    let mut codes = [[s.splat(0.0); 2]; 2];
    for (h, v) in halves.into_iter().enumerate() {
        let v = s.mul(v, inverse);
        s.store_i8(v, array_mut(high, 16 * h));
        codes[0][h] = s.widen_i8(array(high, 16 * h));
        if wide {
            let rest = s.mul(s.sub(v, codes[0][h]), s.splat(256.0));
            s.store_i8(s.max(s.min(rest, top), bottom), array_mut(low, 16 * h));
            codes[1][h] = s.widen_i8(array(low, 16 * h));
        } else {
            low[16 * h..16 * h + 16].fill(0);
        }
    }
    (amax / (127.0 * 256.0), wide, codes)
}

/// A whole number below 2²² as an integer: `as` saturates, for which compilers have no vectors.
#[inline(always)]
fn whole(v: f32) -> i32 {
    const UNIT: f32 = (3 << 22) as f32;
    (v + UNIT).to_bits() as i32 - UNIT.to_bits() as i32
}
