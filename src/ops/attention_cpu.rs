//! The CPU code of [`Attention`]: queries of a sequence that share a kv head go together over parts of its cells.
//!
//! Sixteen cells of keys at a time are turned, so that one vector holds the same channel of all sixteen and no sum crosses
//! lanes, but for the few queries of an answer (`attention_few.rs`); values are used row by row (`attention_cells.rs`). Each part has a softmax of its own, and parts are merged
//! in order: a decoded token's parts run on several threads, a prompt's one after the other, to the same bits.

use super::attention::Attention;
use super::attention_cells::{BLOCK, Next, PART, Place, ROWS, STRIDE, pack, score, weigh};
use super::attention_few as few;
use super::places::RowPlaces;
use super::{Threads, attention_tiles as tiles, for_chunks, for_ranges};
use crate::base::{DType, Role, View, ViewMut};
use crate::simd::{self, Level};
use std::cell::RefCell;
use std::ops::Range;

/// Queries that go together, about: keys and values are fetched and turned once for all of them, and their scores with a part fit
/// the second-level cache.
const TILE: usize = 128;
/// The same where units for tiles multiply: turning the cells weighs more there.
const TILE_OF_UNITS: usize = 256;

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
    /// `[rows, dim]`, scaled, as [`pack`] says.
    q: Vec<f32>,
    /// `[rows, STRIDE]`.
    scores: Vec<f32>,
    /// `[PART, width]`: cells of a type or width that vectors do not read.
    cells: Vec<f32>,
    /// `[dim, BLOCK]`: keys, turned.
    turned: Vec<f32>,
    /// `[rows, width]`.
    y: Vec<f32>,
    /// `[rows, 2 + value_dim]`: m, l and values of a part.
    part: Vec<f32>,
    tiles: tiles::Scratch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    static PARTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    static TILES: RefCell<Vec<Range<usize>>> = const { RefCell::new(Vec::new()) };
}

/// So many tiles leave no thread without work when each has whole ones.
const TILES_PER_THREAD: usize = 2;
/// Parts that are shared out together: their results lie in memory before they are merged.
const PARTS_PER_THREAD: usize = 64;

/// All that does not change from part to part.
struct Task<'a> {
    op: &'a Attention,
    q: View<'a>,
    keys: View<'a>,
    values: View<'a>,
    places: RowPlaces<'a>,
    slopes: Vec<f32>,
    sinks: Option<&'a [f32]>,
    heads: usize,
    group: usize,
    dim: usize,
    value_dim: usize,
    /// Whose units for tiles are used, if any.
    units: Option<Level>,
    /// Whether queries are few: whether that is so depends on no batch.
    few: bool,
}

pub(super) fn run(op: &Attention, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
    let (q, keys, values) = (src[0], src[1], src[2]);
    let (tokens, heads, kv_heads) = (q.meta.shape[0], q.meta.shape[1], keys.meta.shape[1]);
    let (dim, value_dim, group) = (q.meta.shape[2], values.meta.shape[2], heads / kv_heads);
    // Without ALiBi nothing is allocated for it.
    let slopes = if op.max_bias == 0.0 { Vec::new() } else { op.slopes(heads) };
    let sinks = src.get(4).map(|s| s.f32());
    // An answer's token waits for memory, and is done in f32 whatever there is.
    let units = Some(Level::best()).filter(|level| op.role.is_prompt() && level.tiles().is_some());
    let places = RowPlaces::new(src[3].u32(), tokens, op.group);
    let few = op.role == Role::Answer && group <= few::FEW;
    let task = Task { op, q, keys, values, places, slopes, sinks, heads, group, dim, value_dim, units, few };
    let tile = (units.map_or(TILE, |_| TILE_OF_UNITS) / group).max(1);
    let y = dst.f32();
    y.fill(0.0);
    TILES.with_borrow_mut(|tiles| {
        tiles.clear();
        match op.role {
            Role::Answer => tiles.extend((0..tokens).filter(|t| places.position(*t).is_some()).map(|t| t..t + 1)),
            Role::Prompt | Role::Piece => task.cut_prompts(tokens, tile, tiles),
        }
        let width = heads * value_dim;
        if tiles.len() >= TILES_PER_THREAD * pool.threads() {
            let ranges = tiles.iter().map(|tile| tile.start * width..tile.end * width);
            // Threads take them about by turns.
            return for_ranges(pool, y, ranges, |i, y| task.whole(&tiles[i], tiles.get(i + pool.threads()), y));
        }
        let mut rest = &tiles[..];
        while let [first, ..] = rest {
            // Tiles of answers are of one size. What their parts give must not take too much memory.
            let mut parts = task.parts(first).len();
            let more = rest[1..].iter().take_while(|tile| {
                parts += task.parts(tile).len();
                op.role == Role::Answer && parts <= PARTS_PER_THREAD * pool.threads()
            });
            let (now, later) = rest.split_at(1 + more.count());
            task.split(now, &mut y[first.start * width..], pool);
            rest = later;
        }
    });
}

