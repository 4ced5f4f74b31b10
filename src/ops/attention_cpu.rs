//! The CPU code of [`Attention`]: queries that share a kv head go together over parts of the cache.
//!
//! Sixteen cells of keys at a time are decoded and turned, so that one vector holds the same channel of all sixteen and no sum
//! crosses lanes; values are decoded likewise and used row by row. Each part has a softmax of its own, and parts are merged
//! in order: a decoded token's parts run on several threads, a prompt's one after the other, to the same bits.

use super::attention::Attention;
use super::{Pool, for_chunks};
use crate::base::{DType, View, ViewMut};
use crate::quant;
use crate::simd::{self, Kernel, Level, Simd, array, array_mut};
use std::cell::RefCell;
use std::ops::Range;

/// Cells of a part: their scores fit the caches.
const PART: usize = 512;
/// Cells decoded at a time, and channels in a vector.
const BLOCK: usize = 16;
/// Queries that meet a block at a time; their number is rounded up to it.
const ROWS: usize = 4;
/// Queries that go together, about.
const TILE: usize = 32;

/// Of one query and some cells: the largest score m, and l = Σ e^(score − m). Σ e^(score − m) · v lies elsewhere.
#[derive(Clone, Copy)]
struct Softmax {
    m: f32,
    l: f32,
}

impl Softmax {
    const EMPTY: Softmax = Softmax { m: f32::NEG_INFINITY, l: 0.0 };

    /// Adds other cells, whose values are summed up in `more_y`, to these and `y`.
    fn merge(&mut self, y: &mut [f32], more: Softmax, more_y: &[f32]) {
        if more.l == 0.0 {
            return;
        }
        let m = self.m.max(more.m);
        let (a, b) = ((self.m - m).exp(), (more.m - m).exp());
        y.iter_mut().for_each(|y| *y *= a);
        y.iter_mut().zip(more_y).for_each(|(y, v)| *y += b * v);
        *self = Softmax { m, l: a * self.l + b * more.l };
    }
}

/// The queries of some tokens that share a kv head: row r is head `r % group` of token `r / group`.
#[derive(Clone)]
struct Queries {
    tokens: Range<usize>,
    kv: usize,
}

/// What a thread works in, kept so that a decoded token allocates nothing once warm.
#[derive(Default)]
struct Scratch {
    /// `[rows, dim]`, scaled.
    q: Vec<f32>,
    /// `[rows, PART]`.
    scores: Vec<f32>,
    /// `[BLOCK, width]`: cells, decoded.
    cells: Vec<f32>,
    /// `[width, BLOCK]`: the same, turned.
    turned: Vec<f32>,
    /// `[rows, width]`.
    y: Vec<f32>,
    /// `[rows, 2 + value_dim]`: m, l and values of a part.
    part: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static PARTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// All that does not change from part to part.
struct Task<'a> {
    op: &'a Attention,
    q: View<'a>,
    keys: View<'a>,
    values: View<'a>,
    pos: &'a [u32],
    slopes: Vec<f32>,
    sinks: Option<&'a [f32]>,
    heads: usize,
    group: usize,
    dim: usize,
    value_dim: usize,
}

pub(super) fn run(op: &Attention, src: &[View], mut dst: ViewMut, pool: &dyn Pool) {
    let (q, keys, values) = (src[0], src[1], src[2]);
    let (tokens, heads, kv_heads) = (q.meta.shape[0], q.meta.shape[1], keys.meta.shape[1]);
    let (dim, value_dim, group) = (q.meta.shape[2], values.meta.shape[2], heads / kv_heads);
    let (slopes, sinks) = (op.slopes(heads), src.get(4).map(|s| s.f32()));
    let task = Task { op, q, keys, values, pos: src[3].u32(), slopes, sinks, heads, group, dim, value_dim };
    let tile = (TILE / group).max(1);
    let y = dst.f32();
    y.fill(0.0);
    if tokens >= 2 * tile * pool.threads() {
        for_chunks(pool, y, tile * heads * value_dim, |i, y| task.prompt(i * tile..((i + 1) * tile).min(tokens), y));
    } else {
        for (i, y) in y.chunks_mut(tile * heads * value_dim).enumerate() {
            task.decoded(i * tile..((i + 1) * tile).min(tokens), y, pool);
        }
    }
}

