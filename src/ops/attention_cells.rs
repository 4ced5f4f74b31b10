//! The vector kernels of attention on the CPU: scores of queries with cells of the cache, and sums of values by scores.
#![allow(clippy::needless_range_loop)] // r, n and j index several arrays at once

use super::places::PAGE_CELLS;
use crate::base::{Meta, View};
use crate::quant;
use crate::simd::{Level, Simd, SimdKernel, array, array_mut};
use bytemuck::Pod;
use std::ops::Range;

/// Cells of a part: their scores fit the caches.
pub(super) const PART: usize = 512;
/// From the scores of one query to those of the next: a power of two apart they would drive each other out of the first-level cache.
pub(super) const STRIDE: usize = PART + BLOCK;
/// Cells read at a time, and channels in a vector.
pub(super) const BLOCK: usize = 16;
/// Queries that meet a block at a time; their number is rounded up to it.
pub(super) const ROWS: usize = 4;
/// As many as keep both units for products busy: their number times the latency.
const MANY: usize = 8;
const _: () = assert!(MANY.is_multiple_of(ROWS) && PAGE_CELLS.is_multiple_of(BLOCK) && PART.is_multiple_of(PAGE_CELLS));

/// Some cells of a part of one sequence.
#[derive(Clone)]
pub(super) struct Place<'a> {
    /// The cells, counted along the sequence.
    pub cells: Range<usize>,
    /// The sequence's pages; `None` for cells that lie in order, from the first of [`cells`](Self::cells) on.
    pub table: Option<&'a [u32]>,
    /// The part's first cell.
    pub start: usize,
    /// Queries of each kv head.
    pub rows: usize,
    /// The kv heads.
    pub kvs: Range<usize>,
    /// What is read after these cells, if that is known.
    pub next: Option<&'a Next<'a>>,
}

/// Cells of a cache that are read soon.
pub(super) struct Next<'a> {
    cache: View<'a>,
    place: Place<'a>,
}

/// Up to sixteen rows that are read so much later that it is time to fetch them: of the cache that is read now, or of the `next`.
pub(super) struct Ahead<'a> {
    row: usize,
    count: usize,
    next: Option<&'a Next<'a>>,
}

impl<'a> Next<'a> {
    pub fn new(cache: &View<'a>, place: &Place<'a>) -> Self {
        Next { cache: *cache, place: Place { next: None, ..place.clone() } }
    }

    /// Brings a head of a row near.
    #[inline(always)]
    fn fetch<S: Simd>(&self, s: S, row: usize, head: usize) {
        let Meta { shape, dtype, .. } = self.cache.meta;
        let width = shape[2] / dtype.block() * dtype.block_bytes();
        let start = (row * shape[1] + self.place.kvs.start + head) * width;
        (0..width).step_by(64).for_each(|i| s.prefetch(self.cache.data.as_ptr().wrapping_add(start + i)));
    }
}

impl Place<'_> {
    /// Blocks begin at multiples of their size, so that no sum depends on which tokens go together.
    pub fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        (self.cells.start / BLOCK * BLOCK..self.cells.end).step_by(BLOCK)
    }

    /// The rows of the cache that stand for the places of a block: beyond the ends one that is there, for its score does not count.
    #[inline(always)]
    pub fn rows(&self, block: usize) -> [usize; BLOCK] {
        let whole = block >= self.cells.start && block + BLOCK <= self.cells.end;
        if whole {
            let first = self.row(block);
            return std::array::from_fn(|j| first + j);
        }
        std::array::from_fn(|j| self.row((block + j).clamp(self.cells.start, self.cells.end - 1)))
    }

    #[inline(always)]
    fn row(&self, cell: usize) -> usize {
        match self.table {
            Some(table) => table[cell / PAGE_CELLS] as usize * PAGE_CELLS + cell % PAGE_CELLS,
            None => cell - self.cells.start,
        }
    }

    /// What is to be fetched when a block is read: the fourth after it, here or of what follows.
    #[inline(always)]
    pub fn ahead(&self, block: usize) -> Ahead<'_> {
        let of = |place: &Place, cell: usize| match cell < place.cells.end {
            true => (place.row(cell.max(place.cells.start)), BLOCK.min(place.cells.end - cell)),
            false => (0, 0),
        };
        let (cell, end) = (block + AHEAD, self.cells.end.next_multiple_of(BLOCK));
        let ((row, count), next) = match self.next {
            Some(Next { place, .. }) if cell >= end => {
                (of(place, place.cells.start / BLOCK * BLOCK + cell - end), self.next)
            }
            _ => (of(self, cell), None),
        };
        Ahead { row, count, next }
    }
}