impl Task<'_> {
    /// Tiles of up to `most` tokens that follow each other in a sequence.
    fn cut_prompts(&self, tokens: usize, most: usize, tiles: &mut Vec<Range<usize>>) {
        let mut first = 0;
        while first < tokens {
            let end = (first..tokens).find(|t| !self.places.goes_on(*t)).unwrap_or(tokens - 1) + 1;
            if self.places.position(first).is_some() {
                tiles.extend((first..end).step_by(most).map(|t| t..(t + most).min(end)));
            }
            first = end;
        }
    }

    /// All heads of some tokens, whose results are `y`, on one thread, which probably goes on with the `next` ones.
    fn whole(&self, tokens: &Range<usize>, next: Option<&Range<usize>>, y: &mut [f32]) {
        let parts = self.parts(tokens);
        let rows = tokens.len() * self.group;
        let size = rows * (2 + self.value_dim);
        let kv_heads = self.heads / self.group;
        // Cells are read in whole rows where vectors read them as they lie: what is decoded of all heads would leave the caches.
        let as_they_lie = |cache: &View| matches!(cache.meta.dtype, DType::F16 | DType::F32);
        let together = if self.few && as_they_lie(&self.keys) && as_they_lie(&self.values) { kv_heads } else { 1 };
        let next = next.filter(|_| together == kv_heads);
        SCRATCH.with_borrow_mut(|scratch| {
            let mut part_of = std::mem::take(&mut scratch.part);
            part_of.resize(together * size, 0.0);
            for first in (0..kv_heads).step_by(together) {
                let mut softmax = [Softmax::EMPTY; TILE_OF_UNITS];
                let mut many = vec![Softmax::EMPTY; (together * rows).saturating_sub(TILE_OF_UNITS)];
                for part in parts.clone() {
                    let place = |tile, part| self.place(tile, first..first + together, part);
                    let next = match part + 1 < parts.end {
                        true => Some(place(tokens, part + 1)),
                        false => next.map(|tile| place(tile, self.parts(tile).start)),
                    };
                    let next = next.map(|place| Next::new(&self.keys, &place));
                    self.attend(tokens, (&place(tokens, part), next.as_ref()), part, scratch, &mut part_of);
                    let mut softmax = softmax.iter_mut().chain(&mut many);
                    for (kv, part) in (first..).zip(part_of.chunks(size)) {
                        self.merge(&Queries { tokens: tokens.clone(), kv }, part, softmax.by_ref().take(rows), y);
                    }
                }
                let mut softmax = softmax.into_iter().chain(many);
                for kv in first..first + together {
                    self.finish(&Queries { tokens: tokens.clone(), kv }, softmax.by_ref().take(rows), y);
                }
            }
            scratch.part = part_of;
        });
    }

    /// The same of several tiles of one size, with the parts shared out among the threads. `y` begins with the first tile.
    fn split(&self, tiles: &[Range<usize>], y: &mut [f32], pool: &dyn Threads) {
        let kv_heads = self.heads / self.group;
        let rows = tiles[0].len() * self.group;
        let size = rows * (2 + self.value_dim);
        let all: usize = tiles.iter().map(|tile| self.parts(tile).len()).sum();
        // Cells are read in whole rows, all heads one after the other, as far as that leaves work for every thread.
        let shares = (2 * pool.threads()).div_ceil(all).min(kv_heads);
        let heads = kv_heads.div_ceil(shares);
        let shares = kv_heads.div_ceil(heads);
        let some = |share: usize| share * heads..((share + 1) * heads).min(kv_heads);
        let step = heads * size;
        PARTS.with_borrow_mut(|results| {
            results.resize(results.len().max(step * shares * all), 0.0);
            // Tile by tile, in each share by share, and in each part by part.
            for_chunks(pool, &mut results[..step * shares * all], step, |i, result| {
                let mut i = i;
                for tile in tiles {
                    let parts = self.parts(tile);
                    if i < shares * parts.len() {
                        let (kvs, part) = (some(i / parts.len()), parts.start + i % parts.len());
                        // A thread goes from part to part.
                        let place = |part| self.place(tile, kvs.clone(), part);
                        let next = (part + 1 < parts.end).then(|| Next::new(&self.keys, &place(part + 1)));
                        let place = (&place(part), next.as_ref());
                        return SCRATCH.with_borrow_mut(|s| self.attend(tile, place, part, s, result));
                    }
                    i -= shares * parts.len();
                }
            });
            let mut results = &results[..];
            for tile in tiles {
                let parts = self.parts(tile).len();
                let y = &mut y[(tile.start - tiles[0].start) * self.heads * self.value_dim..];
                for kv in 0..kv_heads {
                    let queries = Queries { tokens: tile.clone(), kv };
                    let mut softmax = [Softmax::EMPTY; TILE_OF_UNITS];
                    let mut many = vec![Softmax::EMPTY; rows.saturating_sub(TILE_OF_UNITS)];
                    for part in results.chunks(step).skip(kv / heads * parts).take(parts) {
                        let part = &part[kv % heads * size..][..size];
                        self.merge(&queries, part, softmax.iter_mut().chain(&mut many), y);
                    }
                    self.finish(&queries, softmax.into_iter().chain(many), y);
                }
                results = &results[step * shares * parts..];
            }
        });
    }

    /// The position of a token of a tile.
    fn position(&self, token: usize) -> usize {
        self.places.position(token).expect("tiles have rows only")
    }

    /// The cells that a token sees, counted along its sequence.
    fn cells(&self, token: usize) -> Range<usize> {
        let p = self.position(token);
        self.op.first(p)..p + 1
    }

    /// The parts in which any of the tokens sees a cell.
    fn parts(&self, tokens: &Range<usize>) -> Range<usize> {
        let first = tokens.clone().map(|t| self.cells(t).start).min().unwrap_or(0);
        let end = tokens.clone().map(|t| self.cells(t).end).max().unwrap_or(0);
        first / PART..end.div_ceil(PART)
    }

    /// Where a row's result begins, counted from that of the first token.
    fn result_at(&self, queries: &Queries, row: usize) -> usize {
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
            let at = self.result_at(queries, row);
            softmax.merge(&mut y[at..at + self.value_dim], Softmax { m: part[0], l: part[1] }, &part[2..]);
        }
    }

    /// Sinks, and the division.
    fn finish(&self, queries: &Queries, softmax: impl Iterator<Item = Softmax>, y: &mut [f32]) {
        for (row, mut softmax) in softmax.take(queries.tokens.len() * self.group).enumerate() {
            let at = self.result_at(queries, row);
            let y = &mut y[at..at + self.value_dim];
            if let Some(sinks) = self.sinks {
                let sink = sinks[queries.kv * self.group + row % self.group];
                softmax.merge(y, Softmax { m: sink, l: 1.0 }, &[]);
            }
            y.iter_mut().for_each(|y| *y /= softmax.l);
        }
    }

    /// The cells of part `part` that a token sees.
    fn seen(&self, token: usize, part: usize) -> Range<usize> {
        let all = self.cells(token);
        all.start.max(part * PART)..all.end.min((part + 1) * PART)
    }

    /// Where part `part` of the cells of some tokens lies.
    fn place(&self, tokens: &Range<usize>, kvs: Range<usize>, part: usize) -> Place<'_> {
        let queries = match self.units {
            Some(_) => tiles::QUERIES,
            None if self.few => 1,
            None => ROWS,
        };
        let seen = || tokens.clone().map(|t| self.seen(t, part));
        let cells =
            seen().map(|cells| cells.start).min().unwrap_or(0)..seen().map(|cells| cells.end).max().unwrap_or(0);
        let rows = (tokens.len() * self.group).next_multiple_of(queries);
        Place { cells, table: Some(self.places.table(tokens.end - 1)), start: part * PART, rows, kvs, next: None }
    }

    /// Part `part` of the cells for all queries of some tokens and the kv heads of `place`: `result` is `[kvs, rows, 2 + value_dim]`.
    fn attend(
        &self,
        tokens: &Range<usize>,
        (place, next): (&Place, Option<&Next>),
        part: usize,
        scratch: &mut Scratch,
        result: &mut [f32],
    ) {
        let rows = tokens.len() * self.group;
        let (kvs, padded) = (&place.kvs, place.rows);
        let channels = if self.units.is_some() { tiles::CHUNK } else { BLOCK };
        let (dim, width) = (self.dim.next_multiple_of(channels), self.value_dim.next_multiple_of(BLOCK));
        self.gather(tokens, kvs, (padded, dim), &mut scratch.q);
        let Scratch { q, scores, cells, turned, y, tiles, .. } = scratch;
        scores.resize(kvs.len() * padded * STRIDE, 0.0);
        turned.resize(dim * BLOCK, 0.0);
        let values = Next::new(&self.values, place);
        let of_keys = Place { next: Some(&values), ..place.clone() };
        match self.units {
            Some(level) => tiles::score(level, &self.keys, &of_keys, cells, (q, dim), tiles, scores),
            None if self.few => few::score(&self.keys, &of_keys, cells, (q, dim), scores),
            None => score(&self.keys, &of_keys, cells, (q, dim), turned, scores),
        }
        y.clear();
        y.resize(kvs.len() * padded * width, 0.0);
        let size = 2 + self.value_dim;
        for (i, scores) in scores.chunks_mut(STRIDE).enumerate().filter(|(i, _)| i % padded < rows) {
            let (kv, row) = (i / padded, i % padded);
            let token = tokens.start + row / self.group;
            let (seen, start) = (self.seen(token, part), part * PART);
            let here = if seen.is_empty() { 0..0 } else { seen.start - start..seen.end - start };
            let slope = self.slopes.get((kvs.start + kv) * self.group + row % self.group).copied().unwrap_or(0.0);
            let behind = self.position(token) - seen.start.min(self.position(token));
            let softmax = self.softmax(&mut scores[here.clone()], slope, behind);
            scores[..here.start].fill(0.0);
            scores[here.end..].fill(0.0);
            result[(kv * rows + row) * size..][..2].copy_from_slice(&[softmax.m, softmax.l]);
        }
        let place = &Place { next, ..place.clone() };
        match self.units {
            Some(level) => tiles::weigh(level, &self.values, place, cells, scores, tiles, (y, width)),
            None => weigh(&self.values, place, cells, scores, (y, width)),
        }
        for (i, y) in y.chunks(width).enumerate().filter(|(i, _)| i % padded < rows) {
            let result = &mut result[(i / padded * rows + i % padded) * size..][..size];
            result[2..].copy_from_slice(&y[..self.value_dim]);
        }
    }

    /// Queries, scaled: `[kvs, rows, dim]`, as [`pack`] says but for units for tiles and few of them. Zeros stand for what is not there.
    fn gather(&self, tokens: &Range<usize>, kvs: &Range<usize>, (rows, dim): (usize, usize), q: &mut Vec<f32>) {
        q.clear();
        q.resize(kvs.len() * rows * dim, 0.0);
        for (kv, q) in kvs.clone().zip(q.chunks_mut(rows * dim)) {
            for row in 0..tokens.len() * self.group {
                let head = kv * self.group + row % self.group;
                let from = &self.q.row(tokens.start + row / self.group)[head * self.dim..][..self.dim];
                let in_rows = self.units.is_some() || self.few;
                let at = |c: usize| if in_rows { row * dim + c } else { pack(row, rows, c, dim) };
                from.iter().enumerate().for_each(|(c, v)| q[at(c)] = v * self.op.scale);
            }
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
