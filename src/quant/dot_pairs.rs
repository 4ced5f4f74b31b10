//! The product of F16 and BF16 weights with the many columns of a prompt, as 16-bit fixed point: per 64 weights of a row and per
//! 64 activations there is a scale, weights get 13 bits and activations 14, and an instruction adds two products of each of
//! sixteen rows. That is twice as many products as f32 gives, with an error of 3 · 10⁻⁴ of the result: the weights'
//! own 11 or 8 bits are worth 1 · 10⁻⁴ or 1 · 10⁻³.
//!
//! Rows are turned on the fly: two panels of sixteen rows and 256 weights fit the first-level cache, and meet all columns there.
#![allow(clippy::needless_range_loop)] // r and c index several arrays at once

use super::activations::Activations;
use super::dot::Matrix;
use super::format::Plain;
use super::tile::ROWS;
use crate::simd::{Columns, Kernel, Level, Simd, array};
use std::array::from_fn;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Weights of a row that are multiplied at a time.
pub(super) const TILE: usize = 256;
/// Weights that share a scale: with one more, their sum of products could pass 2³¹.
pub(super) const CHUNK: usize = 64;
/// The largest code of a weight.
const WEIGHT: f32 = 4095.0;
/// The largest code of an activation.
const ACTIVATION: f32 = 8191.0;
const _: () = assert!(WEIGHT as i64 * ACTIVATION as i64 * (CHUNK as i64) < 1 << 31);
/// Panels at a time.
const PANELS: usize = 2;
/// Rows that meet a tile of all columns before its next one comes, as in `dot_blocks`.
const BATCH: usize = 8 * ROWS;

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

impl Kernel for Quantize<'_> {
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
            // NaN where any value is.
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
struct Panel {
    /// Word i: weights 2 i and 2 i + 1 of each row.
    codes: [[u8; 64]; TILE / 2],
    /// Per chunk, of each row.
    scales: [[f32; ROWS]; TILE / CHUNK],
}

/// What a thread works in.
struct Scratch {
    panels: [Panel; PANELS],
    /// The sums of some pairs of panels with all columns: pair by pair, group of columns by group, per panel and column.
    sums: Vec<[f32; ROWS]>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = const {
        RefCell::new(Scratch { panels: [const { Panel { codes: [[0; _]; _], scales: [[0.0; _]; _] } }; _], sums: Vec::new() })
    };
}

/// All rows, all columns.
pub(super) fn dot<F: Plain>(
    level: Level,
    w: &Matrix<'_>,
    rows: Range<usize>,
    acts: &Activations,
    out: &mut Columns<'_>,
) {
    let w = Weights { bytes: w.rows(rows), row: w.k * size_of::<F::Raw>(), k: w.k };
    SCRATCH.with_borrow_mut(|Scratch { panels, sums }| {
        level.run(DotPairs { w, panels, sums, acts, out, format: PhantomData::<F> });
    });
}

/// Rows of weights.
#[derive(Clone, Copy)]
struct Weights<'a> {
    bytes: &'a [u8],
    /// Bytes of a row.
    row: usize,
    /// Weights in a row.
    k: usize,
}

struct DotPairs<'a, 'b, F> {
    w: Weights<'a>,
    panels: &'a mut [Panel; PANELS],
    sums: &'a mut Vec<[f32; ROWS]>,
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    format: PhantomData<F>,
}

/// How many of so many columns are multiplied at a time.
#[inline(always)]
fn group<S: Simd>(columns: usize) -> usize {
    match columns {
        6.. if S::REGISTERS >= 32 => 6,
        2.. => 2,
        _ => 1,
    }
}

impl<F: Plain> Kernel for DotPairs<'_, '_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let DotPairs { w, panels, sums, acts, out, .. } = self;
        let (n, columns) = (out.range().len(), acts.columns());
        let pair = PANELS * columns;
        for first in (0..n).step_by(BATCH) {
            sums.clear();
            sums.resize((n - first).min(BATCH).div_ceil(PANELS * ROWS) * pair, [0.0; ROWS]);
            for t in 0..w.k.div_ceil(TILE) {
                let chunks = TILE.min(w.k - t * TILE).div_ceil(CHUNK);
                for (i, sums) in sums.chunks_exact_mut(pair).enumerate() {
                    for (p, to) in panels.iter_mut().enumerate() {
                        let first = first + (PANELS * i + p) * ROWS;
                        s.enter(Turn { w, first, t, to, format: PhantomData::<F> });
                    }
                    let mut c = 0;
                    while c < columns {
                        let sums = &mut sums[PANELS * c..];
                        c += match group::<S>(columns - c) {
                            6 => multiply::<S, 6>(s, panels, acts, (t, c), chunks, sums),
                            2 => multiply::<S, 2>(s, panels, acts, (t, c), chunks, sums),
                            _ => multiply::<S, 1>(s, panels, acts, (t, c), chunks, sums),
                        };
                    }
                }
            }
            for (i, sums) in sums.chunks_exact(pair).enumerate() {
                put::<S>(sums, first + i * PANELS * ROWS, out);
            }
        }
    }
}

