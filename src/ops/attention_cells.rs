//! The vector kernels of attention on the CPU: scores of queries with cells of the cache, and sums of values by scores.

use crate::base::{DType, View};
use crate::quant;
use crate::simd::{Kernel, Level, Simd, array, array_mut};
use bytemuck::Pod;
use std::ops::Range;

/// Cells of a part: their scores fit the caches.
pub(super) const PART: usize = 512;
/// Cells read at a time, and channels in a vector.
pub(super) const BLOCK: usize = 16;
/// Queries that meet a block at a time; their number is rounded up to it.
pub(super) const ROWS: usize = 4;

/// Some cells of a part.
pub(super) struct Place {
    /// The cells.
    pub cells: Range<usize>,
    /// The part's first cell.
    pub start: usize,
    /// Queries of each kv head.
    pub rows: usize,
    /// The kv heads.
    pub kvs: Range<usize>,
}

impl Place {
    /// Blocks begin at multiples of their size, so that no sum depends on which tokens go together.
    fn blocks(&self) -> impl Iterator<Item = usize> + use<> {
        (self.cells.start / BLOCK * BLOCK..self.cells.end).step_by(BLOCK)
    }

    /// The cell that stands for place `j` of a block, counted from the first: beyond the ends one that is there, for its
    /// score does not count.
    #[inline(always)]
    fn row(&self, block: usize, j: usize) -> usize {
        (block + j).clamp(self.cells.start, self.cells.end - 1) - self.cells.start
    }
}

/// How many cells are fetched ahead.
const AHEAD: usize = 4 * BLOCK;

/// A number as the cache holds it.
trait Number: Pod {
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
struct Rows<'a, T> {
    data: &'a [T],
    /// Numbers from one cell to the next.
    stride: usize,
    /// Channels of a head.
    width: usize,
}

impl<T: Number> Rows<'_, T> {
    /// Channels `c` … `c + 15` of head `head` of row `row`.
    #[inline(always)]
    fn load<S: Simd>(self, s: S, row: usize, head: usize, c: usize) -> S::Floats {
        T::widen(s, array(self.data, row * self.stride + head * self.width + c))
    }

    /// Brings the row [`AHEAD`] rows on near: rows of one head lie too far apart for the hardware to see it coming.
    #[inline(always)]
    fn fetch<S: Simd>(self, s: S, row: usize, head: usize) {
        let start = (row + AHEAD) * self.stride + head * self.width;
        for c in (0..self.width).step_by(64 / size_of::<T>()) {
            s.prefetch(bytemuck::cast_slice(self.data.get(start + c..).unwrap_or_default()));
        }
    }
}

/// Decodes heads `kvs` of some cells, to rows of heads whose length is a multiple of [`BLOCK`].
fn decode<'a>(cache: &View, cells: &Range<usize>, kvs: &Range<usize>, out: &'a mut Vec<f32>) -> Rows<'a, f32> {
    let (kv_heads, n) = (cache.meta.shape[1], cache.meta.shape[2]);
    let bytes = |values: usize| cache.meta.dtype.row_bytes(values).expect("heads are whole blocks");
    let width = n.next_multiple_of(BLOCK);
    out.clear();
    out.resize(cells.len() * kvs.len() * width, 0.0);
    let heads = cells.clone().flat_map(|cell| kvs.clone().map(move |kv| (cell, kv)));
    for ((cell, kv), out) in heads.zip(out.chunks_mut(width)) {
        quant::decode(cache.meta.dtype, &cache.data[bytes((cell * kv_heads + kv) * n)..][..bytes(n)], &mut out[..n]);
    }
    Rows { data: out, stride: kvs.len() * width, width }
}

/// Calls `$run` with the rows of some heads of a cache.
macro_rules! with_rows {
    ($cache:expr, $place:expr, $cells:expr, $run:expr) => {{
        let (kv_heads, n) = ($cache.meta.shape[1], $cache.meta.shape[2]);
        let (first, stride) = (($place.cells.start * kv_heads + $place.kvs.start) * n, kv_heads * n);
        match $cache.meta.dtype {
            DType::F16 if n.is_multiple_of(BLOCK) => {
                $run(Rows { data: &bytemuck::cast_slice::<u8, [u8; 2]>($cache.data)[first..], stride, width: n })
            }
            DType::F32 if n.is_multiple_of(BLOCK) => {
                $run(Rows { data: &bytemuck::cast_slice::<u8, f32>($cache.data)[first..], stride, width: n })
            }
            _ => $run(decode($cache, &$place.cells, &$place.kvs, $cells)),
        }
    }};
}

/// Scores of all queries with the cells: `scores[row * PART + cell - start]`.
pub(super) fn score(
    cache: &View,
    place: &Place,
    cells: &mut Vec<f32>,
    (q, dim): (&[f32], usize),
    turned: &mut [f32],
    scores: &mut [f32],
) {
    with_rows!(cache, place, cells, |keys| Level::best().run(Score { keys, place, q, dim, turned, scores }));
}

