//! What a format has to give, and the table entry made of it.

use super::activations::Activations;
use super::dot::Matrix;
use super::panel::{self, Parts, Scales};
use super::tile::{ROWS, WeightCodes};
use super::{FORMATS, dot_blocks, dot_plain, gpu, lookup};
use crate::base::DType;
use crate::simd::{Columns, Level, Simd};
use bytemuck::Pod;
use std::ops::Range;

/// How many planes a GPU layout has at most.
pub(super) const MAX_PLANES: usize = 4;

/// A block format: several weights share scales.
pub(super) trait Block: 'static {
    /// The type.
    const DTYPE: DType;
    /// Bits of a code: 2, 3, 4, 5, 6 or 8.
    const BITS: usize;
    /// The code that stands for zero; 0 if there are minima or codes are signed.
    const ZERO: i32 = 0;
    /// What a code of four bits stands for, if not for itself.
    const TABLE: Option<[i8; 16]> = None;
    /// Whether codes, or what they stand for, are signed. Otherwise they are at most 127.
    const SIGNED: bool = false;
    /// How scales are stored.
    const SCALES: Scales;
    /// Whether each 16 weights have a scale of their own. Otherwise each 32.
    const HALVES: bool = false;
    /// Bytes per block of each plane of the GPU layout.
    const PLANES: [usize; MAX_PLANES];
    /// One block as it lies in a file: bytes only, so without alignment.
    type Raw: Pod;

    /// The block's weights, bit-exactly.
    fn decode(b: &Self::Raw, out: &mut [f32]);
    /// The block nearest to `x`.
    fn encode(x: &[f32]) -> Self::Raw;
    /// The block taken apart, for [`super::panel`].
    fn unpack(b: &Self::Raw, to: &mut Parts);
    /// Writes the block's part of each plane.
    fn planes(b: &Self::Raw, out: [&mut [u8]; MAX_PLANES]);
}

/// A plain type: one number per weight.
pub(super) trait Plain: 'static {
    /// The type.
    const DTYPE: DType;
    /// Its bytes; an array of bytes, so without alignment.
    type Raw: Pod;
    /// As f32, exactly.
    fn widen(v: Self::Raw) -> f32;
    /// The nearest value.
    fn narrow(v: f32) -> Self::Raw;
    /// Sixteen values at once. Must be `#[inline(always)]`.
    fn widen16<S: Simd>(s: S, v: &[Self::Raw; 16]) -> S::Floats;
}

/// How a format makes its panels.
pub(super) struct Panels {
    /// Bytes of one whose rows have so many weights.
    pub bytes: fn(usize) -> usize,
    /// See [`panel::pack`].
    pub pack: fn(&[u8], usize, &mut [u8]),
    /// One row of a panel as f32.
    pub row: fn(&[u8], usize, &mut [f32]),
    /// What activations must know of them.
    pub weights: fn(Level) -> WeightCodes,
}

/// What the table holds of a format.
pub(super) struct Format {
    pub dtype: DType,
    pub decode: fn(&[u8], &mut [f32]),
    pub encode: fn(&[f32], &mut [u8]),
    pub dot: fn(Level, &Matrix<'_>, Range<usize>, &Activations, &mut Columns<'_>),
    pub panels: Panels,
    pub planes: [usize; MAX_PLANES],
    pub gpu: fn(&[u8], usize, usize, &mut [u32]),
}

impl Format {
    pub const fn block<F: Block>() -> Format {
        Format {
            dtype: F::DTYPE,
            decode: |bytes, out| {
                for (b, out) in bytemuck::cast_slice(bytes).iter().zip(out.chunks_exact_mut(F::DTYPE.block())) {
                    F::decode(b, out);
                }
            },
            encode: |src, bytes| {
                let blocks: &mut [F::Raw] = bytemuck::cast_slice_mut(bytes);
                for (x, b) in src.chunks_exact(F::DTYPE.block()).zip(blocks) {
                    *b = F::encode(x);
                }
            },
            dot: dot_blocks::dot::<F>,
            panels: Panels {
                bytes: panel::panel_bytes::<F>,
                pack: panel::pack::<F>,
                row: lookup::row::<F>,
                weights: panel::weights::<F>,
            },
            planes: F::PLANES,
            gpu: gpu::layout_blocks::<F>,
        }
    }

    pub const fn plain<F: Plain>() -> Format {
        Format {
            dtype: F::DTYPE,
            decode: |bytes, out| {
                for (v, out) in bytes.chunks_exact(size_of::<F::Raw>()).zip(out) {
                    *out = F::widen(bytemuck::pod_read_unaligned(v));
                }
            },
            encode: |src, bytes| {
                for (x, out) in src.iter().zip(bytes.chunks_exact_mut(size_of::<F::Raw>())) {
                    out.copy_from_slice(bytemuck::bytes_of(&F::narrow(*x)));
                }
            },
            dot: dot_plain::dot::<F>,
            panels: Panels {
                bytes: |k| ROWS * k * size_of::<F::Raw>(),
                pack: dot_plain::pack,
                row: dot_plain::row::<F>,
                weights: |_| WeightCodes { zero: 0, halves: false },
            },
            planes: [32 * size_of::<F::Raw>(), 0, 0, 0],
            gpu: gpu::layout_plain,
        }
    }
}

/// The table's entry. Panics for a type that is not supported: loading refuses those.
pub(super) fn format(dtype: DType) -> &'static Format {
    FORMATS.iter().find(|f| f.dtype == dtype).unwrap_or_else(|| panic!("no code for weights of type {dtype}"))
}
