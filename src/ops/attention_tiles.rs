//! Attention's products by units for tiles of bf16, where there are some: scores of a prompt's queries with cells of the cache, and sums of
//! values by scores. Each number is split into two of bf16, a = aʰ + aˡ, and a·b ≈ aʰ·bʰ + aˡ·bʰ + aʰ·bˡ: what is left out is 2⁻¹⁶ of it
//! at the most. f16 is split without a rest.
//!
//! A chunk is 32 values along which is multiplied: value i and value i + 16 lie side by side, in both factors, so nothing has to change
//! places. The three products are three tiles each, one after the other: the sum over them is the sum over tiles.
#![allow(clippy::needless_range_loop)] // j and p index several arrays at once

use super::attention_cells::{BLOCK, Number, PART, Place, Rows, STRIDE, with_rows};
use crate::base::View;
use crate::simd::{Level, Simd, SimdKernel, TILE_DEPTH, TILE_ROWS, Tile, TileSums, Tiles, array, array_mut};
use bytemuck::Zeroable;

/// Queries whose products are made together; their number is rounded up to it.
pub(super) const QUERIES: usize = 2 * TILE_ROWS;
/// Values of a chunk: the length of queries is rounded up to it.
pub(super) const CHUNK: usize = TILE_DEPTH;
/// Tiles of a chunk.
const TERMS: usize = 3;
/// Cells whose values are multiplied by scores at a time: with the scores of one group of queries they fit the first-level cache.
const CELLS: usize = 4 * CHUNK;
const _: () = assert!(PART.is_multiple_of(CELLS) && TILE_ROWS == BLOCK && CHUNK == 2 * BLOCK);

/// What a thread works in.
#[derive(Default)]
pub(super) struct Scratch {
    /// Queries or scores.
    acts: Vec<Tile>,
    /// Sixteen cells' keys, or sixteen channels of values, twice.
    panels: [Vec<Tile>; 2],
    sums: Vec<TileSums>,
}

/// Scores of all queries, whose rows are multiples of [`CHUNK`] long, with the cells: `scores[row * STRIDE + cell - start]`.
pub(super) fn score(
    level: Level,
    cache: &View,
    place: &Place,
    cells: &mut Vec<f32>,
    (q, dim): (&[f32], usize),
    scratch: &mut Scratch,
    scores: &mut [f32],
) {
    let unit = level.tiles().expect("a level with tiles");
    with_rows!(cache, place, cells, |keys, place| level.run(Score { unit, keys, place, q, dim, scratch, scores }));
}

/// y `[rows, width]` = scores · cells.
pub(super) fn weigh(
    level: Level,
    cache: &View,
    place: &Place,
    cells: &mut Vec<f32>,
    scores: &[f32],
    scratch: &mut Scratch,
    (y, width): (&mut [f32], usize),
) {
    let unit = level.tiles().expect("a level with tiles");
    with_rows!(cache, place, cells, |values, place| level.run(Weigh {
        unit,
        values,
        place,
        scores,
        scratch,
        y,
        width
    }));
}

/// The part of `v` that a bf16 holds, and the rest (Dekker, "A floating-point technique for extending the available precision", 1971).
#[inline(always)]
fn split<S: Simd>(s: S, v: S::Floats) -> (S::Floats, S::Floats) {
    let c = s.mul(v, s.splat(65537.0));
    let high = s.sub(c, s.sub(c, v));
    (high, s.sub(v, high))
}

/// Writes row `row` of a chunk's tiles, of 32 values in two halves: the first factor's, or the `SECOND`'s.
#[inline(always)]
fn put<S: Simd, const SECOND: bool>(s: S, [a, b]: [S::Floats; 2], row: usize, to: &mut [Tile; TERMS]) {
    let ((a, a_rest), (b, b_rest)) = (split(s, a), split(s, b));
    let (high, low) = (s.pairs_bf16(a, b), s.pairs_bf16(a_rest, b_rest));
    let terms = if SECOND { [high, high, low] } else { [high, low, high] };
    for i in 0..TERMS {
        s.store_words(terms[i], bytemuck::cast_mut(&mut to[i].0[row]));
    }
}

/// Room for so many, with whatever was there before.
fn room<T: Zeroable + Clone>(kept: &mut Vec<T>, len: usize) -> &mut [T] {
    if kept.len() < len {
        kept.resize(len, T::zeroed());
    }
    &mut kept[..len]
}

/// Makes tiles of the first `n` values, whole chunks, of rows `stride` apart.
#[inline(always)]
fn pack<S: Simd>(s: S, values: &[f32], stride: usize, (rows, n): (usize, usize), to: &mut [Tile]) {
    let groups = to.chunks_exact_mut(n / CHUNK * TERMS);
    for (group, to) in groups.take(rows / TILE_ROWS).enumerate() {
        for (j, to) in to.as_chunks_mut::<TERMS>().0.iter_mut().enumerate() {
            for r in 0..TILE_ROWS {
                let at = (group * TILE_ROWS + r) * stride + j * CHUNK;
                let halves = [s.floats(array(values, at)), s.floats(array(values, at + BLOCK))];
                put::<S, false>(s, halves, r, to);
            }
        }
    }
}

