//! Dot products of weight rows with activations: y[column][row] = Σ_k w[row][k] · x[column][k].
//!
//! Rows are unpacked tile by tile ([`TILE`] weights), each tile once for [`BATCH`] columns, and the dot product itself
//! knows no formats: with w = d·q + m and x = s·a,
//! Σ w·x = Σ_groups d·s·(Σ q·a) + Σ_groups m·(s·Σ a), where the inner sums are integers.
//!
//! Sums run in the same order whatever the number of columns and the instruction set, so a token's result depends
//! neither on the batch around it nor, for quantized weights, on the machine.

use super::activations::Activations;
use super::format::format;
use super::tile::TILE;
use crate::base::DType;
use crate::simd::{Columns, Kernel, Level, Simd};
use std::array::from_fn;
use std::marker::PhantomData;
use std::ops::Range;

/// Columns that share an unpacked tile: with their activations they fill the first-level cache.
const BATCH: usize = 16;
/// Rows that meet a tile of a batch before the next tile comes.
const ROWS: usize = 8;
/// Rows unpacked at a time.
const TOGETHER: usize = 2;

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

/// Rows of weights.
pub(super) struct Weights<'a> {
    bytes: &'a [u8],
    /// Bytes of a row.
    row: usize,
    /// Weights in a row.
    k: usize,
}

/// The running sums of some rows with a batch of columns.
pub(super) type Sums = [[[f32; 16]; BATCH]];

/// One kind of dot product over tiles.
pub(super) trait Dot {
    /// Weights of one row, unpacked.
    type Tile;
    /// What they meet.
    type Acts;
    /// Empty.
    const EMPTY: Self::Tile;
    /// Bytes of `n` weights.
    fn bytes(n: usize) -> usize;
    /// Tile `t` of a column.
    fn acts(acts: &Activations, plane: usize, column: usize, t: usize) -> &Self::Acts;
    /// Unpacks `n` ≤ [`TILE`] weights.
    fn unpack<S: Simd>(s: S, bytes: &[u8], n: usize, tile: &mut Self::Tile);
    /// Adds the product of `n` weights, still packed, with one column to its sum: [`unpack`](Dot::unpack) and
    /// [`add`](Dot::add) in one, to the same bits.
    fn add_packed<S: Simd>(s: S, bytes: &[u8], acts: &Self::Acts, n: usize, sum: &mut [f32; 16]);
    /// Adds the products of `R` tiles of `n` weights with `C` columns to the sums of those, which begin at `column`.
    fn add<S: Simd, const R: usize, const C: usize>(
        s: S,
        tiles: &[Self::Tile],
        acts: [&Self::Acts; C],
        n: usize,
        sums: &mut Sums,
        column: usize,
    );
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
        // A single column reads the weights as one stream, row after row.
        let rows = if acts.columns() == 1 { 1 } else { ROWS };
        let mut tiles = [D::EMPTY; TOGETHER];
        let mut sums = [[[0.0; 16]; BATCH]; ROWS];
        for first in (0..n).step_by(rows) {
            let rows = first..(first + rows).min(n);
            for column in (0..acts.columns()).step_by(BATCH) {
                let columns = column..(column + BATCH).min(acts.columns());
                let sums = &mut sums[..rows.len()];
                sums.iter_mut().for_each(|row| row[..columns.len()].fill([0.0; 16]));
                for t in 0..w.k.div_ceil(TILE) {
                    add_tiles::<D, S>(s, &w, (rows.start, t), (acts, &columns), &mut tiles, sums);
                }
                for c in columns.clone() {
                    let out = &mut out.row(c)[rows.clone()];
                    for (out, sums) in out.iter_mut().zip(&*sums) {
                        *out = s.sum(s.floats(&sums[c - column]));
                    }
                }
            }
        }
    }
}

/// Tile `t` of the rows from `first` on, one per entry of `sums`, with some columns.
#[inline(always)]
fn add_tiles<D: Dot, S: Simd>(
    s: S,
    w: &Weights<'_>,
    (first, t): (usize, usize),
    (acts, columns): (&Activations, &Range<usize>),
    tiles: &mut [D::Tile; TOGETHER],
    sums: &mut Sums,
) {
    let n = TILE.min(w.k - t * TILE);
    let bytes = D::bytes(t * TILE)..D::bytes(t * TILE + n);
    let packed = |row: usize| &w.bytes[row * w.row..][bytes.clone()];
    if columns.len() == 1 {
        for (row, sums) in sums.iter_mut().enumerate() {
            for plane in 0..acts.planes() {
                D::add_packed(s, packed(first + row), D::acts(acts, plane, columns.start, t), n, &mut sums[0]);
            }
        }
        return;
    }
    for (pair, sums) in sums.chunks_mut(TOGETHER).enumerate() {
        for (i, tile) in tiles[..sums.len()].iter_mut().enumerate() {
            D::unpack(s, packed(first + TOGETHER * pair + i), n, tile);
        }
        for plane in 0..acts.planes() {
            let mut c = columns.start;
            while c < columns.end {
                let at = c - columns.start;
                if sums.len() == TOGETHER && S::REGISTERS >= 32 && c + 4 <= columns.end {
                    D::add::<S, TOGETHER, 4>(s, tiles, from_fn(|i| D::acts(acts, plane, c + i, t)), n, sums, at);
                    c += 4;
                } else if sums.len() == TOGETHER && c + 2 <= columns.end {
                    D::add::<S, TOGETHER, 2>(s, tiles, from_fn(|i| D::acts(acts, plane, c + i, t)), n, sums, at);
                    c += 2;
                } else {
                    for (tile, sums) in tiles.chunks(1).zip(sums.chunks_mut(1)) {
                        D::add::<S, 1, 1>(s, tile, [D::acts(acts, plane, c, t)], n, sums, at);
                    }
                    c += 1;
                }
            }
        }
    }
}
