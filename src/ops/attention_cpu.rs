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
    /// `[PART, width]`: cells of a type or width that vectors do not read.
    cells: Vec<f32>,
    /// `[dim, BLOCK]`: keys, turned.
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
        let Scratch { q, scores, cells, turned, y, .. } = scratch;
        let (dim, width) = (self.dim.next_multiple_of(BLOCK), self.value_dim.next_multiple_of(BLOCK));
        q.clear();
        q.resize(padded * dim, 0.0);
        for (row, q) in q.chunks_mut(dim).enumerate().take(rows) {
            let head = queries.kv * self.group + row % self.group;
            let from = &self.q.row(tokens.start + row / self.group)[head * self.dim..];
            q.iter_mut().zip(from).for_each(|(q, v)| *q = v * self.op.scale);
        }
        scores.resize(padded * PART, 0.0);
        turned.resize(dim * BLOCK, 0.0);
        let place = Place { cells: first..end, start: part * PART, rows: padded };
        score(&self.keys, queries.kv, &place, cells, (q, dim), turned, scores);
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
        weigh(&self.values, queries.kv, &place, cells, scores, (y, width));
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

/// Some cells of a part.
struct Place {
    cells: Range<usize>,
    /// The part's first cell.
    start: usize,
    /// Queries.
    rows: usize,
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

/// One head of some cells, as vectors read it.
trait Rows: Copy {
    /// Channels `c` … `c + 15` of row `row`. Must be `#[inline(always)]`.
    fn load<S: Simd>(self, s: S, row: usize, c: usize) -> S::Floats;

    /// Brings the row `AHEAD` rows on near: rows of one head lie too far apart for the hardware to see it coming. The same.
    fn fetch<S: Simd>(self, s: S, row: usize, width: usize);
}

/// How many cells are fetched ahead.
const AHEAD: usize = 4 * BLOCK;

#[derive(Clone, Copy)]
struct HalfRows<'a> {
    data: &'a [u8],
    stride: usize,
}

impl Rows for HalfRows<'_> {
    #[inline(always)]
    fn load<S: Simd>(self, s: S, row: usize, c: usize) -> S::Floats {
        s.widen_f16(array(self.data, 2 * (row * self.stride + c)))
    }

    #[inline(always)]
    fn fetch<S: Simd>(self, s: S, row: usize, width: usize) {
        for c in (0..width).step_by(32) {
            s.prefetch(self.data.get(2 * ((row + AHEAD) * self.stride + c)..).unwrap_or_default());
        }
    }
}

#[derive(Clone, Copy)]
struct FloatRows<'a> {
    data: &'a [f32],
    stride: usize,
}

impl Rows for FloatRows<'_> {
    #[inline(always)]
    fn load<S: Simd>(self, s: S, row: usize, c: usize) -> S::Floats {
        s.floats(array(self.data, row * self.stride + c))
    }

    #[inline(always)]
    fn fetch<S: Simd>(self, s: S, row: usize, width: usize) {
        for c in (0..width).step_by(16) {
            s.prefetch(bytemuck::cast_slice(self.data.get((row + AHEAD) * self.stride + c..).unwrap_or_default()));
        }
    }
}

/// Decodes head `kv` of some cells, to rows whose length is a multiple of [`BLOCK`].
fn decode<'a>(cache: &View, cells: &Range<usize>, kv: usize, out: &'a mut Vec<f32>) -> FloatRows<'a> {
    let (kv_heads, n) = (cache.meta.shape[1], cache.meta.shape[2]);
    let bytes = |values: usize| cache.meta.dtype.row_bytes(values).expect("heads are whole blocks");
    let stride = n.next_multiple_of(BLOCK);
    out.clear();
    out.resize(cells.len() * stride, 0.0);
    for (cell, out) in cells.clone().zip(out.chunks_mut(stride)) {
        quant::decode(cache.meta.dtype, &cache.data[bytes((cell * kv_heads + kv) * n)..][..bytes(n)], &mut out[..n]);
    }
    FloatRows { data: out, stride }
}

