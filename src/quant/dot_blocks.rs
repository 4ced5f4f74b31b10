//! The matrix product of block formats, on panels of sixteen interleaved rows. It knows no formats: with w = d · (q − z) + m and
//! x = s · a, Σ w·x = Σ_groups d·s·(Σ q·a − z·Σ a) + Σ_groups m·s·(Σ a), where the inner sums are integers.
//!
//! Columns read panels as a stream and unpack them in registers if there are many of those, or if it is one column, which memory bounds
//! ([`Direct`]). Elsewhere, and where many columns of 8 bits come, they share tiles that are unpacked to the first-level cache ([`Ints`]). Each column
//! gets the same bits either way.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::activations::Activations;
use super::dot::Matrix;
use super::dot_eight::{Factors, MultiplyEight, add_wide, load, store};
use super::dot_part::{HALVES, Kind, Known, LARGE, MINS, Of, SIGNED, add_part, kind, unpacked};
use super::dot_tiles::{Blocks, Tiles};
use super::format::Block;
use super::gemm::{self, Ahead, FewColumns, WeightRows, put};
use super::panel::{self, Packed};
use super::tile::{CHUNK, IntTile, Panel, ROWS, Source, TILE};
use crate::base::Layout;
use crate::simd::{Columns, Level, Simd, SimdKernel, array};
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
            Layout::Packed => &w.bytes[rows.start / ROWS * step..],
            Layout::Rows => {
                packed.resize(rows.len().div_ceil(ROWS) * step, 0);
                for (first, out) in rows.clone().step_by(ROWS).zip(packed.chunks_exact_mut(step)) {
                    panel::pack::<F>(w.rows(first..rows.end.min(first + ROWS)), w.k, out);
                }
                &packed[..]
            }
        };
        let w = WeightRows { bytes, step, k: w.k, rows: rows.len() };
        let many_registers = level.registers() >= 32;
        let direct = match acts.columns() {
            1 => true,
            ..=FEW => many_registers,
            _ => many_registers && !acts.in_eight(),
        };
        if acts.in_tiles() {
            gemm::multiply::<Tiles<Blocks<F>>>(level, w, acts, out);
        } else if direct {
            level.run(Direct::<F> { w, acts, out, format: PhantomData });
        } else {
            gemm::multiply::<Ints<F>>(level, w, acts, out);
        }
    });
}

/// Up to so many columns of eight bits unpacking a panel for each four of them costs less than keeping it.
const FEW: usize = 32;
/// Bytes of the activations that meet all panels before the next do: they stay in the second-level cache.
const CACHED: usize = 448 << 10;

/// The products of all panels, unpacked in registers: where those are many, that goes on beside the products.
struct Direct<'a, 'b, F> {
    w: WeightRows<'a>,
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    format: PhantomData<F>,
}

impl<F: Block> SimdKernel for Direct<'_, '_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let panels = self.out.range().len().div_ceil(ROWS);
        let mut p = 0;
        if S::STREAMS > 1 && self.acts.columns() == 1 && !self.acts.in_eight() {
            while p + 2 <= panels {
                self.panels::<S, 2, 1, false>(s, p, 0);
                p += 2;
            }
        }
        let columns = self.acts.columns();
        let block = (CACHED / (self.w.k.div_ceil(TILE) * size_of::<IntTile>()) / 4 * 4).max(4);
        for first in (0..columns).step_by(block) {
            for p in p..panels {
                let (mut c, end) = (first, columns.min(first + block));
                while c < end {
                    c += match self.acts.in_eight() {
                        true => self.group::<S, true>(s, p, c, end - c),
                        false => self.group::<S, false>(s, p, c, end - c),
                    };
                }
            }
        }
    }
}

impl<F: Block> Direct<'_, '_, F> {
    /// Panel `p` with up to four of `left` columns from `c` on. Gives their number. Of more at once the sums would leave the registers.
    #[inline(always)]
    fn group<S: Simd, const EIGHT: bool>(&mut self, s: S, p: usize, c: usize, left: usize) -> usize {
        match left {
            4.. if S::REGISTERS >= 32 => self.panels::<S, 1, 4, EIGHT>(s, p, c),
            2.. if S::REGISTERS >= 32 => self.panels::<S, 1, 2, EIGHT>(s, p, c),
            _ => self.panels::<S, 1, 1, EIGHT>(s, p, c),
        }
    }