/// How many cells are fetched ahead.
const AHEAD: usize = 4 * BLOCK;

/// A number as the cache holds it.
pub(super) trait Number: Pod {
    /// Sixteen of them. Must be `#[inline(always)]`.
    fn widen<S: Simd>(s: S, v: &[Self; BLOCK]) -> S::Floats;
}

impl Number for f32 {
    #[inline(always)]
    fn widen<S: Simd>(s: S, v: &[f32; BLOCK]) -> S::Floats {
        s.floats(v)
    }
}

/// An f16.
impl Number for [u8; 2] {
    #[inline(always)]
    fn widen<S: Simd>(s: S, v: &[[u8; 2]; BLOCK]) -> S::Floats {
        s.widen_f16(bytemuck::cast_ref(v))
    }
}

/// Some heads of some cells, as vectors read them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a, T> {
    data: &'a [T],
    /// Numbers from one cell to the next.
    stride: usize,
    /// Channels of a head.
    width: usize,
}

impl<'a, T: Number> Rows<'a, T> {
    /// Heads of `width` channels, one per cell, `stride` apart.
    pub fn new(data: &'a [T], stride: usize, width: usize) -> Self {
        Rows { data, stride, width }
    }

    /// Channels of a head: a multiple of [`BLOCK`].
    pub fn width(self) -> usize {
        self.width
    }

    /// Channels `c` … `c + 15` of head `head` of row `row`.
    #[inline(always)]
    pub fn load<S: Simd>(self, s: S, row: usize, head: usize, c: usize) -> S::Floats {
        T::widen(s, array(self.data, row * self.stride + head * self.width + c))
    }

    /// All channels of head `head` of row `row`.
    #[inline(always)]
    pub fn head(self, row: usize, head: usize) -> &'a [T] {
        &self.data[row * self.stride + head * self.width..][..self.width]
    }

    /// Brings the `j`-th row of what is read soon near: rows of one head lie too far apart for the hardware to see them coming.
    #[inline(always)]
    pub fn fetch<S: Simd>(self, s: S, ahead: &Ahead, j: usize, head: usize) {
        if j >= ahead.count {
            return;
        }
        if let Some(next) = ahead.next {
            return next.fetch(s, ahead.row + j, head);
        }
        let start = (ahead.row + j) * self.stride + head * self.width;
        for c in (0..self.width).step_by(64 / size_of::<T>()) {
            s.prefetch(self.data.as_ptr().wrapping_add(start + c).cast());
        }
    }
}

/// Decodes heads `kvs` of some cells, to rows of heads whose length is a multiple of [`BLOCK`].
pub(super) fn decode<'a>(cache: &View, place: &Place, out: &'a mut Vec<f32>) -> Rows<'a, f32> {
    let Place { cells, kvs, .. } = place;
    let (kv_heads, n) = (cache.meta.shape[1], cache.meta.shape[2]);
    let bytes = |values: usize| cache.meta.dtype.row_bytes(values).expect("heads are whole blocks");
    let width = n.next_multiple_of(BLOCK);
    out.clear();
    out.resize(cells.len() * kvs.len() * width, 0.0);
    let heads = cells.clone().flat_map(|cell| kvs.clone().map(move |kv| (place.row(cell), kv)));
    for ((cell, kv), out) in heads.zip(out.chunks_mut(width)) {
        quant::decode(cache.meta.dtype, &cache.data[bytes((cell * kv_heads + kv) * n)..][..bytes(n)], &mut out[..n]);
    }
    Rows { data: out, stride: kvs.len() * width, width }
}

