//! The matrix product of block formats, on panels of sixteen interleaved rows. It knows no formats: with w = d · (q − z) + m and
//! x = s · a, Σ w·x = Σ_groups d·s·(Σ q·a − z·Σ a) + Σ_groups m·s·(Σ a), where the inner sums are integers.
//!
//! A single column reads panels as one or two streams and unpacks them in registers: memory is what bounds it. More columns share
//! tiles that are unpacked to the first-level cache, two panels at a time. Each column gets the same bits either way.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::activations::{Activations, Precision};
use super::dot::Matrix;
use super::dot_eight::{MultiplyEight, load, store};
use super::dot_part::{HALVES, Kind, Known, LARGE, MINS, Of, SIGNED, add_part, kind};
use super::dot_tiles::{Blocks, Tiles};
use super::format::Block;
use super::gemm::{self, FewColumns, Weights, put};
use super::panel::{self, Packed};
use super::tile::{CHUNK, IntTile, Panel, ROWS, Source, TILE};
use crate::base::Layout;
use crate::simd::{Columns, Kernel, Level, Simd};
use std::array::from_fn;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

thread_local! {
    /// Two unpacked panels: with their rows every activation is used twice.
    static PANELS: RefCell<[Panel; 2]> = const { RefCell::new([Panel::ZERO; 2]) };
    /// Panels of rows that come as they lie in a file.
    static PACKED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The table's entry: some rows, all columns.
pub(super) fn dot<F: Block>(
    level: Level,
    w: &Matrix<'_>,
    rows: Range<usize>,
    acts: &Activations,
    out: &mut Columns<'_>,
) {
    PACKED.with_borrow_mut(|packed| {
        let step = panel::panel_bytes::<F>(w.k);
        let bytes = match w.layout {
            // To the end, so that what comes next can be fetched ahead.
            Layout::Panels => &w.bytes[rows.start / ROWS * step..],
            Layout::Rows => {
                packed.resize(rows.len().div_ceil(ROWS) * step, 0);
                for (first, out) in rows.clone().step_by(ROWS).zip(packed.chunks_exact_mut(step)) {
                    panel::pack::<F>(w.rows(first..rows.end.min(first + ROWS)), w.k, out);
                }
                &packed[..]
            }
        };
        let w = Weights { bytes, step, k: w.k, rows: rows.len() };
        match acts.columns() {
            _ if acts.in_tiles() => gemm::multiply::<Tiles<Blocks<F>>>(level, w, acts, out),
            1 => level.run(Column::<F> { w, acts, out, format: PhantomData }),
            _ => gemm::multiply::<Ints<F>>(level, w, acts, out),
        }
    });
}

/// The products of all panels with the only column.
struct Column<'a, 'b, F> {
    w: Weights<'a>,
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    format: PhantomData<F>,
}

impl<F: Block> Kernel for Column<'_, '_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Elsewhere zeros are multiplied: where a dot product is one instruction, memory is the bound.
        if S::NARROW && self.acts.precision() == Precision::Eight {
            self.dot::<S, true>(s)
        } else {
            self.dot::<S, false>(s)
        }
    }
}

impl<F: Block> Column<'_, '_, F> {
    #[inline(always)]
    fn dot<S: Simd, const EIGHT: bool>(mut self, s: S) {
        let panels = self.out.range().len().div_ceil(ROWS);
        let mut p = 0;
        while S::STREAMS > 1 && p + 2 <= panels {
            self.panels::<S, 2, EIGHT>(s, p);
            p += 2;
        }
        for p in p..panels {
            self.panels::<S, 1, EIGHT>(s, p);
        }
    }

