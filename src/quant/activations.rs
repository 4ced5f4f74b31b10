//! Activations, prepared once for all the weight rows that they meet.
//!
//! For quantized weights: int8 codes with one f32 scale per 32 values, for every format, so that one preparation serves
//! weights of mixed formats. (Scales per 256 would suit the super-blocks but are three times less exact.)
//! For plain weights: the f32 values themselves.

use super::format::format;
use crate::base::DType;
use crate::simd::{Kernel, Level, Simd, array, array_mut};

/// How activations are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float,
    Int8,
}

/// Columns of activations of `k` values each, made ready for weights of some type. Buffers are kept from one
/// [`fill`](Activations::fill) to the next.
#[derive(Debug)]
pub struct Activations {
    kind: Kind,
    k: usize,
    padded: usize,
    columns: usize,
    /// `[columns, padded]`, zero from `k` on, as are the codes.
    floats: Vec<f32>,
    /// `[columns, padded]`; never −128.
    codes: Vec<i8>,
    /// `[columns, padded / 32]`: value = scale · code.
    scales: Vec<f32>,
    /// `[columns, padded / 16]`: scale · Σ codes, which meets the weights' mins.
    sums: Vec<f32>,
    /// `[columns, padded / 4]`: −128 · Σ codes, see [`Simd::dot_signed`].
    bias: Vec<i32>,
}

impl Default for Activations {
    fn default() -> Self {
        Self::new()
    }
}

impl Activations {
    /// None yet.
    pub const fn new() -> Self {
        Activations {
            kind: Kind::Float,
            k: 0,
            padded: 0,
            columns: 0,
            floats: Vec::new(),
            codes: Vec::new(),
            scales: Vec::new(),
            sums: Vec::new(),
            bias: Vec::new(),
        }
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
        self.kind = if dtype.is_quantized() { Kind::Int8 } else { Kind::Float };
        self.k = k;
        self.columns = columns;
        self.padded = k.next_multiple_of(256);
        let n = columns * self.padded;
        match self.kind {
            Kind::Float => {
                self.floats.resize(n, 0.0);
                for c in 0..columns {
                    let (to, pad) = self.floats[c * self.padded..][..self.padded].split_at_mut(k);
                    to.copy_from_slice(&x[c * stride..c * stride + k]);
                    pad.fill(0.0);
                }
            }
            Kind::Int8 => {
                self.codes.resize(n, 0);
                self.scales.resize(n / 32, 0.0);
                self.sums.resize(n / 16, 0.0);
                self.bias.resize(n / 4, 0);
                for c in 0..columns {
                    level.run(Quantize { x: &x[c * stride..c * stride + k], column: c, to: self });
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
        dtype.is_quantized() == (self.kind == Kind::Int8)
    }

    #[inline(always)]
    pub(super) fn floats(&self, column: usize) -> &[f32] {
        &self.floats[column * self.padded..][..self.padded]
    }
    #[inline(always)]
    pub(super) fn codes(&self, column: usize) -> &[[i8; 64]] {
        bytemuck::cast_slice(&self.codes[column * self.padded..][..self.padded])
    }
    #[inline(always)]
    pub(super) fn scales(&self, column: usize) -> &[[f32; 2]] {
        bytemuck::cast_slice(&self.scales[column * self.padded / 32..][..self.padded / 32])
    }
    #[inline(always)]
    pub(super) fn sums(&self, column: usize) -> &[[f32; 16]] {
        bytemuck::cast_slice(&self.sums[column * self.padded / 16..][..self.padded / 16])
    }
    #[inline(always)]
    pub(super) fn bias(&self, column: usize) -> &[[i32; 16]] {
        bytemuck::cast_slice(&self.bias[column * self.padded / 4..][..self.padded / 4])
    }
}

/// Quantizes one input.
struct Quantize<'a> {
    x: &'a [f32],
    column: usize,
    to: &'a mut Activations,
}

impl Kernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Quantize { x, column, to } = self;
        let padded = to.padded;
        let codes = &mut to.codes[column * padded..][..padded];
        let scales = &mut to.scales[column * padded / 32..][..padded / 32];
        let sums = &mut to.sums[column * padded / 16..][..padded / 16];
        let bias = &mut to.bias[column * padded / 4..][..padded / 4];
        let blocks = x.len() / 32;
        for b in 0..blocks {
            let (lo, hi) = (s.floats(array(x, 32 * b)), s.floats(array(x, 32 * b + 16)));
            let amax = s.amax(lo, hi);
            let scale = amax / 127.0;
            // Below this the inverse would overflow; such a block is as good as zero.
            let inverse = if amax > 1e-36 { 127.0 / amax } else { 0.0 };
            let inverse = s.splat(inverse);
            s.store_i8(s.mul(lo, inverse), array_mut(codes, 32 * b));
            s.store_i8(s.mul(hi, inverse), array_mut(codes, 32 * b + 16));
            scales[b] = scale;
            for j in 0..2 {
                let mut total = 0;
                for l in 0..4 {
                    let four: &[i8; 4] = array(codes, 32 * b + 16 * j + 4 * l);
                    let sum = four.iter().map(|&v| v as i32).sum::<i32>();
                    bias[8 * b + 4 * j + l] = -128 * sum;
                    total += sum;
                }
                sums[2 * b + j] = scale * total as f32;
            }
        }
        codes[32 * blocks..].fill(0);
        scales[blocks..].fill(0.0);
        sums[2 * blocks..].fill(0.0);
        bias[8 * blocks..].fill(0);
    }
}