/// Calls `$run` with the rows of some heads of a cache, and the place in which they lie in it.
macro_rules! with_rows {
    ($cache:expr, $place:expr, $cells:expr, $run:expr) => {{
        let (kv_heads, n) = ($cache.meta.shape[1], $cache.meta.shape[2]);
        let (first, stride) = ($place.kvs.start * n, kv_heads * n);
        match $cache.meta.dtype {
            $crate::base::DType::F16 if n.is_multiple_of($crate::ops::attention_cells::BLOCK) => {
                let data = &bytemuck::cast_slice::<u8, [u8; 2]>($cache.data)[first..];
                $run($crate::ops::attention_cells::Rows::new(data, stride, n), $place)
            }
            $crate::base::DType::F32 if n.is_multiple_of($crate::ops::attention_cells::BLOCK) => {
                let data = &bytemuck::cast_slice::<u8, f32>($cache.data)[first..];
                $run($crate::ops::attention_cells::Rows::new(data, stride, n), $place)
            }
            _ => {
                let rows = $crate::ops::attention_cells::decode($cache, $place, $cells);
                $run(rows, &$crate::ops::attention_cells::Place { table: None, ..$place.clone() })
            }
        }
    }};
}
pub(super) use with_rows;

/// Scores of all queries with the cells: `scores[row * STRIDE + cell - start]`.
pub(super) fn score(
    cache: &View,
    place: &Place,
    cells: &mut Vec<f32>,
    (q, dim): (&[f32], usize),
    turned: &mut [f32],
    scores: &mut [f32],
) {
    with_rows!(cache, place, cells, |keys, place| Level::best().run(Score { keys, place, q, dim, turned, scores }));
}

/// y `[rows, width]` = scores · cells.
pub(super) fn weigh(
    cache: &View,
    place: &Place,
    cells: &mut Vec<f32>,
    scores: &[f32],
    (y, width): (&mut [f32], usize),
) {
    with_rows!(cache, place, cells, |values, place| Level::best().run(Weigh { values, place, scores, y, width }));
}

struct Score<'a, T> {
    keys: Rows<'a, T>,
    place: &'a Place<'a>,
    q: &'a [f32],
    dim: usize,
    turned: &'a mut [f32],
    scores: &'a mut [f32],
}

impl<T: Number> SimdKernel for Score<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Score { keys, place, q, dim, turned, scores } = self;
        for block in place.blocks() {
            let (cells, ahead) = (place.rows(block), place.ahead(block));
            for head in 0..place.kvs.len() {
                for c in (0..dim).step_by(BLOCK) {
                    let mut square = [s.splat(0.0); BLOCK];
                    for (j, row) in square.iter_mut().enumerate() {
                        *row = keys.load(s, cells[j], head, c);
                    }
                    for (j, column) in s.transpose(square).into_iter().enumerate() {
                        s.store(column, array_mut(turned, (c + j) * BLOCK));
                    }
                }
                for j in 0..BLOCK {
                    keys.fetch(s, &ahead, j, head);
                }
                let rows = head * place.rows..(head + 1) * place.rows;
                let q = &q[rows.start * dim..rows.end * dim];
                score_block(s, turned.as_chunks().0, q, dim, &mut scores[rows.start * STRIDE + block - place.start..]);
            }
        }
    }
}

/// Scores of some queries, as [`pack`] leaves them, with sixteen cells, turned: `scores[row * STRIDE ..][.. 16]`.
#[inline(always)]
fn score_block<S: Simd>(s: S, keys: &[[f32; BLOCK]], q: &[f32], dim: usize, scores: &mut [f32]) {
    let (many, few) = q.split_at(q.len() / (MANY * dim) * MANY * dim);
    for (i, q) in many.chunks_exact(MANY * dim).enumerate() {
        score_rows::<S, MANY>(s, keys, q.as_chunks().0, &mut scores[i * MANY * STRIDE..]);
    }
    for (i, q) in few.chunks_exact(ROWS * dim).enumerate() {
        score_rows::<S, ROWS>(s, keys, q.as_chunks().0, &mut scores[(many.len() / dim + i * ROWS) * STRIDE..]);
    }
}