/// Writes the products of the pair of panels that begins with row `first`.
#[inline(always)]
fn put<S: Simd>(sums: &[[f32; ROWS]], first: usize, out: &mut Columns<'_>) {
    let (n, columns) = (out.range().len(), sums.len() / PANELS);
    let mut c = 0;
    while c < columns {
        let wide = group::<S>(columns - c);
        for (p, sums) in sums[PANELS * c..].chunks(wide).take(PANELS).enumerate() {
            let rows = (first + p * ROWS).min(n)..(first + (p + 1) * ROWS).min(n);
            for (i, sums) in sums.iter().enumerate() {
                out.row(c + i)[rows.clone()].copy_from_slice(&sums[..rows.len()]);
            }
        }
        c += wide;
    }
}

#[inline(always)]
fn multiply<S: Simd, const C: usize>(
    s: S,
    panels: &[Panel; PANELS],
    acts: &Activations,
    (t, c): (usize, usize),
    chunks: usize,
    sums: &mut [[f32; ROWS]],
) -> usize {
    let sums = sums.as_chunks_mut::<C>().0.first_chunk_mut::<PANELS>().expect("sums for each panel and column");
    s.enter(Multiply { panels, acts: from_fn::<_, C, _>(|i| acts.pairs(c + i, t)), chunks, sums });
    C
}

/// Turns tile `t` of the sixteen rows from `first` on; rows that are not there become zero.
struct Turn<'a, F> {
    w: Weights<'a>,
    first: usize,
    t: usize,
    to: &'a mut Panel,
    format: PhantomData<F>,
}

impl<F: Plain> Kernel for Turn<'_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Turn { w, first, t, to, .. } = self;
        let size = size_of::<F::Raw>();
        let zero = s.splat(0.0);
        let chunks = TILE.min(w.k - t * TILE).div_ceil(CHUNK);
        let mut turned = [[zero; 16]; CHUNK / 16];
        for (j, codes) in to.codes.as_chunks_mut::<{ CHUNK / 2 }>().0.iter_mut().enumerate().take(chunks) {
            let (mut largest, mut sum) = (zero, zero);
            for b in 0..CHUNK / 16 {
                let from = t * TILE + j * CHUNK + b * 16;
                let mut rows = [zero; 16];
                for r in 0..ROWS {
                    let start = ((first + r) * w.row).min(w.bytes.len());
                    let row = w.bytes.get(start..start + w.row).unwrap_or_default();
                    let row: &[F::Raw] = bytemuck::cast_slice(row.get(from * size..).unwrap_or_default());
                    match row.first_chunk() {
                        Some(v) => rows[r] = F::widen16(s, v),
                        None => {
                            let mut v: [F::Raw; 16] = bytemuck::Zeroable::zeroed();
                            v[..row.len()].copy_from_slice(row);
                            rows[r] = F::widen16(s, &v);
                        }
                    }
                }
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

/// Adds the products of some chunks of two panels with `C` columns.
struct Multiply<'a, const C: usize> {
    panels: &'a [Panel; PANELS],
    acts: [&'a PairTile; C],
    chunks: usize,
    sums: &'a mut [[[f32; ROWS]; C]; PANELS],
}

impl<const C: usize> Kernel for Multiply<'_, C> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Multiply { panels, acts, chunks, sums } = self;
        // Loops, not closures, wherever vectors are about: a closure would not inherit the target features.
        let mut total = [[s.splat(0.0); C]; PANELS];
        for r in 0..PANELS {
            for c in 0..C {
                total[r][c] = s.floats(&sums[r][c]);
            }
        }
        for j in 0..chunks.min(TILE / CHUNK) {
            let mut dot = [[s.zero(); C]; PANELS];
            for i in j * CHUNK / 2..(j + 1) * CHUNK / 2 {
                let w = [s.words(&panels[0].codes[i]), s.words(&panels[1].codes[i])];
                for c in 0..C {
                    for r in 0..PANELS {
                        dot[r][c] = s.dot_pairs(dot[r][c], w[r], acts[c].codes[i]);
                    }
                }
            }
            for r in 0..PANELS {
                let d = s.floats(&panels[r].scales[j]);
                for c in 0..C {
                    let products = s.mul(s.to_floats(dot[r][c]), d);
                    total[r][c] = s.mul_add(products, s.splat(acts[c].scales[j]), total[r][c]);
                }
            }
        }
        for r in 0..PANELS {
            for c in 0..C {
                s.store(total[r][c], &mut sums[r][c]);
            }
        }
    }
}
