//! The product of tiles with activations of eight bits, but for outliers: one dot product for four weights of sixteen rows, and
//! per chunk a conversion, a product and a fused product more. `dot_blocks` says what is computed.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::dot_part::{Codes, HALVES, Kind, Known, MINS, add_part};
use super::gemm::Ahead;
use super::tile::{Byte, CHUNK, IntTile, Panel, ROWS, Source, TILE, Terms, WeightCodes};
use crate::simd::{Simd, SimdKernel};
use std::marker::PhantomData;

/// Chunks in a tile.
const CHUNKS: usize = TILE / CHUNK;

/// Adds the products of `n` weights of `R` panels with `C` columns to `sums`. Columns know the weights that they meet.
pub(super) struct MultiplyEight<'a, 'b, const KIND: u32, const R: usize, const C: usize> {
    pub panels: [&'a Panel; R],
    pub acts: [&'a IntTile; C],
    pub n: usize,
    pub ahead: &'a mut Ahead<'b>,
    pub sums: &'a mut [[[f32; ROWS]; C]; R],
}

impl<const KIND: u32, const R: usize, const C: usize> SimdKernel for MultiplyEight<'_, '_, KIND, R, C> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let MultiplyEight { panels, acts, n, ahead, sums } = self;
        let mut wide = 0;
        for c in 0..C {
            wide |= acts[c].wide;
        }
        let factors = Factors::<_, Known<KIND>, R, C>::high(&panels, &acts);
        let mut total = load::<S, R, C>(s, sums);
        for j in 0..(n / CHUNK).min(CHUNKS) {
            ahead.fetch(s);
            factors.add_chunk(s, j, &mut total);
        }
        store::<S, R, C>(s, &total, sums);
        if wide != 0 {
            s.enter(MultiplyWide::<KIND, R, C> { panels, acts, sums });
        }
    }
}

/// [`add_wide`], out of line.
struct MultiplyWide<'a, const KIND: u32, const R: usize, const C: usize> {
    panels: [&'a Panel; R],
    acts: [&'a IntTile; C],
    sums: &'a mut [[[f32; ROWS]; C]; R],
}

impl<const KIND: u32, const R: usize, const C: usize> SimdKernel for MultiplyWide<'_, KIND, R, C> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let MultiplyWide { panels, acts, sums } = self;
        let mut total = load::<S, R, C>(s, sums);
        add_wide::<S, _, Known<KIND>, R, C>(s, &panels, &acts, &mut total);
        store::<S, R, C>(s, &total, sums);
    }
}

/// Adds the products of the low bytes, of the few chunks that have some.
#[inline(always)]
pub(super) fn add_wide<S: Simd, W: Source, K: Kind, const R: usize, const C: usize>(
    s: S,
    panels: &[W; R],
    acts: &[&IntTile; C],
    total: &mut [[S::Floats; C]; R],
) {
    let mut wide = 0;
    for c in 0..C {
        wide |= acts[c].wide;
    }
    if wide == 0 {
        return;
    }
    let weights = WeightCodes { zero: panels[0].zero(s), halves: K::KIND & HALVES != 0 };
    let mut codes = [&acts[0].low; C];
    let mut terms = [Terms::ZERO; C];
    for c in 0..C {
        codes[c] = &acts[c].low;
    }
    while wide != 0 {
        let j = wide.trailing_zeros() as usize % CHUNKS;
        wide &= wide - 1;
        for c in 0..C {
            terms[c].set(j, acts[c], Byte::Low, weights);
        }
        let factors = Factors::<_, K, R, C> { panels, codes, terms: terms.each_ref(), kind: PhantomData };
        factors.add_chunk(s, j, total);
    }
}

/// The sums so far. Loops, not closures, wherever vectors are about: a closure would not inherit the target features.
#[inline(always)]
pub(super) fn load<S: Simd, const R: usize, const C: usize>(s: S, sums: &[[[f32; ROWS]; C]; R]) -> [[S::Floats; C]; R] {
    let mut total = [[s.splat(0.0); C]; R];
    for r in 0..R {
        for c in 0..C {
            total[r][c] = s.floats(&sums[r][c]);
        }
    }
    total
}

/// Puts the sums back.
#[inline(always)]
pub(super) fn store<S: Simd, const R: usize, const C: usize>(
    s: S,
    total: &[[S::Floats; C]; R],
    sums: &mut [[[f32; ROWS]; C]; R],
) {
    for r in 0..R {
        for c in 0..C {
            s.store(total[r][c], &mut sums[r][c]);
        }
    }
}

/// What is multiplied: panels with one byte of each activation, and the terms that go with it.
pub(super) struct Factors<'a, W, K, const R: usize, const C: usize> {
    panels: &'a [W; R],
    codes: [&'a Codes; C],
    terms: [&'a Terms; C],
    kind: PhantomData<K>,
}

impl<'a, W: Source, K: Kind, const R: usize, const C: usize> Factors<'a, W, K, R, C> {
    /// The high bytes.
    #[inline(always)]
    pub fn high(panels: &'a [W; R], acts: &[&'a IntTile; C]) -> Self {
        let mut codes = [&acts[0].high; C];
        let mut terms = [&acts[0].terms; C];
        for c in 0..C {
            (codes[c], terms[c]) = (&acts[c].high, &acts[c].terms);
        }
        Factors { panels, codes, terms, kind: PhantomData }
    }

    /// Adds the products of chunk `j`.
    #[inline(always)]
    pub fn add_chunk<S: Simd>(&self, s: S, j: usize, total: &mut [[S::Floats; C]; R]) {
        self.add_part::<S, 0>(s, j, total);
        if K::KIND & HALVES != 0 {
            self.add_part::<S, 1>(s, j, total);
        }
    }

    /// Adds those of part `PART` of it: the whole or a half.
    #[inline(always)]
    fn add_part<S: Simd, const PART: usize>(&self, s: S, j: usize, total: &mut [[S::Floats; C]; R]) {
        let Factors { panels, codes, terms, .. } = self;
        let g = if K::KIND & HALVES != 0 { 2 * j + PART } else { j };
        let mut dot = [[[s.zero(); C]; R]];
        if K::KIND & MINS == 0 {
            for c in 0..C {
                for r in 0..R {
                    dot[0][r][c] = s.splat_int(terms[c].starts[j][PART]);
                }
            }
        }
        add_part::<S, W, K, R, C, PART, 1>(s, panels, &[*codes], j, &mut dot);
        for r in 0..R {
            let d = panels[r].scale(s, g);
            for c in 0..C {
                let products = s.mul(s.to_floats(dot[0][r][c]), d);
                total[r][c] = s.mul_add(products, s.splat(terms[c].scales[j]), total[r][c]);
            }
            if K::KIND & MINS != 0 {
                let m = panels[r].min(s, g);
                for c in 0..C {
                    total[r][c] = s.mul_add(m, s.splat(terms[c].offsets[j][PART]), total[r][c]);
                }
            }
        }
    }
}