impl Task<'_> {
    /// All heads of some tokens, whose results are `y`, on one thread.
    fn prompt(&self, tokens: Range<usize>, y: &mut [f32]) {
        let parts = self.parts(&tokens);
        SCRATCH.with_borrow_mut(|scratch| {
            let mut part_of = std::mem::take(&mut scratch.part);
            part_of.resize(tokens.len() * self.group * (2 + self.value_dim), 0.0);
            for kv in 0..self.heads / self.group {
                let queries = Queries { tokens: tokens.clone(), kv };
                let mut softmax = [Softmax::EMPTY; TILE];
                let mut many = vec![Softmax::EMPTY; (tokens.len() * self.group).saturating_sub(TILE)];
                for part in parts.clone() {
                    self.attend(&queries, part, scratch, &mut part_of);
                    self.merge(&queries, &part_of, softmax.iter_mut().chain(&mut many), y);
                }
                self.finish(&queries, softmax.into_iter().chain(many), y);
            }
            scratch.part = part_of;
        });
    }

    /// The same with the parts shared out among the threads.
    fn decoded(&self, tokens: Range<usize>, y: &mut [f32], pool: &dyn Pool) {
        let (parts, kv_heads) = (self.parts(&tokens), self.heads / self.group);
        let rows = tokens.len() * self.group;
        let size = rows * (2 + self.value_dim);
        PARTS.with_borrow_mut(|results| {
            results.resize(results.len().max(size * parts.len() * kv_heads), 0.0);
            for_chunks(pool, &mut results[..size * parts.len() * kv_heads], size, |i, result| {
                let queries = Queries { tokens: tokens.clone(), kv: i / parts.len() };
                SCRATCH.with_borrow_mut(|s| self.attend(&queries, parts.start + i % parts.len(), s, result));
            });
            for kv in 0..kv_heads {
                let queries = Queries { tokens: tokens.clone(), kv };
                let mut softmax = [Softmax::EMPTY; TILE];
                let mut many = vec![Softmax::EMPTY; rows.saturating_sub(TILE)];
                for part in results.chunks(size).skip(kv * parts.len()).take(parts.len()) {
                    self.merge(&queries, part, softmax.iter_mut().chain(&mut many), y);
                }
                self.finish(&queries, softmax.into_iter().chain(many), y);
            }
        });
    }

    /// The cells that a token sees.
    fn cells(&self, token: usize) -> Range<usize> {
        let p = self.pos[token] as usize;
        self.op.first(p)..p + 1
    }

    /// The parts in which any of the tokens sees a cell.
    fn parts(&self, tokens: &Range<usize>) -> Range<usize> {
        let first = tokens.clone().map(|t| self.cells(t).start).min().unwrap_or(0);
        let end = tokens.clone().map(|t| self.cells(t).end).max().unwrap_or(0);
        first / PART..end.div_ceil(PART)
    }

    /// Where a row's result begins, counted from that of the first token.
    fn place(&self, queries: &Queries, row: usize) -> usize {
        (row / self.group * self.heads + queries.kv * self.group + row % self.group) * self.value_dim
    }

    /// Adds a part to what was found so far.
    fn merge<'s>(
        &self,
        queries: &Queries,
        part: &[f32],
        softmax: impl Iterator<Item = &'s mut Softmax>,
        y: &mut [f32],
    ) {
        for (row, (part, softmax)) in part.chunks(2 + self.value_dim).zip(softmax).enumerate() {
            let at = self.place(queries, row);
            softmax.merge(&mut y[at..at + self.value_dim], Softmax { m: part[0], l: part[1] }, &part[2..]);
        }
    }

    /// Sinks, and the division.
    fn finish(&self, queries: &Queries, softmax: impl Iterator<Item = Softmax>, y: &mut [f32]) {
        for (row, mut softmax) in softmax.take(queries.tokens.len() * self.group).enumerate() {
            let at = self.place(queries, row);
            let y = &mut y[at..at + self.value_dim];
            if let Some(sinks) = self.sinks {
                let sink = sinks[queries.kv * self.group + row % self.group];
                softmax.merge(y, Softmax { m: sink, l: 1.0 }, &[]);
            }
            y.iter_mut().for_each(|y| *y /= softmax.l);
        }
    }

    /// Part `part` of the cells for some queries: `result` is `[rows, 2 + value_dim]`.
    fn attend(&self, queries: &Queries, part: usize, scratch: &mut Scratch, result: &mut [f32]) {
        let tokens = &queries.tokens;
        let rows = tokens.len() * self.group;
        let padded = rows.next_multiple_of(ROWS);
        let seen = |t: usize| {
            let all = self.cells(t);
            all.start.max(part * PART)..all.end.min((part + 1) * PART)
        };
        let first = tokens.clone().map(|t| seen(t).start).min().unwrap_or(0);
        let end = tokens.clone().map(|t| seen(t).end).max().unwrap_or(0);
        let width = self.dim.max(self.value_dim).next_multiple_of(2 * BLOCK);
        let Scratch { q, scores, cells, turned, y, .. } = scratch;
        q.resize(padded * self.dim, 0.0);
        for (row, q) in q.chunks_mut(self.dim).enumerate().take(rows) {
            let head = queries.kv * self.group + row % self.group;
            let from = &self.q.row(tokens.start + row / self.group)[head * self.dim..];
            q.iter_mut().zip(from).for_each(|(q, v)| *q = v * self.op.scale);
        }
        scores.resize(padded * PART, 0.0);
        (cells.resize(BLOCK * width, 0.0), turned.resize(width * BLOCK, 0.0));
        // Blocks begin at multiples of their size, so that no sum depends on which tokens go together.
        for block in (first / BLOCK * BLOCK..end).step_by(BLOCK) {
            decode(&self.keys, block.max(first)..(block + BLOCK).min(end), block, queries.kv, width, cells);
            let scores = &mut scores[block - part * PART..];
            Level::best().run(Score { q, dim: self.dim, cells, width, turned, scores });
        }
        y.clear();
        y.resize(padded * width, 0.0);
        for (row, (scores, result)) in scores.chunks_mut(PART).zip(result.chunks_mut(2 + self.value_dim)).enumerate() {
            let token = tokens.start + row / self.group;
            let (seen, start) = (seen(token), part * PART);
            let here = if seen.is_empty() { 0..0 } else { seen.start - start..seen.end - start };
            let slope = self.slopes[queries.kv * self.group + row % self.group];
            let behind = self.pos[token] as usize - seen.start.min(self.pos[token] as usize);
            let softmax = self.softmax(&mut scores[here.clone()], slope, behind);
            scores[..here.start].fill(0.0);
            scores[here.end..].fill(0.0);
            (result[0], result[1]) = (softmax.m, softmax.l);
        }
        for block in (first / BLOCK * BLOCK..end).step_by(BLOCK) {
            decode(&self.values, block.max(first)..(block + BLOCK).min(end), block, queries.kv, width, cells);
            Level::best().run(Weigh { scores: &scores[block - part * PART..], cells, width, used: self.value_dim, y });
        }
        for (y, result) in y.chunks(width).zip(result.chunks_mut(2 + self.value_dim)) {
            result[2..].copy_from_slice(&y[..self.value_dim]);
        }
    }

    /// Turns the scores of one query into e^(score − m). The first of them is `behind` cells before it.
    fn softmax(&self, scores: &mut [f32], slope: f32, behind: usize) -> Softmax {
        if scores.is_empty() {
            return Softmax::EMPTY;
        }
        if self.op.softcap != 0.0 {
            let cap = self.op.softcap;
            scores.iter_mut().for_each(|s| *s /= cap);
            simd::tanh(scores);
            scores.iter_mut().for_each(|s| *s *= cap);
        }
        if slope != 0.0 {
            scores.iter_mut().enumerate().for_each(|(i, s)| *s -= slope * (behind - i) as f32);
        }
        let m = simd::max(scores).max(f32::MIN);
        Softmax { m, l: simd::exp_sum(scores, m) }
    }
}