struct Score<'a, T> {
    unit: Tiles,
    keys: Rows<'a, T>,
    place: &'a Place<'a>,
    q: &'a [f32],
    dim: usize,
    scratch: &'a mut Scratch,
    scores: &'a mut [f32],
}

impl<T: Number> SimdKernel for Score<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Score { unit, keys, place, q, dim, scratch: Scratch { acts, panels, sums }, scores } = self;
        let (per, heads) = (dim / CHUNK * TERMS, place.kvs.len());
        let of_head = place.rows / TILE_ROWS * per;
        let acts = room(acts, heads * of_head);
        pack(s, q, dim, (heads * place.rows, dim), acts);
        let [first, second] = panels;
        let mut panels = [room(first, per), room(second, per)];
        for block in (place.cells.start / CHUNK * CHUNK..place.cells.end).step_by(CHUNK) {
            let cells = [0, BLOCK].map(|half| place.rows(block + half));
            let ahead = [0, BLOCK].map(|half| place.ahead(block + half));
            for head in 0..heads {
                for (half, panel) in panels.iter_mut().enumerate() {
                    for (j, to) in panel.as_chunks_mut::<TERMS>().0.iter_mut().enumerate() {
                        let a = turned(s, keys, &cells[half], head, j * CHUNK);
                        let b = turned(s, keys, &cells[half], head, j * CHUNK + BLOCK);
                        for p in 0..BLOCK {
                            put::<S, true>(s, [a[p], b[p]], p, to);
                        }
                    }
                    for j in 0..BLOCK {
                        keys.fetch(s, &ahead[half], j, head);
                    }
                }
                let sums = room(sums, place.rows / QUERIES);
                let acts = &acts[head * of_head..(head + 1) * of_head];
                unit.multiply([panels[0], panels[1]], acts, per, false, sums);
                let to = &mut scores[head * place.rows * STRIDE + block - place.start..];
                spread(s, sums, to, STRIDE, CHUNK);
            }
        }
    }
}

/// Channels `c` … `c + 15` of a block of cells, channel by channel; zeros where there are none.
#[inline(always)]
fn turned<S: Simd, T: Number>(
    s: S,
    keys: Rows<'_, T>,
    cells: &[usize; BLOCK],
    head: usize,
    c: usize,
) -> [S::Floats; BLOCK] {
    let mut square = [s.splat(0.0); BLOCK];
    if c < keys.width() {
        for (j, row) in square.iter_mut().enumerate() {
            *row = keys.load(s, cells[j], head, c);
        }
    }
    s.transpose(square)
}

/// Copies products to rows `stride` apart, of which `width` values belong to both panels.
#[inline(always)]
fn spread<S: Simd>(s: S, sums: &[TileSums], to: &mut [f32], stride: usize, width: usize) {
    for (group, sums) in sums.iter().enumerate() {
        for (panel, sums) in sums.iter().enumerate().take(width / BLOCK) {
            for (i, sums) in sums.as_flattened().iter().enumerate() {
                let at = (group * QUERIES + i) * stride + panel * BLOCK;
                s.store(s.floats(sums), array_mut(to, at));
            }
        }
    }
}

struct Weigh<'a, T> {
    unit: Tiles,
    values: Rows<'a, T>,
    place: &'a Place<'a>,
    scores: &'a [f32],
    scratch: &'a mut Scratch,
    y: &'a mut [f32],
    width: usize,
}