/// The same, of `R` queries: channel by channel of all of them.
#[inline(always)]
fn score_rows<S: Simd, const R: usize>(s: S, keys: &[[f32; BLOCK]], q: &[[f32; R]], scores: &mut [f32]) {
    let mut sums = [s.splat(0.0); R];
    for (k, q) in keys.iter().zip(q) {
        let k = s.floats(k);
        for r in 0..R {
            sums[r] = s.mul_add(k, s.splat(q[r]), sums[r]);
        }
    }
    for r in 0..R {
        s.store(sums[r], array_mut(scores, r * STRIDE));
    }
}

/// Where channel `c` of query `row` of `rows` lies, which are a multiple of [`ROWS`]: queries that are multiplied together lie
/// interleaved.
pub(super) fn pack(row: usize, rows: usize, c: usize, dim: usize) -> usize {
    let many = rows / MANY * MANY;
    let (start, together) = if row < many { (row / MANY * MANY, MANY) } else { (row / ROWS * ROWS, ROWS) };
    start * dim + c * together + (row - start)
}

struct Weigh<'a, T> {
    values: Rows<'a, T>,
    place: &'a Place<'a>,
    scores: &'a [f32],
    y: &'a mut [f32],
    width: usize,
}

impl<T: Number> SimdKernel for Weigh<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Weigh { values, place, scores, y, width } = self;
        for block in place.blocks() {
            let (rows, ahead) = (place.rows(block), place.ahead(block));
            for head in 0..place.kvs.len() {
                let mut cells = [&values.data[..0]; BLOCK];
                for (j, cell) in cells.iter_mut().enumerate() {
                    values.fetch(s, &ahead, j, head);
                    *cell = values.head(rows[j], head);
                }
                let rows = head * place.rows..(head + 1) * place.rows;
                let mut row = rows.start;
                while row < rows.end {
                    let (scores, y) = (&scores[row * STRIDE + block - place.start..], &mut y[row * width..]);
                    row += match rows.end - row {
                        4.. => weigh_rows::<S, T, 4>(s, &cells, scores, y, width),
                        3 => weigh_rows::<S, T, 3>(s, &cells, scores, y, width),
                        2 => weigh_rows::<S, T, 2>(s, &cells, scores, y, width),
                        _ => weigh_rows::<S, T, 1>(s, &cells, scores, y, width),
                    };
                }
            }
        }
    }
}

/// All channels of a block's cells for `R` queries. Gives `R`.
#[inline(always)]
fn weigh_rows<S: Simd, T: Number, const R: usize>(
    s: S,
    cells: &[&[T]; BLOCK],
    scores: &[f32],
    y: &mut [f32],
    width: usize,
) -> usize {
    let mut p = [&[0.0; BLOCK]; R];
    for (r, p) in p.iter_mut().enumerate() {
        *p = array(scores, r * STRIDE);
    }
    let mut c = 0;
    while c < width {
        c += match (width - c) / BLOCK {
            4.. if S::REGISTERS >= 32 => weigh_block::<S, T, 4, R>(s, cells, p, y, width, c),
            2.. => weigh_block::<S, T, 2, R>(s, cells, p, y, width, c),
            _ => weigh_block::<S, T, 1, R>(s, cells, p, y, width, c),
        };
    }
    R
}

/// Channels `c` … of a block's cells, `N` vectors of them, for `R` queries. Gives their number.
#[inline(always)]
fn weigh_block<S: Simd, T: Number, const N: usize, const R: usize>(
    s: S,
    cells: &[&[T]; BLOCK],
    p: [&[f32; BLOCK]; R],
    y: &mut [f32],
    width: usize,
    c: usize,
) -> usize {
    let mut sums = [[s.splat(0.0); N]; R];
    for r in 0..R {
        for n in 0..N {
            sums[r][n] = s.floats(array(y, r * width + c + n * BLOCK));
        }
    }
    for j in 0..BLOCK {
        let cell = &cells[j][c..c + N * BLOCK];
        for n in 0..N {
            let v = T::widen(s, array(cell, n * BLOCK));
            for r in 0..R {
                sums[r][n] = s.mul_add(v, s.splat(p[r][j]), sums[r][n]);
            }
        }
    }
    for r in 0..R {
        for n in 0..N {
            s.store(sums[r][n], array_mut(y, r * width + c + n * BLOCK));
        }
    }
    N * BLOCK
}