    /// `R` panels from panel `p` on.
    #[inline(always)]
    fn panels<S: Simd, const R: usize, const EIGHT: bool>(&mut self, s: S, p: usize) {
        let Column { w, acts, out, .. } = self;
        let out = &mut out.row(0)[p * ROWS..];
        let mut total = [[s.splat(0.0)]; R];
        for t in 0..w.k.div_ceil(TILE) {
            let tile = |r: usize| Packed::<F>::new(&w.bytes[(p + r) * w.step..], w.k, t, R);
            let mut tiles = [tile(0); R];
            for r in 1..R {
                tiles[r] = tile(r);
            }
            let n = TILE.min(w.k - t * TILE);
            product::<S, _, Of<F>, R, 1, EIGHT>(s, &tiles, &[acts.ints(0, t)], n, &mut total);
        }
        for (total, out) in total.iter().zip(out.chunks_mut(ROWS)) {
            let mut sums = [0.0; ROWS];
            s.store(total[0], &mut sums);
            put(out, &sums);
        }
    }
}

/// Weights and activations as bytes, the latter in two or, but for outliers, in one.
struct Ints<F>(PhantomData<F>);

impl<F: Block> gemm::Unpack for Ints<F> {
    type Panel = Panel;
    const TILE: usize = TILE;
    const ROWS_PER_STEP: usize = ROWS;

    #[inline(always)]
    fn with_panels<T>(f: impl FnOnce(&mut [Panel; 2]) -> T) -> T {
        PANELS.with_borrow_mut(f)
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, w: &Weights<'_>, p: usize, t: usize, to: &mut Panel) {
        Packed::<F>::new(&w.bytes[p * w.step..], w.k, t, 1).unpack(s, TILE.min(w.k - t * TILE) / CHUNK, to);
    }
}

impl<F: Block> FewColumns for Ints<F> {
    #[inline(always)]
    fn add<S: Simd, const C: usize>(
        s: S,
        panels: &[Panel; 2],
        used: usize,
        acts: &Activations,
        at: (usize, usize),
        sums: &mut [[f32; ROWS]],
    ) {
        match used {
            1 => add::<F, S, 1, C>(s, [&panels[0]], acts, at, sums),
            _ => add::<F, S, 2, C>(s, [&panels[0], &panels[1]], acts, at, sums),
        }
    }
}

const NONE: u32 = 0;
const MINS_LARGE: u32 = MINS | LARGE;
const HALVES_LARGE: u32 = HALVES | LARGE;
const HALVES_MINS: u32 = HALVES | MINS;

/// Adds the products of tile `t` of `R` panels with `C` columns from `c` on to `sums`.
#[inline(always)]
fn add<F: Block, S: Simd, const R: usize, const C: usize>(
    s: S,
    panels: [&Panel; R],
    acts: &Activations,
    (t, c): (usize, usize),
    sums: &mut [[f32; ROWS]],
) {
    let sums = sums.as_chunks_mut::<C>().0.first_chunk_mut::<R>().expect("two panels of sums for each column");
    let n = TILE.min(acts.k() - t * TILE);
    let eight = acts.precision() == Precision::Eight;
    let acts: [_; C] = from_fn(|i| acts.ints(c + i, t));
    // Kept out of line: it is the same for all formats of a kind.
    macro_rules! multiply {
        ($kind:expr) => {
            match eight {
                true => s.enter(MultiplyEight::<{ $kind }, R, C> { panels, acts, n, sums }),
                false => s.enter(Multiply::<{ $kind }, R, C> { panels, acts, n, sums }),
            }
        };
    }
    macro_rules! multiply_kind {
        ($of:expr; $($kind:ident)*) => {
            match $of {
                $($kind => multiply!($kind),)*
                other => unreachable!("no product for kind {other}"),
            }
        };
    }
    // Kinds that only narrow levels have are not even compiled for the others.
    if S::NARROW {
        multiply_kind!(kind::<F>(); NONE LARGE MINS MINS_LARGE HALVES HALVES_LARGE HALVES_MINS SIGNED)
    } else {
        multiply_kind!(kind::<F>() & !LARGE; NONE MINS HALVES HALVES_MINS SIGNED)
    }
}

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
        let mut total = load::<S, R, C>(s, sums);
        product::<S, _, Known<KIND>, R, C, false>(s, &panels, &acts, n, &mut total);
        store::<S, R, C>(s, &total, sums);
    }
}

