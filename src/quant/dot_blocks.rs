//! The matrix product of block formats. Rows are unpacked to panels of sixteen, each once for all columns, and the product
//! itself knows no formats: with w = d·q + m and x = s·a, Σ w·x = Σ_groups d·s·(Σ q·a) + Σ_groups m·s·(Σ a), where the inner
//! sums are integers. It is the same code for one column as for many, and gives each the same bits.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::activations::Activations;
use super::dot::Weights;
use super::format::Block;
use super::tile::{CHUNK, GROUP, IntTile, Panel, ROWS, Scratch, Sink, Staging, TILE};
use crate::simd::{Columns, Kernel, Level, Simd, array};
use std::array::from_fn;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

thread_local! {
    static SCRATCH: RefCell<Scratch> = const { RefCell::new(Scratch::ZERO) };
}

/// The table's entry: all rows, all columns.
pub(super) fn dot<F: Block>(level: Level, w: Weights<'_>, acts: &Activations, out: &mut Columns<'_>) {
    SCRATCH.with_borrow_mut(|scratch| level.run(DotRows { w, acts, out, scratch, format: PhantomData::<F> }));
}

struct DotRows<'a, 'b, F> {
    w: Weights<'a>,
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    scratch: &'a mut Scratch,
    format: PhantomData<F>,
}

impl<F: Block> Kernel for DotRows<'_, '_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let DotRows { w, acts, out, scratch, .. } = self;
        let n = out.range().len();
        let panels = scratch.panels.len();
        for first in (0..n).step_by(panels * ROWS) {
            let used = (n - first).div_ceil(ROWS).min(panels);
            for t in 0..w.k.div_ceil(TILE) {
                for p in 0..used {
                    let row = first + p * ROWS;
                    load::<F, S>(s, &w, row..(row + ROWS).min(n), t, &mut scratch.staging);
                    turn::<F, S>(s, TILE.min(w.k - t * TILE), &scratch.staging, &mut scratch.panels[p]);
                }
                let mut add = Add { panels: &scratch.panels[..used], acts, out, first, t };
                let mut c = 0;
                while c < acts.columns() {
                    c += match acts.columns() - c {
                        6.. if S::REGISTERS >= 32 => add.columns::<F, S, 6>(s, c),
                        4.. if S::REGISTERS >= 32 => add.columns::<F, S, 4>(s, c),
                        2.. => add.columns::<F, S, 2>(s, c),
                        _ => add.columns::<F, S, 1>(s, c),
                    };
                }
            }
        }
    }
}

/// One block's part of a staged row.
struct Row<'a> {
    codes: &'a mut [[u8; CHUNK]],
    scales: &'a mut [f32],
    mins: &'a mut [f32],
    halves: bool,
}

impl<S: Simd> Sink<S> for Row<'_> {
    #[inline(always)]
    fn put(&mut self, s: S, j: usize, codes: S::Bytes, scales: [f32; 2], mins: [f32; 2]) {
        s.store_bytes(codes, &mut self.codes[j]);
        if self.halves {
            self.scales[2 * j..2 * j + 2].copy_from_slice(&scales);
            self.mins[2 * j..2 * j + 2].copy_from_slice(&mins);
        } else {
            self.scales[j] = scales[0];
            self.mins[j] = mins[0];
        }
    }
}

/// Unpacks tile `t` of up to sixteen rows; rows that are not there become zero.
#[inline(always)]
fn load<F: Block, S: Simd>(s: S, w: &Weights<'_>, rows: Range<usize>, t: usize, to: &mut Staging) {
    let bytes = |weights: usize| weights / F::DTYPE.block() * F::DTYPE.block_bytes();
    let n = TILE.min(w.k - t * TILE);
    let (start, end) = (bytes(t * TILE), bytes(t * TILE + n));
    // What comes next in this row, or first in the row that takes its place.
    let next = if end < w.row { end } else { 2 * ROWS * w.row };
    let (chunks, groups) = (F::DTYPE.block() / CHUNK, F::DTYPE.block() / if F::HALVES { GROUP } else { CHUNK });
    for (r, row) in rows.clone().enumerate() {
        let ahead = &w.bytes[(row * w.row + next).min(w.bytes.len())..];
        ahead[..(end - start).min(ahead.len())].chunks(64).for_each(|line| s.prefetch(line));
        let blocks: &[F::Raw] = bytemuck::cast_slice(&w.bytes[row * w.row..][start..end]);
        let codes = to.codes[r].chunks_exact_mut(chunks);
        let scales = to.scales[r].chunks_exact_mut(groups).zip(to.mins[r].chunks_exact_mut(groups));
        for ((b, codes), (scales, mins)) in blocks.iter().zip(codes).zip(scales) {
            F::unpack(s, b, &mut Row { codes, scales, mins, halves: F::HALVES });
        }
    }
    for r in rows.len()..ROWS {
        to.codes[r] = [[0; CHUNK]; _];
        to.scales[r] = [0.0; _];
        to.mins[r] = [0.0; _];
    }
}

/// Turns `n` weights of sixteen rows.
#[inline(always)]
fn turn<F: Block, S: Simd>(s: S, n: usize, from: &Staging, to: &mut Panel) {
    for (i, to) in to.codes.chunks_exact_mut(16).take(n.div_ceil(64)).enumerate() {
        let mut rows = [s.words(&[0; 64]); ROWS];
        for r in 0..ROWS {
            rows[r] = s.words(array(from.codes[r].as_flattened(), 64 * i));
        }
        let rows = s.transpose(rows);
        for r in 0..ROWS {
            let words = if F::SIGNED { s.weights_signed(rows[r]) } else { rows[r] };
            s.store_words(words, &mut to[r]);
        }
    }
    let groups = n.div_ceil(if F::HALVES { GROUP } else { CHUNK });
    turn_floats(s, groups, &from.scales, &mut to.scales);
    if !F::SIGNED {
        turn_floats(s, groups, &from.mins, &mut to.mins);
    }
}

