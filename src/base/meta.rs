//! Shapes, strides and views of tensors. No data is owned here.
//!
//! Shapes are row-major: the last dimension is contiguous, so `[tokens, heads, dim]` is written as it lies in memory
//! (GGUF files list the dimensions the other way round).

use super::{DType, Error, Result};
use std::fmt;

/// The most dimensions a tensor has.
pub const MAX_DIMS: usize = 4;

/// Up to four sizes, row-major, outermost first.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_DIMS],
    rank: u8,
}

impl Shape {
    /// A shape of `dims`. Panics with more than [`MAX_DIMS`]: a caller's bug, since files are checked when read.
    pub fn new(dims: &[usize]) -> Self {
        assert!(dims.len() <= MAX_DIMS, "a shape of {} dimensions; at most {MAX_DIMS}", dims.len());
        let mut all = [1; MAX_DIMS];
        all[..dims.len()].copy_from_slice(dims);
        Shape { dims: all, rank: dims.len() as u8 }
    }

    /// The sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }

    /// Number of values. Shapes from files are checked against overflow when read.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Size of the contiguous dimension (1 for a scalar).
    pub fn row(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Number of rows: everything but the last dimension.
    pub fn rows(&self) -> usize {
        let dims = self.dims();
        dims[..dims.len().saturating_sub(1)].iter().product()
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape::new(&dims)
    }
}

impl std::ops::Index<usize> for Shape {
    type Output = usize;
    fn index(&self, i: usize) -> &usize {
        &self.dims()[i]
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

/// What a tensor is, without its data: type, shape, and the stride of its outermost dimension.
///
/// Inner dimensions are always packed. The outermost may be strided, which is all that views need:
/// the Q part of a fused QKV row, the gate half of a fused gate-up row, the last tokens of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Meta {
    /// Element type.
    pub dtype: DType,
    /// Sizes, row-major.
    pub shape: Shape,
    /// Elements from one entry of the outermost dimension to the next.
    pub stride: usize,
}

impl Meta {
    /// A packed tensor.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let stride = shape.dims().iter().skip(1).product();
        Meta { dtype, shape, stride }
    }

    /// A packed tensor of `f32`.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Meta::new(DType::F32, shape)
    }

    /// Whether nothing lies between the outermost entries.
    pub fn is_packed(&self) -> bool {
        self.shape.dims().first().copied().unwrap_or(1) <= 1 || self.stride == self.packed_stride()
    }

    fn packed_stride(&self) -> usize {
        self.shape.dims().iter().skip(1).product()
    }

    /// Size of the outermost dimension: tokens for activations, output rows for weights.
    pub fn outer(&self) -> usize {
        self.shape.dims().first().copied().unwrap_or(1)
    }

    /// Values in one outermost entry.
    pub fn inner(&self) -> usize {
        self.packed_stride()
    }

    /// Bytes from the first to just past the last value.
    pub fn span_bytes(&self) -> usize {
        if self.shape.elements() == 0 {
            return 0;
        }
        let elements = (self.outer() - 1) * self.stride + self.packed_stride();
        self.dtype.row_bytes(elements).expect("rows are whole blocks")
    }

    /// The same values under another shape. The tensor must be packed, or keep its outermost dimension.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Meta {
        let shape = shape.into();
        assert_eq!(shape.elements(), self.shape.elements(), "reshape {self:?} to {shape:?}");
        let same_outer = shape.dims().first() == self.shape.dims().first();
        assert!(self.is_packed() || same_outer, "reshape of a strided {self:?} must keep its outermost dimension");
        let packed = Meta::new(self.dtype, shape);
        if same_outer { Meta { stride: self.stride, ..packed } } else { packed }
    }

    /// An error naming `op` unless the type is `dtype`.
    pub fn want(&self, op: &str, dtype: DType) -> Result<()> {
        if self.dtype == dtype {
            return Ok(());
        }
        Err(Error::unsupported(format!("{op} wants {dtype}, got {self:?}")))
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape.dims())?;
        if !self.is_packed() {
            write!(f, "/{}", self.stride)?;
        }
        Ok(())
    }
}

/// How the rows of a matrix lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// One after the other, as in a file.
    #[default]
    Rows,
    /// Interleaved for the CPU: see `quant`.
    Packed,
}

/// A tensor's metadata with its bytes.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Type, shape, stride.
    pub meta: Meta,
    /// The bytes, from the first value on; at least [`Meta::span_bytes`] unless they are panels.
    pub data: &'a [u8],
    /// How its rows lie in `data`.
    pub layout: Layout,
}

/// A [`View`] to write into.
pub struct ViewMut<'a> {
    /// Type, shape, stride.
    pub meta: Meta,
    /// The bytes, from the first value on; at least [`Meta::span_bytes`].
    pub data: &'a mut [u8],
}

impl<'a> View<'a> {
    /// A view of `data`; asserts that it is long enough.
    pub fn new(meta: Meta, data: &'a [u8]) -> Self {
        assert!(data.len() >= meta.span_bytes(), "{meta:?} needs {} bytes, has {}", meta.span_bytes(), data.len());
        View { meta, data, layout: Layout::Rows }
    }

    /// No bytes: what stands for a source that is passed in another way.
    pub fn empty(meta: Meta) -> Self {
        View { meta, data: &[], layout: Layout::Rows }
    }

    /// The values as `f32`. Panics for another type or unaligned bytes.
    pub fn f32(&self) -> &'a [f32] {
        assert_eq!(self.meta.dtype, DType::F32);
        bytemuck::cast_slice(&self.data[..self.meta.span_bytes()])
    }

    /// The values as `u32`. Panics for another type or unaligned bytes.
    pub fn u32(&self) -> &'a [u32] {
        assert_eq!(self.meta.dtype, DType::U32);
        bytemuck::cast_slice(&self.data[..self.meta.span_bytes()])
    }

    /// Outermost entry `i` as `f32`: one token's values.
    pub fn row(&self, i: usize) -> &'a [f32] {
        let start = i * self.meta.stride;
        &self.f32()[start..start + self.meta.inner()]
    }

    /// The bytes of outermost entry `i`, for any type.
    pub fn row_bytes(&self, i: usize) -> &'a [u8] {
        let size = |n| self.meta.dtype.row_bytes(n).expect("rows are whole blocks");
        let start = size(self.meta.stride) * i;
        &self.data[start..start + size(self.meta.inner())]
    }
}

impl ViewMut<'_> {
    /// The values as `f32`. Panics for another type or unaligned bytes.
    pub fn f32(&mut self) -> &mut [f32] {
        assert_eq!(self.meta.dtype, DType::F32);
        let n = self.meta.span_bytes();
        bytemuck::cast_slice_mut(&mut self.data[..n])
    }

    /// The values as `u32`. Panics for another type or unaligned bytes.
    pub fn u32(&mut self) -> &mut [u32] {
        assert_eq!(self.meta.dtype, DType::U32);
        let n = self.meta.span_bytes();
        bytemuck::cast_slice_mut(&mut self.data[..n])
    }
}
