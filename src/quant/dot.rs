//! Dot products of weight rows with activations: y[column][row] = Σ_k w[row][k] · x[column][k].
//!
//! A row is unpacked tile by tile ([`TILE`] weights), each tile once for [`BATCH`] columns, and the dot product itself
//! knows no formats: with w = d·q + m and x = s·a,
//! Σ w·x = Σ_groups d·s·(Σ q·a) + Σ_groups m·(s·Σ a), where the inner sums are integers.
//!
//! Sums run in the same order whatever the number of columns and the instruction set, so a token's result depends
//! neither on the batch around it nor, for quantized weights, on the machine.

use super::activations::Activations;
use super::format::{Block, Plain, format};
use super::tile::{TILE, Tile};
use crate::base::DType;
use crate::simd::{Columns, Kernel, Level, Simd, array};
use std::marker::PhantomData;
use std::ops::Range;

/// Columns that share an unpacked tile.
const BATCH: usize = 32;
/// Columns whose sums are in registers at a time.
const TOGETHER: usize = 4;
/// Rows that meet one batch of columns before the next: few enough to stay in the second-level cache.
const ROWS: usize = 16;

/// Rows of weights.
#[derive(Clone)]
pub(super) struct Weights<'a> {
    /// The rows' bytes.
    pub bytes: &'a [u8],
    /// Bytes of a row.
    pub row: usize,
    /// Weights in a row.
    pub k: usize,
}

/// Multiplies rows `rows` of the weight matrix `w` (`[n, k]` of type `dtype`) with all columns of `acts`, which were
/// filled for the same type and `k`: `out.row(column)[i]` = row `rows.start + i` · column.
///
/// Several threads can do this at once, each with its own rows and its own [`Columns`] of the output. Nothing is
/// allocated. Panics where the sizes do not fit each other.
pub fn dot_rows(dtype: DType, w: &[u8], k: usize, rows: Range<usize>, acts: &Activations, out: &mut Columns<'_>) {
    dot_rows_at(Level::best(), dtype, w, k, rows, acts, out);
}

/// [`dot_rows`] with the instructions of `level`.
pub fn dot_rows_at(
    level: Level,
    dtype: DType,
    w: &[u8],
    k: usize,
    rows: Range<usize>,
    acts: &Activations,
    out: &mut Columns<'_>,
) {
    let row = dtype.row_bytes(k).expect("a row is whole blocks");
    assert!(acts.suits(dtype) && acts.k() == k, "activations of {} values for {dtype} weights of {k}", acts.k());
    assert_eq!(rows.len(), out.range().len(), "rows of weights and columns of the output");
    assert_eq!(acts.columns(), out.rows(), "columns of activations and rows of the output");
    let bytes = &w[rows.start * row..rows.end * row];
    (format(dtype).dot)(level, Weights { bytes, row, k }, acts, out);
}

/// One kind of dot product over tiles.
pub(super) trait Dot {
    /// A row's weights, unpacked.
    type Tile;
    fn new_tile() -> Self::Tile;
    /// Unpacks `n` ≤ [`TILE`] weights.
    fn unpack<S: Simd>(s: S, bytes: &[u8], n: usize, tile: &mut Self::Tile);
    /// Adds the products of the tile, which starts at weight `at`, with `C` columns to their sums.
    fn add<S: Simd, const C: usize>(
        s: S,
        tile: &Self::Tile,
        at: usize,
        n: usize,
        acts: &Activations,
        column: usize,
        sums: &mut [[[f32; 16]; 2]],
    );
    /// Bytes of `n` weights.
    fn bytes(n: usize) -> usize;
}

/// The table's entry: all rows, all columns.
pub(super) fn dot<D: Dot>(level: Level, w: Weights<'_>, acts: &Activations, out: &mut Columns<'_>) {
    level.run(DotRows { w, acts, out, kind: PhantomData::<D> });
}

struct DotRows<'a, 'b, D> {
    w: Weights<'a>,
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    kind: PhantomData<D>,
}

impl<D: Dot> Kernel for DotRows<'_, '_, D> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let DotRows { w, acts, out, .. } = self;
        let n = out.range().len();
        let mut tile = D::new_tile();
        let mut sums = [[[0.0; 16]; 2]; BATCH];
        for first in (0..n).step_by(ROWS) {
            for column in (0..acts.columns()).step_by(BATCH) {
                let columns = column..(column + BATCH).min(acts.columns());
                for row in first..(first + ROWS).min(n) {
                    let bytes = &w.bytes[row * w.row..(row + 1) * w.row];
                    let sums = &mut sums[..columns.len()];
                    sums.fill([[0.0; 16]; 2]);
                    dot_row::<D, S>(s, bytes, w.k, acts, columns.start, &mut tile, sums);
                    for (c, [a, b]) in columns.clone().zip(sums) {
                        out.row(c)[row] = s.sum(s.add(s.floats(a), s.floats(b)));
                    }
                }
            }
        }
    }
}

/// One row with the columns from `column` on, one per entry of `sums`.
#[inline(always)]
fn dot_row<D: Dot, S: Simd>(
    s: S,
    bytes: &[u8],
    k: usize,
    acts: &Activations,
    column: usize,
    tile: &mut D::Tile,
    sums: &mut [[[f32; 16]; 2]],
) {
    for at in (0..k).step_by(TILE) {
        let n = TILE.min(k - at);
        D::unpack(s, &bytes[D::bytes(at)..D::bytes(at + n)], n, tile);
        let mut c = 0;
        while c + TOGETHER <= sums.len() {
            D::add::<S, TOGETHER>(s, tile, at, n, acts, column + c, &mut sums[c..]);
            c += TOGETHER;
        }
        while c < sums.len() {
            D::add::<S, 1>(s, tile, at, n, acts, column + c, &mut sums[c..]);
            c += 1;
        }
    }
}