#[inline(always)]
fn turn_floats<S: Simd, const N: usize>(s: S, n: usize, from: &[[f32; N]; ROWS], to: &mut [[f32; ROWS]; N]) {
    for (i, to) in to.chunks_exact_mut(16).take(n.div_ceil(16)).enumerate() {
        let mut rows = [s.words(&[0; 64]); ROWS];
        for r in 0..ROWS {
            rows[r] = s.words(bytemuck::cast_ref(array::<f32, 16>(&from[r], 16 * i)));
        }
        let rows = s.transpose(rows);
        for r in 0..ROWS {
            s.store_words(rows[r], bytemuck::cast_mut(&mut to[r]));
        }
    }
}

/// What tile `t` of the panels, whose rows begin at `first`, adds to the output.
struct Add<'a, 'b> {
    panels: &'a [Panel],
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    first: usize,
    t: usize,
}

impl Add<'_, '_> {
    /// Adds the products with `C` columns from `c` on, and gives their number.
    #[inline(always)]
    fn columns<F: Block, S: Simd, const C: usize>(&mut self, s: S, c: usize) -> usize {
        match self.panels {
            [a, b] => self.panels::<F, S, 2, C>(s, [a, b], c),
            [a] => self.panels::<F, S, 1, C>(s, [a], c),
            _ => unreachable!("one panel or two"),
        }
        C
    }

    #[inline(always)]
    fn panels<F: Block, S: Simd, const R: usize, const C: usize>(&mut self, s: S, panels: [&Panel; R], c: usize) {
        let mut sums = [[[0.0; ROWS]; C]; R];
        let n = TILE.min(self.acts.k() - self.t * TILE);
        let all = self.out.range().len();
        let rows: [_; R] = from_fn(|r| self.first + r * ROWS..(self.first + (r + 1) * ROWS).min(all));
        if self.t > 0 {
            for i in 0..C {
                let out = self.out.row(c + i);
                for r in 0..R {
                    sums[r][i][..rows[r].len()].copy_from_slice(&out[rows[r].clone()]);
                }
            }
        }
        let acts: [_; C] = from_fn(|i| self.acts.ints(c + i, self.t));
        // Kept out of line: it is the same for all formats of a kind.
        match (F::SIGNED, F::HALVES) {
            (false, false) => s.enter(Multiply::<false, false, R, C> { panels, acts, n, sums: &mut sums }),
            (false, true) => s.enter(Multiply::<false, true, R, C> { panels, acts, n, sums: &mut sums }),
            (true, false) => s.enter(Multiply::<true, false, R, C> { panels, acts, n, sums: &mut sums }),
            (true, true) => s.enter(Multiply::<true, true, R, C> { panels, acts, n, sums: &mut sums }),
        }
        for i in 0..C {
            let out = self.out.row(c + i);
            for r in 0..R {
                out[rows[r].clone()].copy_from_slice(&sums[r][i][..rows[r].len()]);
            }
        }
    }
}

/// The product of `R` panels with `C` columns.
struct Multiply<'a, const SIGNED: bool, const HALVES: bool, const R: usize, const C: usize> {
    panels: [&'a Panel; R],
    acts: [&'a IntTile; C],
    n: usize,
    sums: &'a mut [[[f32; ROWS]; C]; R],
}

impl<const SIGNED: bool, const HALVES: bool, const R: usize, const C: usize> Kernel
    for Multiply<'_, SIGNED, HALVES, R, C>
{
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
        // Words of a group.
        let words = if HALVES { GROUP / 4 } else { CHUNK / 4 };
        for g in 0..(n / 4 / words).min(TILE / 4 / words) {
            let mut dot = [[s.zero(); C]; R];
            for w in g * words..(g + 1) * words {
                for c in 0..C {
                    for r in 0..R {
                        dot[r][c] = s.dot_words::<SIGNED>(dot[r][c], &panels[r].codes[w], acts[c].high[w]);
                    }
                }
            }
            for c in 0..C {
                for r in 0..R {
                    dot[r][c] = s.times_256(dot[r][c]);
                }
            }
            for w in g * words..(g + 1) * words {
                for c in 0..C {
                    for r in 0..R {
                        dot[r][c] = s.dot_words::<SIGNED>(dot[r][c], &panels[r].codes[w], acts[c].low[w]);
                    }
                }
            }
            for c in 0..C {
                let (scale, sum) = if HALVES {
                    (acts[c].scales[g / 2], acts[c].sums[g / 2][g % 2])
                } else {
                    (acts[c].scales[g], acts[c].sums[g][0] + acts[c].sums[g][1])
                };
                let x = s.splat(scale);
                for r in 0..R {
                    let p = s.to_floats(if SIGNED { s.settle(dot[r][c], sum) } else { dot[r][c] });
                    let d = s.mul(s.floats(&panels[r].scales[g]), x);
                    total[r][c] = s.add(total[r][c], s.mul(d, p));
                    if !SIGNED {
                        let m = s.mul(s.floats(&panels[r].mins[g]), s.splat(scale * sum as f32));
                        total[r][c] = s.add(total[r][c], m);
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(total[r][c], &mut sums[r][c]);
            }
        }
    }
}