/// Adds the products of `n` weights of a tile to `total`. If `EIGHT`, which is for a single column, low bytes are read only where there are some;
/// the result is the same.
#[inline(always)]
fn product<S: Simd, W: Source, K: Kind, const R: usize, const C: usize, const EIGHT: bool>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    n: usize,
    total: &mut [[S::Floats; C]; R],
) {
    const { assert!(!EIGHT || C == 1) };
    for j in 0..(n / CHUNK).min(TILE / CHUNK) {
        for r in 0..R {
            panels[r].begin(s, j);
        }
        if EIGHT && acts[0].wide >> j & 1 == 0 {
            part::<S, W, K, R, C, 0, 1>(s, panels, acts, j, total);
            if K::KIND & HALVES != 0 {
                part::<S, W, K, R, C, 1, 1>(s, panels, acts, j, total);
            }
        } else {
            part::<S, W, K, R, C, 0, 2>(s, panels, acts, j, total);
            if K::KIND & HALVES != 0 {
                part::<S, W, K, R, C, 1, 2>(s, panels, acts, j, total);
            }
        }
    }
}

/// Adds the products of part `PART` of chunk `j`, the whole or a half of it, with `B` bytes of the activations.
#[inline(always)]
fn part<S: Simd, W: Source, K: Kind, const R: usize, const C: usize, const PART: usize, const B: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    j: usize,
    total: &mut [[S::Floats; C]; R],
) {
    let g = if K::KIND & HALVES != 0 { 2 * j + PART } else { j };
    let dot = dots::<S, W, K, R, C, PART, B>(s, panels, acts, j);
    for r in 0..R {
        let scales = panels[r].scale(s, g);
        for c in 0..C {
            let [a, b] = acts[c].sums[j];
            let sum = if K::KIND & HALVES != 0 { acts[c].sums[j][PART] } else { a + b };
            let scale = acts[c].scales[j];
            let settled = if K::KIND & MINS != 0 { dot[r][c] } else { s.sub_int(dot[r][c], panels[r].zero(s) * sum) };
            let d = s.mul(scales, s.splat(scale));
            total[r][c] = s.add(total[r][c], s.mul(d, s.to_floats(settled)));
            if K::KIND & MINS != 0 {
                let m = s.mul(panels[r].min(s, g), s.splat(scale * sum as f32));
                total[r][c] = s.add(total[r][c], m);
            }
        }
    }
}

/// Σ q·a of part `PART` of chunk `j`, of which the low bytes count if `B` is 2.
#[inline(always)]
fn dots<S: Simd, W: Source, K: Kind, const R: usize, const C: usize, const PART: usize, const B: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    j: usize,
) -> [[S::Ints; C]; R] {
    let mut bytes = [[&acts[0].high; C], [&acts[0].low; C]];
    for c in 0..C {
        (bytes[0][c], bytes[1][c]) = (&acts[c].high, &acts[c].low);
    }
    let mut sums = [[[s.zero(); C]; R]; 2];
    // Both bytes of the activations while the weights are at hand, if there are registers for that and the totals.
    if B == 2 && 3 * R * C + R < S::REGISTERS {
        add_part::<S, W, K, R, C, PART, 2>(s, panels, &bytes, j, &mut sums);
        for r in 0..R {
            for c in 0..C {
                sums[0][r][c] = s.add_ints(s.times_256(sums[0][r][c]), sums[1][r][c]);
            }
        }
        return sums[0];
    }
    let [high, low] = bytes;
    let mut sums = [sums[0]];
    add_part::<S, W, K, R, C, PART, 1>(s, panels, &[high], j, &mut sums);
    for r in 0..R {
        for c in 0..C {
            sums[0][r][c] = s.times_256(sums[0][r][c]);
        }
    }
    if B == 2 {
        add_part::<S, W, K, R, C, PART, 1>(s, panels, &[low], j, &mut sums);
    }
    sums[0]
}