/// Calls `$run` with the rows of head `$kv` of a cache.
macro_rules! with_rows {
    ($cache:expr, $kv:expr, $place:expr, $cells:expr, $run:expr) => {{
        let (kv_heads, n) = ($cache.meta.shape[1], $cache.meta.shape[2]);
        let (first, stride) = (($place.cells.start * kv_heads + $kv) * n, kv_heads * n);
        match $cache.meta.dtype {
            DType::F16 if n.is_multiple_of(BLOCK) => $run(HalfRows { data: &$cache.data[2 * first..], stride }),
            DType::F32 if n.is_multiple_of(BLOCK) => {
                $run(FloatRows { data: &bytemuck::cast_slice($cache.data)[first..], stride })
            }
            _ => $run(decode($cache, &$place.cells, $kv, $cells)),
        }
    }};
}

/// Scores of all queries with the cells: `scores[row * PART + cell - start]`.
fn score(
    cache: &View,
    kv: usize,
    place: &Place,
    cells: &mut Vec<f32>,
    (q, dim): (&[f32], usize),
    turned: &mut [f32],
    scores: &mut [f32],
) {
    with_rows!(cache, kv, place, cells, |keys| Level::best().run(Score { keys, place, q, dim, turned, scores }));
}

/// y `[rows, width]` = scores · cells.
fn weigh(
    cache: &View,
    kv: usize,
    place: &Place,
    cells: &mut Vec<f32>,
    scores: &[f32],
    (y, width): (&mut [f32], usize),
) {
    with_rows!(cache, kv, place, cells, |values| Level::best().run(Weigh { values, place, scores, y, width }));
}

struct Score<'a, R> {
    keys: R,
    place: &'a Place,
    q: &'a [f32],
    dim: usize,
    turned: &'a mut [f32],
    scores: &'a mut [f32],
}

impl<R: Rows> Kernel for Score<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Score { keys, place, q, dim, turned, scores } = self;
        for block in place.blocks() {
            for j in 0..BLOCK {
                keys.fetch(s, place.row(block, j), dim);
            }
            for c in (0..dim).step_by(BLOCK) {
                let mut square = [s.splat(0.0); BLOCK];
                for (j, row) in square.iter_mut().enumerate() {
                    *row = keys.load(s, place.row(block, j), c);
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
                    s.store(sum, array_mut(scores, (i * ROWS + r) * PART + block - place.start));
                }
            }
        }
    }
}

struct Weigh<'a, R> {
    values: R,
    place: &'a Place,
    scores: &'a [f32],
    y: &'a mut [f32],
    width: usize,
}

impl<R: Rows> Kernel for Weigh<'_, R> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Weigh { values, place, scores, y, width } = self;
        for block in place.blocks() {
            for j in 0..BLOCK {
                values.fetch(s, place.row(block, j), width);
            }
            for row in (0..place.rows).step_by(ROWS) {
                let mut p = [&[0.0; BLOCK]; ROWS];
                for (r, p) in p.iter_mut().enumerate() {
                    *p = array(scores, (row + r) * PART + block - place.start);
                }
                let mut c = 0;
                while c + 2 * BLOCK <= width {
                    weigh_block::<S, R, 2>(s, values, (place, block), p, &mut y[row * width + c..], width, c);
                    c += 2 * BLOCK;
                }
                if c < width {
                    weigh_block::<S, R, 1>(s, values, (place, block), p, &mut y[row * width + c..], width, c);
                }
            }
        }
    }
}

/// Channels `c` … of a block's cells, `N` vectors of them, for a few queries.
#[inline(always)]
fn weigh_block<S: Simd, R: Rows, const N: usize>(
    s: S,
    values: R,
    (place, block): (&Place, usize),
    p: [&[f32; BLOCK]; ROWS],
    y: &mut [f32],
    width: usize,
    c: usize,
) {
    let mut sums = [[s.splat(0.0); N]; ROWS];
    for (r, sums) in sums.iter_mut().enumerate() {
        for (n, sum) in sums.iter_mut().enumerate() {
            *sum = s.floats(array(y, r * width + n * BLOCK));
        }
    }
    for j in 0..BLOCK {
        let row = place.row(block, j);
        for n in 0..N {
            let v = values.load(s, row, c + n * BLOCK);
            for (sums, p) in sums.iter_mut().zip(p) {
                sums[n] = s.mul_add(v, s.splat(p[j]), sums[n]);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (n, sum) in sums.into_iter().enumerate() {
            s.store(sum, array_mut(y, r * width + n * BLOCK));
        }
    }
}