/// Decodes head `kv` of some cells to rows of `width`, the first of which is cell `first`; other rows become zero.
fn decode(cache: &View, cells: Range<usize>, first: usize, kv: usize, width: usize, out: &mut [f32]) {
    let (kv_heads, n) = (cache.meta.shape[1], cache.meta.shape[2]);
    let bytes = |values: usize| cache.meta.dtype.row_bytes(values).expect("heads are whole blocks");
    for (row, out) in out.chunks_mut(width).enumerate() {
        let (out, pad) = out.split_at_mut(n);
        pad.fill(0.0);
        let cell = first + row;
        if !cells.contains(&cell) {
            out.fill(0.0);
            continue;
        }
        let from = &cache.data[bytes((cell * kv_heads + kv) * n)..][..bytes(n)];
        match cache.meta.dtype {
            DType::F32 => out.copy_from_slice(bytemuck::cast_slice(from)),
            DType::F16 => simd::f16_to_f32(bytemuck::cast_slice(from), out),
            dtype => quant::decode(dtype, from, out),
        }
    }
}

/// Scores of all queries with sixteen cells: `scores[row * PART ..][.. 16]`.
struct Score<'a> {
    q: &'a [f32],
    dim: usize,
    cells: &'a [f32],
    width: usize,
    turned: &'a mut [f32],
    scores: &'a mut [f32],
}