    /// `R` panels from panel `p` on with `C` columns from column `c` on. Gives `C`.
    #[inline(always)]
    fn panels<S: Simd, const R: usize, const C: usize, const EIGHT: bool>(
        &mut self,
        s: S,
        p: usize,
        c: usize,
    ) -> usize {
        let Direct { w, acts, out, .. } = self;
        let mut total = [[s.splat(0.0); C]; R];
        for t in 0..w.k.div_ceil(TILE) {
            let tile = |r: usize| Packed::<F>::new(&w.bytes[(p + r) * w.step..], w.k, t, R);
            let mut tiles = [tile(0); R];
            for r in 1..R {
                tiles[r] = tile(r);
            }
            let n = TILE.min(w.k - t * TILE);
            let acts: [_; C] = from_fn(|i| acts.ints(c + i, t));
            for j in 0..(n / CHUNK).min(TILE / CHUNK) {
                for tile in &tiles {
                    tile.begin(s, j);
                }
                if EIGHT {
                    Factors::<_, Of<F>, R, C>::high(&tiles, &acts).add_chunk(s, j, &mut total);
                } else {
                    chunk::<S, _, Of<F>, R, C>(s, &tiles, &acts, j, &mut total);
                }
            }
            if EIGHT {
                add_wide::<S, _, Of<F>, R, C>(s, &tiles, &acts, &mut total);
            }
        }
        for r in 0..R {
            for i in 0..C {
                let mut sums = [0.0; ROWS];
                s.store(total[r][i], &mut sums);
                let out = &mut out.row(c + i)[(p + r) * ROWS..];
                let rows = out.len().min(ROWS);
                put(&mut out[..rows], &sums);
            }
        }
        C
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
    fn tile<'a>(w: &WeightRows<'a>, p: usize, t: usize) -> &'a [u8] {
        let stream = w.bytes.get(p * w.step..(p + 1) * w.step).unwrap_or_default();
        &stream
            [(t * panel::tile_bytes::<F>()).min(stream.len())..((t + 1) * panel::tile_bytes::<F>()).min(stream.len())]
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, w: &WeightRows<'_>, p: usize, t: usize, to: &mut Panel) {
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
        ahead: &mut Ahead<'_>,
        sums: &mut [[f32; ROWS]],
    ) {
        match used {
            1 => add::<F, S, 1, C>(s, [&panels[0]], acts, at, ahead, sums),
            _ => add::<F, S, 2, C>(s, [&panels[0], &panels[1]], acts, at, ahead, sums),
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
    ahead: &mut Ahead<'_>,
    sums: &mut [[f32; ROWS]],
) {
    let sums = sums.as_chunks_mut::<C>().0.first_chunk_mut::<R>().expect("two panels of sums for each column");
    let n = TILE.min(acts.k() - t * TILE);
    let eight = acts.in_eight();
    let acts: [_; C] = from_fn(|i| acts.ints(c + i, t));
    // Kept out of line: it is the same for all formats of a kind.
    macro_rules! multiply {
        ($kind:expr) => {
            // What is never called is not even compiled: with many registers 16 bits go the direct way.
            if const { S::REGISTERS < 32 } && !eight {
                s.enter(Multiply::<{ $kind }, R, C> { panels, acts, n, ahead, sums })
            } else {
                s.enter(MultiplyEight::<{ $kind }, R, C> { panels, acts, n, ahead, sums })
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
struct Multiply<'a, 'b, const KIND: u32, const R: usize, const C: usize> {
    panels: [&'a Panel; R],
    acts: [&'a IntTile; C],
    n: usize,
    ahead: &'a mut Ahead<'b>,
    sums: &'a mut [[[f32; ROWS]; C]; R],
}

impl<const KIND: u32, const R: usize, const C: usize> SimdKernel for Multiply<'_, '_, KIND, R, C> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Multiply { panels, acts, n, ahead, sums } = self;
        let mut total = load::<S, R, C>(s, sums);
        for j in 0..(n / CHUNK).min(TILE / CHUNK) {
            ahead.fetch(s);
            chunk::<S, _, Known<KIND>, R, C>(s, &panels, &acts, j, &mut total);
        }
        store::<S, R, C>(s, &total, sums);
    }
}

/// Adds the products of chunk `j` to `total`.
#[inline(always)]
fn chunk<S: Simd, W: Source, K: Kind, const R: usize, const C: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    j: usize,
    total: &mut [[S::Floats; C]; R],
) {
    part::<S, W, K, R, C, 0>(s, panels, acts, j, total);
    if K::KIND & HALVES != 0 {
        part::<S, W, K, R, C, 1>(s, panels, acts, j, total);
    }
}

/// Adds those of part `PART` of it: the whole or a half.
#[inline(always)]
fn part<S: Simd, W: Source, K: Kind, const R: usize, const C: usize, const PART: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    j: usize,
    total: &mut [[S::Floats; C]; R],
) {
    let g = if K::KIND & HALVES != 0 { 2 * j + PART } else { j };
    let dot = dots::<S, W, K, R, C, PART>(s, panels, acts, j);
    for r in 0..R {
        let scales = panels[r].scale(s, g);
        for c in 0..C {
            let terms = &acts[c].terms;
            let d = s.mul(scales, s.splat(terms.scales[j]));
            total[r][c] = s.add(total[r][c], s.mul(d, s.to_floats(dot[r][c])));
            if K::KIND & MINS != 0 {
                let m = s.mul(panels[r].min(s, g), s.splat(terms.offsets[j][PART]));
                total[r][c] = s.add(total[r][c], m);
            }
        }
    }
}

/// `starts` and Σ q·a of chunk `j` with whole activations.
#[inline(always)]
fn sixteen<S: Simd, const R: usize, const C: usize>(
    s: S,
    words: [&[[u8; 64]; TILE / 4]; R],
    acts: &[&IntTile; C],
    j: usize,
    starts: &[S::Ints; C],
) -> [[S::Ints; C]; R] {
    const WORDS: usize = CHUNK / 4;
    let mut whole = [[[0; 4]; WORDS]; C];
    for c in 0..C {
        let (high, low): (&[_; WORDS], &[_; WORDS]) = (array(&acts[c].high, WORDS * j), array(&acts[c].low, WORDS * j));
        for i in 0..WORDS {
            for n in 0..4 {
                whole[c][i][n] = (i16::from(high[i][n]) << 8) + i16::from(low[i][n]);
            }
        }
    }
    let mut dots = [*starts; R];
    for r in 0..R {
        let dot = s.dot_sixteen(array(words[r], WORDS * j), &whole);
        for c in 0..C {
            dots[r][c] = s.add_ints(dots[r][c], dot[c]);
        }
    }
    dots
}

/// Σ (q − zero)·a of part `PART` of chunk `j`, with both bytes of the activations.
#[inline(always)]
fn dots<S: Simd, W: Source, K: Kind, const R: usize, const C: usize, const PART: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    j: usize,
) -> [[S::Ints; C]; R] {
    let mut bytes = [[&acts[0].high; C], [&acts[0].low; C]];
    let mut starts = [s.zero(); C];
    for c in 0..C {
        (bytes[0][c], bytes[1][c]) = (&acts[c].high, &acts[c].low);
        if K::KIND & MINS == 0 {
            starts[c] = s.splat_int(acts[c].terms.starts[j][PART]);
        }
    }
    // Unsigned codes do better in bytes, whose sums fit 16 bits: 30 multiplications per nanosecond at Q4_1 and not 26, where signed codes (Q8_0)
    // take 26 and not 19 (Zen 3, 16 columns).
    if S::SIXTEEN
        && K::KIND & SIGNED != 0
        && let Some(words) = unpacked(panels)
    {
        return sixteen(s, words, acts, j, &starts);
    }
    // Both bytes while the weights are at hand, if there are registers for that and the totals.
    if 3 * R * C + R < S::REGISTERS {
        let mut sums = [[[s.zero(); C]; R], [starts; R]];
        add_part::<S, W, K, R, C, PART, 2>(s, panels, &bytes, j, &mut sums);
        for r in 0..R {
            for c in 0..C {
                sums[0][r][c] = s.add_ints(s.times_256(sums[0][r][c]), sums[1][r][c]);
            }
        }
        return sums[0];
    }
    let [high, low] = bytes;
    let mut sums = [[[s.zero(); C]; R]];
    add_part::<S, W, K, R, C, PART, 1>(s, panels, &[high], j, &mut sums);
    for r in 0..R {
        for c in 0..C {
            sums[0][r][c] = s.add_ints(s.times_256(sums[0][r][c]), starts[c]);
        }
    }
    add_part::<S, W, K, R, C, PART, 1>(s, panels, &[low], j, &mut sums);
    sums[0]
}