impl<T: Number> SimdKernel for Weigh<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const PER: usize = CELLS / CHUNK * TERMS;
        let Weigh { unit, values, place, scores, scratch: Scratch { acts, panels, sums }, y, width } = self;
        let (pairs, groups) = (width.div_ceil(CHUNK), place.rows / QUERIES);
        let acts = room(acts, place.rows / TILE_ROWS * PER);
        let [first, second] = panels;
        let mut panels = [room(first, PER), room(second, PER)];
        for head in 0..place.kvs.len() {
            let sums = room(sums, pairs * groups);
            let mut some = false;
            for block in (place.cells.start / CELLS * CELLS..place.cells.end).step_by(CELLS) {
                let cells: [_; CELLS / BLOCK] = std::array::from_fn(|i| place.rows(block + i * BLOCK));
                let scores = &scores[head * place.rows * STRIDE + block - place.start..];
                pack(s, scores, STRIDE, (place.rows, CELLS), acts);
                for (pair, sums) in sums.chunks_exact_mut(groups).enumerate() {
                    for (half, panel) in panels.iter_mut().enumerate() {
                        let c = pair * CHUNK + half * BLOCK;
                        for (j, to) in panel.as_chunks_mut::<TERMS>().0.iter_mut().enumerate() {
                            for p in 0..BLOCK {
                                let cell = |i: usize| cells[2 * j + i][p];
                                let mut v = [s.splat(0.0); 2];
                                if c < width {
                                    v = [values.load(s, cell(0), head, c), values.load(s, cell(1), head, c)];
                                }
                                put::<S, true>(s, v, p, to);
                            }
                        }
                    }
                    unit.multiply([panels[0], panels[1]], acts, PER, some, sums);
                }
                some = true;
                for block in (block..block + CELLS).step_by(BLOCK) {
                    let ahead = place.ahead(block);
                    for j in 0..BLOCK {
                        values.fetch(s, &ahead, j, head);
                    }
                }
            }
            for (pair, sums) in sums.chunks_exact(groups).enumerate().filter(|_| some) {
                let to = &mut y[head * place.rows * width + pair * CHUNK..];
                spread(s, sums, to, width, (width - pair * CHUNK).min(CHUNK));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::attention_cells;
    use super::*;
    use crate::base::{DType, Meta, uniform};
    use std::ops::Range;

    /// Scores and sums of values of both ways, of heads with `n` channels.
    fn compare(level: Level, dtype: DType, n: usize, cells: Range<usize>, rows: usize) {
        let (kv_heads, all, kvs) = (3, 704, 1..3);
        let random = |seed: u64, len: usize| Vec::from_iter((0..len as u64).map(|i| 4.0 * uniform(seed, i) - 2.0));
        let mut cache = vec![0; dtype.row_bytes(all * kv_heads * n).unwrap()];
        crate::quant::encode(dtype, &random(1, all * kv_heads * n), n, &mut cache);
        let view = View::new(Meta::new(dtype, [all, kv_heads, n]), &cache);
        let pages: Vec<u32> = (0..11).rev().collect();
        let place = Place { cells, table: Some(&pages), start: PART, rows, kvs, next: None };
        let (dim, width) = (n.next_multiple_of(CHUNK), n.next_multiple_of(BLOCK));
        let q = random(2, 2 * rows * n);
        let (mut tiled, mut plain) = (vec![0.0; 2 * rows * dim], vec![0.0; 2 * rows * width]);
        for (i, q) in q.chunks(n).enumerate() {
            tiled[i * dim..][..n].copy_from_slice(q);
            for (c, v) in q.iter().enumerate() {
                plain[i / rows * rows * width + attention_cells::pack(i % rows, rows, c, width)] = *v;
            }
        }
        let (mut got, mut want) = (vec![0.0; 2 * rows * STRIDE], vec![0.0; 2 * rows * STRIDE]);
        let (mut scratch, mut decoded, mut turned) = (Scratch::default(), Vec::new(), vec![0.0; width * BLOCK]);
        score(level, &view, &place, &mut decoded, (&tiled, dim), &mut scratch, &mut got);
        attention_cells::score(&view, &place, &mut decoded, (&plain, width), &mut turned, &mut want);
        // Blocks reach over the ends; what lies there counts as nothing.
        let seen = place.cells.start - PART..place.cells.end - PART;
        for (got, want) in got.chunks_mut(STRIDE).zip(want.chunks_mut(STRIDE)) {
            for (i, (got, want)) in got.iter_mut().zip(want).enumerate() {
                if !seen.contains(&i) {
                    (*got, *want) = (0.0, 0.0);
                }
                assert!((*got - *want).abs() <= 1e-4 * (n as f32).sqrt(), "{got} for {want}, {dtype}, {n} channels");
            }
        }
        let (mut y, mut exact) = (vec![0.0; 2 * rows * width], vec![0.0; 2 * rows * width]);
        weigh(level, &view, &place, &mut decoded, &want, &mut scratch, (&mut y, width));
        attention_cells::weigh(&view, &place, &mut decoded, &want, (&mut exact, width));
        let norm = exact.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let error = y.iter().zip(&exact).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        assert!(norm > 0.0 && error <= 1e-9 * norm, "{dtype}, {n} channels: {error} of {norm}");
    }

    #[test]
    fn tiles_give_what_f32_gives() {
        let levels: Vec<Level> = Level::available().filter(|level| level.tiles().is_some()).collect();
        assert!(levels.contains(&Level::PortableTiles));
        for level in levels {
            for dtype in [DType::F32, DType::F16, DType::Q8_0] {
                compare(level, dtype, 64, PART..PART + 188, 64);
            }
            compare(level, DType::F16, 48, PART + 37..PART + 50, 32);
            compare(level, DType::F32, 20, PART + 1..PART + 2, 96);
        }
    }
}
