//! Activations, prepared once for all the weight rows that they meet.
//!
//! For quantized weights: int8 codes with one f32 scale per 32 values, for every format, so that one preparation serves
//! weights of mixed formats. (One scale per 256 would suit the super-blocks, but is three times less exact.) What the codes
//! leave over is quantized once more, as a second plane: 15 bits in all. One plane alone moves the mean log-likelihood of
//! SmolLM2-135M on short texts by up to 1.6 %, and changes its best token where two are close; two planes by 0.02 %.
//! For plain weights: the f32 values themselves.

use super::format::format;
use super::tile::{CHUNK, FloatTile, IntTile, STEP, TILE};
use crate::base::DType;
use crate::simd::{Kernel, Level, Simd, array, array_mut};

/// How exactly activations are kept for quantized weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// Two planes of int8: as exact as the weights deserve, for twice the arithmetic.
    #[default]
    Fine,
    /// One plane of int8.
    Fast,
}

impl Precision {
    fn planes(self) -> usize {
        match self {
            Precision::Fine => 2,
            Precision::Fast => 1,
        }
    }
}

/// Columns of activations of `k` values each, made ready for weights of some type. Buffers are kept from one
/// [`fill`](Activations::fill) to the next.
#[derive(Debug, Default)]
pub struct Activations {
    k: usize,
    columns: usize,
    quantized: bool,
    planes: usize,
    /// `[planes, columns, tiles]`, for quantized weights.
    ints: Vec<IntTile>,
    /// `[columns, tiles]`, for plain weights.
    floats: Vec<FloatTile>,
}

impl Activations {
    /// None yet.
    pub const fn new() -> Self {
        Activations { k: 0, columns: 0, quantized: false, planes: 1, ints: Vec::new(), floats: Vec::new() }
    }

    /// Takes `columns` inputs of `k` values, `stride` values apart in `x`, for weights of type `dtype`.
    /// Allocates only where the buffers have never been as large. NaN and infinite values make the results NaN or
    /// infinite. Panics where `x` is too short, or `k` is no multiple of the type's block.
    pub fn fill(&mut self, dtype: DType, x: &[f32], stride: usize, columns: usize, k: usize) {
        self.fill_at((Level::best(), Precision::Fine), dtype, x, stride, columns, k);
    }

    /// [`fill`](Activations::fill) with the instructions of `level` and less `precision`.
    pub fn fill_at(
        &mut self,
        (level, precision): (Level, Precision),
        dtype: DType,
        x: &[f32],
        stride: usize,
        columns: usize,
        k: usize,
    ) {
        assert!(k.is_multiple_of(format(dtype).dtype.block()), "{k} values are no whole blocks of {dtype}");
        assert!(columns < 2 || stride >= k, "inputs of {k} values lie {stride} apart");
        (self.k, self.columns, self.quantized) = (k, columns, dtype.is_quantized());
        self.planes = if self.quantized { precision.planes() } else { 1 };
        let tiles = k.div_ceil(TILE);
        if self.quantized {
            self.ints.resize(self.planes * columns * tiles, IntTile::ZERO);
        } else {
            self.floats.resize(columns * tiles, FloatTile::ZERO);
        }
        for c in 0..columns {
            for (t, x) in x[c * stride..c * stride + k].chunks(TILE).enumerate() {
                if self.quantized {
                    self.quantize(level, x, c * tiles + t, columns * tiles);
                } else {
                    let (to, pad) = self.floats[c * tiles + t].0.as_flattened_mut().split_at_mut(x.len());
                    to.copy_from_slice(x);
                    pad.fill(0.0);
                }
            }
        }
    }

    /// Quantizes the values of tile `at`; each plane, `plane` tiles after the one before, holds what that one left over.
    fn quantize(&mut self, level: Level, x: &[f32], at: usize, plane: usize) {
        level.run(Quantize { x, to: &mut self.ints[at] });
        let mut rest = [0.0; TILE];
        let rest = &mut rest[..x.len()];
        rest.copy_from_slice(x);
        for p in 1..self.planes {
            level.run(Subtract { from: rest, tile: &self.ints[at + (p - 1) * plane] });
            level.run(Quantize { x: rest, to: &mut self.ints[at + p * plane] });
        }
    }

    /// Planes that add up to a column.
    #[inline(always)]
    pub(super) fn planes(&self) -> usize {
        self.planes
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

    /// Tile `t` of a column's plane, for quantized weights.
    #[inline(always)]
    pub(super) fn ints(&self, plane: usize, column: usize, t: usize) -> &IntTile {
        &self.ints[(plane * self.columns + column) * self.k.div_ceil(TILE) + t]
    }

    /// Tile `t` of a column, for plain weights.
    #[inline(always)]
    pub(super) fn floats(&self, column: usize, t: usize) -> &FloatTile {
        &self.floats[column * self.k.div_ceil(TILE) + t]
    }
}

/// Takes what a tile's codes stand for from the values they were made of.
struct Subtract<'a> {
    from: &'a mut [f32],
    tile: &'a IntTile,
}

impl Kernel for Subtract<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let codes = self.tile.codes.as_flattened().as_chunks::<CHUNK>().0;
        let scales = self.tile.scales.as_flattened();
        for ((x, codes), scale) in self.from.chunks_mut(CHUNK).zip(codes).zip(scales) {
            x.iter_mut().zip(codes).for_each(|(x, code)| *x -= scale * *code as f32);
        }
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
