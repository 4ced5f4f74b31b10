//! Activations, prepared once for all the weight rows that they meet.
//!
//! For quantized weights: int8 codes with one f32 scale per 32 values, for every format, so that one preparation serves
//! weights of mixed formats. (One scale per 256 would suit the super-blocks, but is three times less exact.)
//! For plain weights: the f32 values themselves.

use super::format::format;
use super::tile::{CHUNK, FloatTile, IntTile, STEP, TILE};
use crate::base::DType;
use crate::simd::{Kernel, Level, Simd, array, array_mut};

/// Columns of activations of `k` values each, made ready for weights of some type. Buffers are kept from one
/// [`fill`](Activations::fill) to the next.
#[derive(Debug, Default)]
pub struct Activations {
    k: usize,
    columns: usize,
    quantized: bool,
    /// `[columns, tiles]`, for quantized weights.
    ints: Vec<IntTile>,
    /// `[columns, tiles]`, for plain weights.
    floats: Vec<FloatTile>,
}

impl Activations {
    /// None yet.
    pub const fn new() -> Self {
        Activations { k: 0, columns: 0, quantized: false, ints: Vec::new(), floats: Vec::new() }
    }

    /// Takes `columns` inputs of `k` values, `stride` values apart in `x`, for weights of type `dtype`.
    /// Allocates only where the buffers have never been as large. NaN and infinite values make the results NaN or
    /// infinite. Panics where `x` is too short, or `k` is no multiple of the type's block.
    pub fn fill(&mut self, dtype: DType, x: &[f32], stride: usize, columns: usize, k: usize) {
        self.fill_at(Level::best(), dtype, x, stride, columns, k);
    }

    /// [`fill`](Activations::fill) with the instructions of `level`.
    pub fn fill_at(&mut self, level: Level, dtype: DType, x: &[f32], stride: usize, columns: usize, k: usize) {
        assert!(k.is_multiple_of(format(dtype).dtype.block()), "{k} values are no whole blocks of {dtype}");
        assert!(columns < 2 || stride >= k, "inputs of {k} values lie {stride} apart");
        (self.k, self.columns, self.quantized) = (k, columns, dtype.is_quantized());
        let tiles = k.div_ceil(TILE);
        if self.quantized {
            self.ints.resize(columns * tiles, IntTile::ZERO);
        } else {
            self.floats.resize(columns * tiles, FloatTile::ZERO);
        }
        for c in 0..columns {
            for (t, x) in x[c * stride..c * stride + k].chunks(TILE).enumerate() {
                if self.quantized {
                    level.run(Quantize { x, to: &mut self.ints[c * tiles + t] });
                } else {
                    let (to, pad) = self.floats[c * tiles + t].0.as_flattened_mut().split_at_mut(x.len());
                    to.copy_from_slice(x);
                    pad.fill(0.0);
                }
            }
        }
    }

    /// Number of inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values per input.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Whether these activations fit weights of this type.
    pub fn suits(&self, dtype: DType) -> bool {
        dtype.is_quantized() == self.quantized
    }

    /// Tile `t` of a column, for quantized weights.
    #[inline(always)]
    pub(super) fn ints(&self, column: usize, t: usize) -> &IntTile {
        &self.ints[column * self.k.div_ceil(TILE) + t]
    }

    /// Tile `t` of a column, for plain weights.
    #[inline(always)]
    pub(super) fn floats(&self, column: usize, t: usize) -> &FloatTile {
        &self.floats[column * self.k.div_ceil(TILE) + t]
    }
}

/// Quantizes up to [`TILE`] values, a multiple of [`CHUNK`].
struct Quantize<'a> {
    x: &'a [f32],
    to: &'a mut IntTile,
}

impl Kernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Quantize { x, to } = self;
        let codes = to.codes.as_flattened_mut().as_chunks_mut::<CHUNK>().0;
        let scales = to.scales.as_flattened_mut();
        let sums = to.sums.as_flattened_mut().as_chunks_mut::<2>().0;
        let bias = to.bias.as_flattened_mut().as_chunks_mut::<8>().0;
        let (x, _) = x.as_chunks::<CHUNK>();
        for (b, x) in x.iter().enumerate() {
            let (lo, hi) = (s.floats(array(x, 0)), s.floats(array(x, 16)));
            let amax = s.amax(lo, hi);
            // The inverse of less would overflow; such a chunk is as good as zero.
            let inverse = s.splat(if amax > 1e-36 { 127.0 / amax } else { 0.0 });
            s.store_i8(s.mul(lo, inverse), array_mut(&mut codes[b], 0));
            s.store_i8(s.mul(hi, inverse), array_mut(&mut codes[b], 16));
            scales[b] = amax / 127.0;
            for (bias, four) in bias[b].iter_mut().zip(codes[b].as_chunks::<4>().0) {
                *bias = -128 * four.iter().map(|&v| v as i32).sum::<i32>();
            }
            for (sum, bias) in sums[b].iter_mut().zip(bias[b].as_chunks::<4>().0) {
                *sum = scales[b] * (bias.iter().sum::<i32>() / -128) as f32;
            }
        }
        codes[x.len()..].fill([0; CHUNK]);
        scales[x.len()..].fill(0.0);
        sums[x.len()..].fill([0.0; 2]);
        bias[x.len()..].fill([0; STEP / 8]);
    }
}
