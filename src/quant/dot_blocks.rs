//! The matrix product of block formats, on panels of sixteen interleaved rows. It knows no formats: with w = d · (q − z) + m and
//! x = s · a, Σ w·x = Σ_groups d·s·(Σ q·a − z·Σ a) + Σ_groups m·s·(Σ a), where the inner sums are integers.
//!
//! A single column reads panels as one stream and unpacks them in registers: memory is what bounds it. More columns share
//! tiles that are unpacked to the first-level cache, two panels at a time. Each column gets the same bits either way.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::activations::{Activations, Precision};
use super::dot::Matrix;
use super::dot_eight::MultiplyEight;
use super::format::Block;
use super::panel::{self, Packed, Unpack};
use super::tile::{CHUNK, IntTile, Panel, ROWS, Source, TILE};
use crate::base::Layout;
use crate::simd::{Columns, Kernel, Level, Simd};
use std::array::from_fn;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Panels that meet a tile of all columns before its next one comes: their sums and that tile's activations fit the second-level
/// cache, from which activations are then read more often than from the third.
const BATCH: usize = 8;

/// What a thread works in.
struct Scratch {
    /// Two unpacked panels: with their rows every activation is used twice.
    panels: [Panel; 2],
    /// Panels of rows that come as they lie in a file.
    packed: Vec<u8>,
    /// The sums of some pairs of panels with all columns, while tile after tile is added: pair by pair, group of columns by
    /// group, per panel and column. Where the results go, columns lie so far apart that they would drive each other out of
    /// the caches.
    sums: Vec<[f32; ROWS]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { panels: [Panel::ZERO; 2], packed: Vec::new(), sums: Vec::new() }) };
}

/// The table's entry: some rows, all columns.
pub(super) fn dot<F: Block>(
    level: Level,
    w: &Matrix<'_>,
    rows: Range<usize>,
    acts: &Activations,
    out: &mut Columns<'_>,
) {
    SCRATCH.with_borrow_mut(|Scratch { panels, packed, sums }| {
        let bytes = panel::panel_bytes::<F>(w.k);
        let n = rows.len();
        for first in (0..n).step_by(BATCH * ROWS) {
            let used = (n - first).div_ceil(ROWS).min(BATCH);
            let at = rows.start + first;
            let stream = match w.layout {
                // To the end, so that what comes next can be fetched ahead.
                Layout::Panels => &w.bytes[at / ROWS * bytes..],
                Layout::Rows => {
                    packed.resize(BATCH * bytes, 0);
                    for (p, out) in packed.chunks_exact_mut(bytes).take(used).enumerate() {
                        let some = at + p * ROWS..(at + (p + 1) * ROWS).min(rows.end);
                        panel::pack::<F>(w.rows(some), w.k, out);
                    }
                    &packed[..]
                }
            };
            let stream = Stream { bytes: stream, panel: bytes, k: w.k, used };
            let place = Place { acts, out, first, n };
            level.run(DotPanels { stream, panels, sums, place, format: PhantomData::<F> });
        }
    });
}

/// Up to [`BATCH`] panels, one after the other.
#[derive(Clone, Copy)]
struct Stream<'a> {
    bytes: &'a [u8],
    /// Bytes of one.
    panel: usize,
    k: usize,
    used: usize,
}

/// Where products go: `n` rows in all, of which the panels begin at `first`.
struct Place<'a, 'b> {
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    first: usize,
    n: usize,
}

struct DotPanels<'a, 'b, F> {
    stream: Stream<'a>,
    panels: &'a mut [Panel; 2],
    sums: &'a mut Vec<[f32; ROWS]>,
    place: Place<'a, 'b>,
    format: PhantomData<F>,
}

