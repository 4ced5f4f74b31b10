//! The product of F16 and BF16 weights with the many columns of a prompt, as 16-bit fixed point: per 64 weights of a row and per
//! 64 activations there is a scale, weights get 13 bits and activations 14, and an instruction adds two products of each of
//! sixteen rows. That is twice as many products as f32 gives, with an error of 3 · 10⁻⁴ of the result: the weights'
//! own 11 or 8 bits are worth 1 · 10⁻⁴ or 1 · 10⁻³.
//!
//! Rows are turned on the fly: two panels of sixteen rows and 256 weights fit the first-level cache, and meet all columns there.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::activations::Activations;
use super::dot_plain::columns;
use super::format::Plain;
use super::gemm::{Ahead, FewColumns, Unpack, WeightRows};
use super::tile::ROWS;
use crate::simd::{Simd, SimdKernel, array};
use std::array::from_fn;
use std::cell::RefCell;
use std::hint::black_box;
use std::marker::PhantomData;

/// Weights of a row that are multiplied at a time.
pub(super) const TILE: usize = 256;
/// Weights that share a scale: with one more, their sum of products could pass 2³¹.
pub(super) const CHUNK: usize = 64;
/// The largest code of a weight.
const WEIGHT: f32 = 4095.0;
/// The largest code of an activation.
const ACTIVATION: f32 = 8191.0;
const _: () = assert!(WEIGHT as i64 * ACTIVATION as i64 * (CHUNK as i64) < 1 << 31);
/// [`TILE`] activations: value = scale · code.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct PairTile {
    codes: [[i16; 2]; TILE / 2],
    /// Per chunk.
    scales: [f32; TILE / CHUNK],
}

impl PairTile {
    /// All zero.
    pub const ZERO: PairTile = PairTile { codes: [[0; 2]; _], scales: [0.0; _] };
}

/// Rounds up to [`TILE`] activations; zeros follow.
pub(super) struct Quantize<'a> {
    pub x: &'a [f32],
    pub to: &'a mut PairTile,
}

impl SimdKernel for Quantize<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Adding it leaves the nearest whole number in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let mut values = [[0.0; CHUNK]; TILE / CHUNK];
        values.as_flattened_mut()[..self.x.len()].copy_from_slice(self.x);
        let codes = self.to.codes.as_flattened_mut().as_chunks_mut::<CHUNK>().0;
        for ((x, codes), scale) in values.iter().zip(codes).zip(&mut self.to.scales) {
            let halves = [
                s.amax(s.floats(array(x, 0)), s.floats(array(x, 16))),
                s.amax(s.floats(array(x, 32)), s.floats(array(x, 48))),
            ];
            // NaN if any value is.
            let amax = if halves[0] > halves[1] { halves[0] } else { halves[1] + 0.0 * halves[0] };
            *scale = amax / ACTIVATION;
            let inverse = if amax > 1e-30 { ACTIVATION / amax } else { 0.0 };
            for i in 0..CHUNK {
                codes[i] = (x[i] * inverse + ROUND).to_bits() as i16;
            }
        }
    }
}

/// [`TILE`] weights of sixteen rows.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Word i: weights 2 i and 2 i + 1 of each row.
    codes: [[u8; 64]; TILE / 2],
    /// Per chunk, of each row.
    scales: [[f32; ROWS]; TILE / CHUNK],
}

thread_local! {
    static PANELS: RefCell<[Panel; 2]> =
        const { RefCell::new([const { Panel { codes: [[0; _]; _], scales: [[0.0; _]; _] } }; _]) };
}

/// Weights and activations as whole numbers of 13 and 14 bits.
pub(super) struct Pairs<F>(PhantomData<F>);

impl<F: Plain> Unpack for Pairs<F> {
    type Panel = Panel;
    const TILE: usize = TILE;
    const ROWS_PER_STEP: usize = 1;