impl Kernel for Score<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Score { q, dim, cells, width, turned, scores } = self;
        for c in (0..dim).step_by(BLOCK) {
            let mut square = [s.splat(0.0); BLOCK];
            for (j, row) in square.iter_mut().enumerate() {
                *row = s.floats(array(cells, j * width + c));
            }
            for (j, column) in s.transpose(square).into_iter().enumerate() {
                s.store(column, array_mut(turned, (c + j) * BLOCK));
            }
        }
        let keys = &turned.as_chunks::<BLOCK>().0[..dim];
        for (i, q) in q.chunks_exact(ROWS * dim).enumerate() {
            let mut sums = [s.splat(0.0); ROWS];
            let (a, rest) = q.split_at(dim);
            let (b, rest) = rest.split_at(dim);
            let (c, d) = rest.split_at(dim);
            for ((((k, a), b), c), d) in keys.iter().zip(a).zip(b).zip(c).zip(d) {
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
}

/// y `[rows, width]` += scores · cells, of sixteen cells; `used` channels count.
struct Weigh<'a> {
    scores: &'a [f32],
    cells: &'a [f32],
    width: usize,
    used: usize,
    y: &'a mut [f32],
}

impl Kernel for Weigh<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Weigh { scores, cells, width, used, y } = self;
        for (i, y) in y.chunks_exact_mut(ROWS * width).enumerate() {
            let mut p = [&[0.0; BLOCK]; ROWS];
            for (r, p) in p.iter_mut().enumerate() {
                *p = array(scores, (i * ROWS + r) * PART);
            }
            for c in (0..used).step_by(2 * BLOCK) {
                let mut sums = [[s.splat(0.0); 2]; ROWS];
                for (r, sums) in sums.iter_mut().enumerate() {
                    *sums = [s.floats(array(y, r * width + c)), s.floats(array(y, r * width + c + BLOCK))];
                }
                for j in 0..BLOCK {
                    let v = [s.floats(array(cells, j * width + c)), s.floats(array(cells, j * width + c + BLOCK))];
                    for r in 0..ROWS {
                        let p = s.splat(p[r][j]);
                        sums[r] = [s.mul_add(v[0], p, sums[r][0]), s.mul_add(v[1], p, sums[r][1])];
                    }
                }
                for (r, sums) in sums.into_iter().enumerate() {
                    s.store(sums[0], array_mut(y, r * width + c));
                    s.store(sums[1], array_mut(y, r * width + c + BLOCK));
                }
            }
        }
    }
}