impl<F: Block> Kernel for DotPanels<'_, '_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let DotPanels { stream, panels, sums, mut place, .. } = self;
        let columns = place.acts.columns();
        if columns == 1 {
            return match (F::SIGNED, F::HALVES, F::SCALES.mins()) {
                (false, false, false) => place.column::<F, S, 0>(s, &stream),
                (false, false, true) => place.column::<F, S, MINS>(s, &stream),
                (false, true, false) => place.column::<F, S, HALVES>(s, &stream),
                (false, true, true) => place.column::<F, S, { HALVES | MINS }>(s, &stream),
                (true, ..) => place.column::<F, S, SIGNED>(s, &stream),
            };
        }
        let pair = 2 * columns;
        sums.clear();
        sums.resize(stream.used.div_ceil(2) * pair, [0.0; ROWS]);
        for t in 0..stream.k.div_ceil(TILE) {
            let chunks = TILE.min(stream.k - t * TILE) / CHUNK;
            for (i, sums) in sums.chunks_exact_mut(pair).enumerate() {
                let used = (stream.used - 2 * i).min(2);
                for (p, to) in panels.iter_mut().enumerate().take(used) {
                    let from = Packed::<F>::new(&stream.bytes[(2 * i + p) * stream.panel..], stream.k, t);
                    s.enter(Unpack { from, chunks, to });
                }
                let mut c = 0;
                while c < columns {
                    let sums = &mut sums[2 * c..];
                    c += match group::<S>(columns - c) {
                        6 => place.columns::<F, S, 6>(s, panels, used, (t, c), sums),
                        4 => place.columns::<F, S, 4>(s, panels, used, (t, c), sums),
                        2 => place.columns::<F, S, 2>(s, panels, used, (t, c), sums),
                        _ => place.columns::<F, S, 1>(s, panels, used, (t, c), sums),
                    };
                }
            }
        }
        for (i, sums) in sums.chunks_exact(pair).enumerate() {
            let mut c = 0;
            while c < columns {
                let wide = group::<S>(columns - c);
                for (p, sums) in sums[2 * c..].chunks(wide).take((stream.used - 2 * i).min(2)).enumerate() {
                    sums.iter().enumerate().for_each(|(at, sums)| place.put(c + at, 2 * i + p, sums));
                }
                c += wide;
            }
        }
    }
}

/// How many of so many columns are multiplied at a time.
#[inline(always)]
fn group<S: Simd>(columns: usize) -> usize {
    match columns {
        6.. if S::REGISTERS >= 32 => 6,
        4.. if S::REGISTERS >= 32 => 4,
        2.. => 2,
        _ => 1,
    }
}

impl Place<'_, '_> {
    /// The products of all panels with the only column.
    #[inline(always)]
    fn column<F: Block, S: Simd, const KIND: u32>(&mut self, s: S, stream: &Stream<'_>) {
        for p in 0..stream.used {
            let mut total = [[s.splat(0.0)]];
            for t in 0..stream.k.div_ceil(TILE) {
                let tile = Packed::<F>::new(&stream.bytes[p * stream.panel..], stream.k, t);
                let n = TILE.min(stream.k - t * TILE);
                product::<S, _, KIND, 1, 1>(s, &[tile], &[self.acts.ints(0, t)], n, &mut total);
            }
            let mut sums = [0.0; ROWS];
            s.store(total[0][0], &mut sums);
            self.put(0, p, &sums);
        }
    }

    /// Writes the products of panel `p` with column `c`.
    #[inline(always)]
    fn put(&mut self, c: usize, p: usize, sums: &[f32; ROWS]) {
        let out = &mut self.out.row(c)[self.first + p * ROWS..self.n.min(self.first + (p + 1) * ROWS)];
        match out.first_chunk_mut() {
            // One move, and no call.
            Some(out) => *out = *sums,
            None => out.copy_from_slice(&sums[..out.len()]),
        }
    }

    /// Adds the products of tile `t` with `C` columns from `c` on to `sums`, and gives their number.
    #[inline(always)]
    fn columns<F: Block, S: Simd, const C: usize>(
        &self,
        s: S,
        panels: &[Panel; 2],
        used: usize,
        at: (usize, usize),
        sums: &mut [[f32; ROWS]],
    ) -> usize {
        match used {
            1 => self.add::<F, S, 1, C>(s, [&panels[0]], at, sums),
            _ => self.add::<F, S, 2, C>(s, [&panels[0], &panels[1]], at, sums),
        }
        C
    }

    /// Adds the products of tile `t` of `R` panels with `C` columns from `c` on.
    #[inline(always)]
    fn add<F: Block, S: Simd, const R: usize, const C: usize>(
        &self,
        s: S,
        panels: [&Panel; R],
        (t, c): (usize, usize),
        sums: &mut [[f32; ROWS]],
    ) {
        let sums = sums.as_chunks_mut::<C>().0.first_chunk_mut::<R>().expect("two panels of sums for each column");
        let n = TILE.min(self.acts.k() - t * TILE);
        let acts: [_; C] = from_fn(|i| self.acts.ints(c + i, t));
        let eight = self.acts.precision() == Precision::Eight;
        // Kept out of line: it is the same for all formats of a kind.
        macro_rules! multiply {
            ($kind:expr) => {
                match eight {
                    true => s.enter(MultiplyEight::<{ $kind }, R, C> { panels, acts, n, sums }),
                    false => s.enter(Multiply::<{ $kind }, R, C> { panels, acts, n, sums }),
                }
            };
        }
        match (F::SIGNED, F::HALVES, F::SCALES.mins()) {
            (false, false, false) => multiply!(0),
            (false, false, true) => multiply!(MINS),
            (false, true, false) => multiply!(HALVES),
            (false, true, true) => multiply!(HALVES | MINS),
            (true, ..) => multiply!(SIGNED),
        }
    }
}