/// Block formats.
pub(super) struct DotBlocks<F>(PhantomData<F>);

impl<F: Block> Dot for DotBlocks<F> {
    type Tile = Tile;

    fn new_tile() -> Tile {
        Tile::new()
    }

    fn bytes(n: usize) -> usize {
        n / F::DTYPE.block() * F::DTYPE.block_bytes()
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, bytes: &[u8], n: usize, tile: &mut Tile) {
        let blocks: &[F::Raw] = bytemuck::cast_slice(bytes);
        for (b, chunks) in blocks.iter().zip(tile.blocks(F::DTYPE.block())) {
            F::unpack(s, b, chunks);
        }
        tile.clear_from(n);
    }

    #[inline(always)]
    fn add<S: Simd, const C: usize>(
        s: S,
        tile: &Tile,
        at: usize,
        n: usize,
        acts: &Activations,
        column: usize,
        sums: &mut [[[f32; 16]; 2]],
    ) {
        let chunks = n.div_ceil(64);
        let codes: [_; C] = std::array::from_fn(|c| &acts.codes(column + c)[at / 64..][..chunks]);
        let scales: [_; C] = std::array::from_fn(|c| &acts.scales(column + c)[at / 64..][..chunks]);
        let bias: [_; C] = std::array::from_fn(|c| &acts.bias(column + c)[at / 64..][..chunks]);
        // Loops, not closures, wherever vectors are about: a closure would not inherit the target features.
        let mut total = [s.splat(0.0); C];
        for c in 0..C {
            total[c] = s.floats(&sums[c][0]);
        }
        for i in 0..chunks {
            let (q, d) = (&tile.codes()[i], s.floats(&tile.scales()[i]));
            for c in 0..C {
                let (a, [s0, s1]) = (&codes[c][i], scales[c][i]);
                let p = if F::SIGNED { s.dot_signed(q, a, &bias[c][i]) } else { s.dot_unsigned(q, a) };
                total[c] = s.add(total[c], s.mul(s.mul(d, s.splat_pair(s0, s1)), s.to_floats(p)));
            }
        }
        for c in 0..C {
            s.store(total[c], &mut sums[c][0]);
        }
        if !F::SIGNED {
            for (i, mins) in tile.mins()[..n.div_ceil(256)].iter().enumerate() {
                let m = s.floats(mins);
                for (c, [_, sum]) in sums[..C].iter_mut().enumerate() {
                    let x = s.floats(&acts.sums(column + c)[at / 256 + i]);
                    s.store(s.add(s.floats(sum), s.mul(m, x)), sum);
                }
            }
        }
    }
}

/// Plain types: as f32.
pub(super) struct DotPlain<F>(PhantomData<F>);

/// Up to [`TILE`] weights, padded with zeros to a multiple of 32.
#[repr(C, align(64))]
pub(super) struct FloatTile([f32; TILE]);

impl<F: Plain> Dot for DotPlain<F> {
    type Tile = FloatTile;

    fn new_tile() -> FloatTile {
        FloatTile([0.0; TILE])
    }

    fn bytes(n: usize) -> usize {
        n * size_of::<F::Raw>()
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, bytes: &[u8], n: usize, tile: &mut FloatTile) {
        let (whole, rest) = bytemuck::cast_slice::<u8, F::Raw>(bytes).as_chunks::<16>();
        let (out, tail) = tile.0.as_chunks_mut::<16>().0.split_at_mut(whole.len());
        for (v, out) in whole.iter().zip(out) {
            s.store(F::widen16(s, v), out);
        }
        tail.iter_mut().take(2).for_each(|t| *t = [0.0; 16]);
        for (v, out) in rest.iter().zip(tail.as_flattened_mut()) {
            *out = F::widen(*v);
        }
        debug_assert_eq!(whole.len() * 16 + rest.len(), n);
    }

    #[inline(always)]
    fn add<S: Simd, const C: usize>(
        s: S,
        tile: &FloatTile,
        at: usize,
        n: usize,
        acts: &Activations,
        column: usize,
        sums: &mut [[[f32; 16]; 2]],
    ) {
        let n = n.next_multiple_of(32);
        let x: [_; C] = std::array::from_fn(|c| &acts.floats(column + c)[at..at + n]);
        let mut total = [[s.splat(0.0); 2]; C];
        for c in 0..C {
            total[c] = [s.floats(&sums[c][0]), s.floats(&sums[c][1])];
        }
        for i in (0..n).step_by(32) {
            let w = [s.floats(array(&tile.0, i)), s.floats(array(&tile.0, i + 16))];
            for c in 0..C {
                total[c][0] = s.mul_add(w[0], s.floats(array(x[c], i)), total[c][0]);
                total[c][1] = s.mul_add(w[1], s.floats(array(x[c], i + 16)), total[c][1]);
            }
        }
        for c in 0..C {
            s.store(total[c][0], &mut sums[c][0]);
            s.store(total[c][1], &mut sums[c][1]);
        }
    }
}