/// y `[rows, width]` = scores · cells.
pub(super) fn weigh(
    cache: &View,
    place: &Place,
    cells: &mut Vec<f32>,
    scores: &[f32],
    (y, width): (&mut [f32], usize),
) {
    with_rows!(cache, place, cells, |values| Level::best().run(Weigh { values, place, scores, y, width }));
}

struct Score<'a, T> {
    keys: Rows<'a, T>,
    place: &'a Place,
    q: &'a [f32],
    dim: usize,
    turned: &'a mut [f32],
    scores: &'a mut [f32],
}

impl<T: Number> Kernel for Score<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Score { keys, place, q, dim, turned, scores } = self;
        for block in place.blocks() {
            for head in 0..place.kvs.len() {
                for c in (0..dim).step_by(BLOCK) {
                    let mut square = [s.splat(0.0); BLOCK];
                    for (j, row) in square.iter_mut().enumerate() {
                        *row = keys.load(s, place.row(block, j), head, c);
                    }
                    for (j, column) in s.transpose(square).into_iter().enumerate() {
                        s.store(column, array_mut(turned, (c + j) * BLOCK));
                    }
                }
                for j in 0..BLOCK {
                    keys.fetch(s, place.row(block, j), head);
                }
                let rows = head * place.rows..(head + 1) * place.rows;
                let q = &q[rows.start * dim..rows.end * dim];
                score_block(s, turned.as_chunks().0, q, dim, &mut scores[rows.start * PART + block - place.start..]);
            }
        }
    }
}

/// Scores of some queries with sixteen cells, turned: `scores[row * PART ..][.. 16]`.
#[inline(always)]
fn score_block<S: Simd>(s: S, keys: &[[f32; BLOCK]], q: &[f32], dim: usize, scores: &mut [f32]) {
    for (i, q) in q.chunks_exact(ROWS * dim).enumerate() {
        let mut sums = [s.splat(0.0); ROWS];
        let (a, rest) = q.split_at(dim);
        let (b, rest) = rest.split_at(dim);
        let (c, d) = rest.split_at(dim);
        for ((((k, a), b), c), d) in keys[..dim].iter().zip(a).zip(b).zip(c).zip(d) {
            let k = s.floats(k);
            sums[0] = s.mul_add(k, s.splat(*a), sums[0]);
            sums[1] = s.mul_add(k, s.splat(*b), sums[1]);
            sums[2] = s.mul_add(k, s.splat(*c), sums[2]);
            sums[3] = s.mul_add(k, s.splat(*d), sums[3]);
        }
        for (r, sum) in sums.into_iter().enumerate() {
            s.store(sum, array_mut(scores, (i * ROWS + r) * PART));
        }
    }
}

struct Weigh<'a, T> {
    values: Rows<'a, T>,
    place: &'a Place,
    scores: &'a [f32],
    y: &'a mut [f32],
    width: usize,
}

impl<T: Number> Kernel for Weigh<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Weigh { values, place, scores, y, width } = self;
        for block in place.blocks() {
            for head in 0..place.kvs.len() {
                for j in 0..BLOCK {
                    values.fetch(s, place.row(block, j), head);
                }
                for row in (head * place.rows..(head + 1) * place.rows).step_by(ROWS) {
                    let mut p = [&[0.0; BLOCK]; ROWS];
                    for (r, p) in p.iter_mut().enumerate() {
                        *p = array(scores, (row + r) * PART + block - place.start);
                    }
                    let (y, at) = (&mut y[row * width..], (place, block, head));
                    let mut c = 0;
                    while c + 2 * BLOCK <= width {
                        weigh_block::<S, T, 2>(s, values, at, p, y, width, c);
                        c += 2 * BLOCK;
                    }
                    if c < width {
                        weigh_block::<S, T, 1>(s, values, at, p, y, width, c);
                    }
                }
            }
        }
    }
}

/// Channels `c` … of a block's cells, `N` vectors of them, for a few queries.
#[inline(always)]
fn weigh_block<S: Simd, T: Number, const N: usize>(
    s: S,
    values: Rows<'_, T>,
    (place, block, head): (&Place, usize, usize),
    p: [&[f32; BLOCK]; ROWS],
    y: &mut [f32],
    width: usize,
    c: usize,
) {
    let mut sums = [[s.splat(0.0); N]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = s.floats(array(y, r * width + c + n * BLOCK));
        }
    }
    for j in 0..BLOCK {
        let row = place.row(block, j);
        for n in 0..N {
            let v = values.load(s, row, head, c + n * BLOCK);
            for (sums, p) in sums.iter_mut().zip(p) {
                sums[n] = s.mul_add(v, s.splat(p[j]), sums[n]);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (n, sum) in sums.into_iter().enumerate() {
            s.store(sum, array_mut(y, r * width + c + n * BLOCK));
        }
    }
}
