//! One matrix, many writers: safe hand-out of disjoint parts of a `&mut [f32]` to several threads.
//!
//! A block is claimed by its index and can be claimed once, which an atomic bit remembers; so the parts that are out at
//! any time never overlap, and nothing is allocated.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// The most blocks that one matrix is split into.
const MAX_BLOCKS: usize = 256;

/// Which blocks have been handed out.
#[derive(Default)]
struct Claims([AtomicU64; MAX_BLOCKS / 64]);

impl Claims {
    fn claim(&self, i: usize, blocks: usize) {
        assert!(i < blocks, "block {i} of {blocks}");
        let before = self.0[i / 64].fetch_or(1 << (i % 64), Ordering::Relaxed);
        assert_eq!(before >> (i % 64) & 1, 0, "block {i} was taken before");
    }
}

/// A `[rows, stride]` matrix split into blocks of neighbouring columns: each writer gets some columns of every row.
/// The output of a matmul is split so, by output features.
pub struct ColumnBlocks<'a> {
    data: NonNull<f32>,
    rows: usize,
    stride: usize,
    width: usize,
    block: usize,
    claims: Claims,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: shared access only hands out parts that do not overlap (`Claims`), and f32 may be sent to any thread.
unsafe impl Sync for ColumnBlocks<'_> {}
// SAFETY: it stands for the `&mut [f32]` that it was made from, which is Send.
unsafe impl Send for ColumnBlocks<'_> {}

impl<'a> ColumnBlocks<'a> {
    /// Splits the first `width` columns of `rows` rows, `stride` values apart, into blocks of `block` columns (the last
    /// may be narrower). Panics if `data` is too short, or for more than 256 blocks.
    pub fn new(data: &'a mut [f32], rows: usize, stride: usize, width: usize, block: usize) -> Self {
        assert!(width <= stride && block > 0, "{width} columns of {stride} in blocks of {block}");
        let need = rows.checked_sub(1).map_or(Some(0), |r| r.checked_mul(stride)?.checked_add(width));
        assert!(need.is_some_and(|need| data.len() >= need), "{rows} rows of {stride} in {} values", data.len());
        assert!(width.div_ceil(block) <= MAX_BLOCKS, "{width} columns in blocks of {block}: more than {MAX_BLOCKS}");
        let data = NonNull::from(data).cast();
        ColumnBlocks { data, rows, stride, width, block, claims: Claims::default(), life: PhantomData }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.width.div_ceil(self.block)
    }

    /// Whether there are no columns.
    pub fn is_empty(&self) -> bool {
        self.width == 0
    }

    /// Takes block `i`. Panics if it was taken before.
    pub fn take(&self, i: usize) -> Columns<'_> {
        self.claims.claim(i, self.len());
        let start = i * self.block;
        let range = start..(start + self.block).min(self.width);
        Columns { data: self.data, rows: self.rows, stride: self.stride, range, life: PhantomData }
    }
}

/// Some neighbouring columns of every row of a matrix, to be written.
pub struct Columns<'a> {
    data: NonNull<f32>,
    rows: usize,
    stride: usize,
    range: Range<usize>,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is the only access to its columns (see `ColumnBlocks::take`), like a `&mut [f32]`.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All `width` columns of a `[rows, stride]` matrix, for a single writer.
    pub fn whole(data: &'a mut [f32], rows: usize, stride: usize, width: usize) -> Self {
        let all = ColumnBlocks::new(data, rows, stride, width, width.max(1));
        Columns { data: all.data, rows, stride, range: 0..width, life: PhantomData }
    }

    /// Number of rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Which columns of the matrix these are.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// These columns of one row.
    #[inline]
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: in bounds by `ColumnBlocks::new` (row < rows, range.end ≤ width); nobody else has these columns, and
        // `&mut self` keeps the slices of one `Columns` from overlapping in time.
        unsafe {
            let start = self.data.add(row * self.stride + self.range.start);
            std::slice::from_raw_parts_mut(start.as_ptr(), self.range.len())
        }
    }
}

/// A slice split into blocks of equal length: each writer gets neighbouring values, such as whole rows.
pub struct RowBlocks<'a> {
    data: NonNull<f32>,
    len: usize,
    block: usize,
    claims: Claims,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: as for `ColumnBlocks`.
unsafe impl Sync for RowBlocks<'_> {}
// SAFETY: as for `ColumnBlocks`.
unsafe impl Send for RowBlocks<'_> {}

impl<'a> RowBlocks<'a> {
    /// Splits `data` into blocks of `block` values (the last may be shorter). Panics for more than 256 blocks.
    pub fn new(data: &'a mut [f32], block: usize) -> Self {
        let len = data.len();
        assert!(block > 0 && len.div_ceil(block) <= MAX_BLOCKS, "{len} values in blocks of {block}");
        RowBlocks { data: NonNull::from(data).cast(), len, block, claims: Claims::default(), life: PhantomData }
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.len.div_ceil(self.block)
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes block `i`. Panics if it was taken before.
    #[allow(clippy::mut_from_ref)] // each block is handed out once
    pub fn take(&self, i: usize) -> &mut [f32] {
        self.claims.claim(i, self.len());
        let start = i * self.block;
        let len = self.block.min(self.len - start);
        // SAFETY: in bounds, and no other slice covers this block, since it can be claimed only once.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start).as_ptr(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_write_their_columns() {
        let mut data = vec![-1.0; 3 * 10];
        let blocks = ColumnBlocks::new(&mut data, 3, 10, 9, 4);
        std::thread::scope(|scope| {
            for i in 0..blocks.len() {
                let blocks = &blocks;
                scope.spawn(move || {
                    let mut columns = blocks.take(i);
                    for row in 0..columns.rows() {
                        let start = columns.range().start;
                        for (j, v) in columns.row(row).iter_mut().enumerate() {
                            *v = (100 * row + start + j) as f32;
                        }
                    }
                });
            }
        });
        for (i, &v) in data.iter().enumerate() {
            let (row, column) = (i / 10, i % 10);
            assert_eq!(v, if column < 9 { (100 * row + column) as f32 } else { -1.0 });
        }
    }

    #[test]
    fn threads_write_their_rows() {
        let mut data = vec![0.0; 11];
        let blocks = RowBlocks::new(&mut data, 4);
        std::thread::scope(|scope| {
            for i in 0..blocks.len() {
                let blocks = &blocks;
                scope.spawn(move || blocks.take(i).fill(i as f32));
            }
        });
        assert_eq!(data, [0., 0., 0., 0., 1., 1., 1., 1., 2., 2., 2.]);
    }

    #[test]
    #[should_panic(expected = "was taken before")]
    fn a_block_is_taken_once() {
        let mut data = vec![0.0; 8];
        let blocks = ColumnBlocks::new(&mut data, 2, 4, 4, 2);
        let _a = blocks.take(1);
        let _b = blocks.take(1);
    }

    #[test]
    #[should_panic(expected = "rows of")]
    fn a_short_slice_is_refused() {
        ColumnBlocks::new(&mut [0.0; 7], 2, 4, 4, 2);
    }

    #[test]
    fn a_last_row_may_end_early() {
        let mut data = [0.0; 7];
        Columns::whole(&mut data, 2, 4, 3).row(1).fill(1.0);
        assert_eq!(data, [0., 0., 0., 0., 1., 1., 1.]);
    }
}