/// Codes are signed, scaled per chunk, and there are no minima.
pub(super) const SIGNED: u32 = 1;
/// Half a chunk has a scale of its own.
pub(super) const HALVES: u32 = 2;
/// There are minima, and zero is code 0.
pub(super) const MINS: u32 = 4;

/// The product of a tile of `R` panels with `C` columns.
struct Multiply<'a, const KIND: u32, const R: usize, const C: usize> {
    panels: [&'a Panel; R],
    acts: [&'a IntTile; C],
    n: usize,
    sums: &'a mut [[[f32; ROWS]; C]; R],
}

impl<const KIND: u32, const R: usize, const C: usize> Kernel for Multiply<'_, KIND, R, C> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Multiply { panels, acts, n, sums } = self;
        // Loops, not closures, wherever vectors are about: a closure would not inherit the target features.
        let mut total = [[s.splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                total[r][c] = s.floats(&sums[r][c]);
            }
        }
        product::<S, _, KIND, R, C>(s, &panels, &acts, n, &mut total);
        for r in 0..R {
            for c in 0..C {
                s.store(total[r][c], &mut sums[r][c]);
            }
        }
    }
}

/// Adds the products of `n` weights of a tile to `total`.
#[inline(always)]
fn product<S: Simd, W: Source, const KIND: u32, const R: usize, const C: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    n: usize,
    total: &mut [[S::Floats; C]; R],
) {
    let zero: [i32; R] = from_fn(|r| panels[r].zero(s));
    let parts = if KIND & HALVES != 0 { 2 } else { 1 };
    for j in 0..(n / CHUNK).min(TILE / CHUNK) {
        for r in 0..R {
            panels[r].begin(s, j);
        }
        for part in 0..parts {
            let g = parts * j + part;
            let dot = dots::<S, W, KIND, R, C>(s, panels, acts, j, part);
            for r in 0..R {
                let scales = panels[r].scale(s, g);
                for c in 0..C {
                    let [a, b] = acts[c].sums[j];
                    let sum = if KIND & HALVES != 0 { acts[c].sums[j][part] } else { a + b };
                    let scale = acts[c].scales[j];
                    let settled = if KIND & MINS != 0 { dot[r][c] } else { s.sub_int(dot[r][c], zero[r] * sum) };
                    let d = s.mul(scales, s.splat(scale));
                    total[r][c] = s.add(total[r][c], s.mul(d, s.to_floats(settled)));
                    if KIND & MINS != 0 {
                        let m = s.mul(panels[r].min(s, g), s.splat(scale * sum as f32));
                        total[r][c] = s.add(total[r][c], m);
                    }
                }
            }
        }
    }
}

/// Word `i` of chunk `j` of each panel.
#[inline(always)]
pub(super) fn words<S: Simd, W: Source, const R: usize>(s: S, panels: &[W; R], j: usize, i: usize) -> [S::Words; R] {
    let mut w = [panels[0].word(s, j, i); R];
    for r in 1..R {
        w[r] = panels[r].word(s, j, i);
    }
    w
}

/// Σ q·a of part `part` of chunk `j`: the whole or a half of it.
#[inline(always)]
fn dots<S: Simd, W: Source, const KIND: u32, const R: usize, const C: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    j: usize,
    part: usize,
) -> [[S::Ints; C]; R] {
    let signed = KIND & SIGNED != 0;
    let count = CHUNK / 4 / if KIND & HALVES != 0 { 2 } else { 1 };
    let range = part * count..(part + 1) * count;
    let mut high = [[s.zero(); C]; R];
    // Both bytes of the activations while the weights are at hand, if there are registers for that and the totals.
    let together = 3 * R * C + R < S::REGISTERS;
    let mut low = high;
    for i in range.clone() {
        let w = words::<S, W, R>(s, panels, j, i);
        for c in 0..C {
            for r in 0..R {
                high[r][c] = s.dot_words(high[r][c], w[r], acts[c].high[8 * j + i], signed);
                if together {
                    low[r][c] = s.dot_words(low[r][c], w[r], acts[c].low[8 * j + i], signed);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            high[r][c] = s.times_256(high[r][c]);
            if together {
                high[r][c] = s.add_ints(high[r][c], low[r][c]);
            }
        }
    }
    if !together {
        for i in range {
            let w = words::<S, W, R>(s, panels, j, i);
            for c in 0..C {
                for r in 0..R {
                    high[r][c] = s.dot_words(high[r][c], w[r], acts[c].low[8 * j + i], signed);
                }
            }
        }
    }
    high
}