    #[inline(always)]
    fn with_panels<T>(f: impl FnOnce(&mut [Panel; 2]) -> T) -> T {
        PANELS.with_borrow_mut(f)
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, w: &WeightRows<'_>, p: usize, t: usize, to: &mut Panel) {
        let zero = s.splat(0.0);
        let chunks = TILE.min(w.k - t * TILE).div_ceil(CHUNK);
        let mut turned = [[zero; 16]; CHUNK / 16];
        for (j, codes) in to.codes.as_chunks_mut::<{ CHUNK / 2 }>().0.iter_mut().enumerate().take(chunks) {
            let (mut largest, mut sum) = (zero, zero);
            for b in 0..CHUNK / 16 {
                let from = t * TILE + j * CHUNK + b * 16;
                let rows = columns::<F, S>(s, w, p, from);
                turned[b] = s.transpose(rows);
                for i in 0..16 {
                    let v = turned[b][i];
                    largest = s.max(largest, s.max(v, s.sub(zero, v)));
                    // The comparison passes NaN over; the sum keeps it.
                    sum = s.add(sum, v);
                }
            }
            let largest = s.max(largest, s.splat(1e-30));
            let inverse = s.div(s.splat(WEIGHT), largest);
            let scales = s.mul_add(sum, zero, s.mul(largest, s.splat(1.0 / WEIGHT)));
            s.store(scales, &mut to.scales[j]);
            for (i, word) in codes.iter_mut().enumerate() {
                let [a, b] = [turned[i / 8][2 * i % 16], turned[i / 8][2 * i % 16 + 1]];
                s.store_words(s.pairs(s.mul(a, inverse), s.mul(b, inverse)), word);
            }
        }
    }
}

impl<F: Plain> FewColumns for Pairs<F> {
    #[inline(always)]
    fn add<S: Simd, const C: usize>(
        s: S,
        panels: &[Panel; 2],
        _used: usize,
        acts: &Activations,
        (t, c): (usize, usize),
        _ahead: &mut Ahead<'_>,
        sums: &mut [[f32; ROWS]],
    ) {
        let sums = sums.as_chunks_mut::<C>().0.first_chunk_mut::<2>().expect("sums for each panel and column");
        let chunks = TILE.min(acts.k() - t * TILE).div_ceil(CHUNK);
        s.enter(Multiply { panels, acts: from_fn::<_, C, _>(|i| acts.pairs(c + i, t)), chunks, sums });
    }
}

/// Adds the products of some chunks of two panels with `C` columns.
struct Multiply<'a, const C: usize> {
    panels: &'a [Panel; 2],
    acts: [&'a PairTile; C],
    chunks: usize,
    sums: &'a mut [[[f32; ROWS]; C]; 2],
}

impl<const C: usize> SimdKernel for Multiply<'_, C> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Multiply { panels, acts, chunks, sums } = self;
        // Loops, not closures, wherever vectors are about: a closure would not inherit the target features.
        let mut total = [[s.splat(0.0); C]; 2];
        for r in 0..2 {
            for c in 0..C {
                total[r][c] = s.floats(&sums[r][c]);
            }
        }
        for j in 0..chunks.min(TILE / CHUNK) {
            let mut dot = [[s.zero(); C]; 2];
            // Where registers are few, the compiler must not see how often: it would keep words on the stack for the next column.
            let words = if S::REGISTERS < 32 { black_box(CHUNK / 2) } else { CHUNK / 2 };
            let range = j * CHUNK / 2..j * CHUNK / 2 + words;
            let codes = [&panels[0].codes[range.clone()], &panels[1].codes[range.clone()]];
            let mut x: [&[[i16; 2]]; C] = [&[]; C];
            for c in 0..C {
                x[c] = &acts[c].codes[range.clone()];
            }
            for i in 0..words {
                let w = [s.words(&codes[0][i]), s.words(&codes[1][i])];
                for c in 0..C {
                    for r in 0..2 {
                        dot[r][c] = s.dot_pairs(dot[r][c], w[r], x[c][i]);
                    }
                }
            }
            for r in 0..2 {
                let d = s.floats(&panels[r].scales[j]);
                for c in 0..C {
                    let products = s.mul(s.to_floats(dot[r][c]), d);
                    total[r][c] = s.mul_add(products, s.splat(acts[c].scales[j]), total[r][c]);
                }
            }
        }
        for r in 0..2 {
            for c in 0..C {
                s.store(total[r][c], &mut sums[r][c]);
            }
        }
    }
}
