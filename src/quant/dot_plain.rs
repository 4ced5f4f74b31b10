//! The dot product of plain types: as f32. Rows are widened tile by tile, each tile once for [`BATCH`] columns.

use super::activations::Activations;
use super::dot::Matrix;
use super::dot_pairs::Pairs;
use super::dot_tiles::{Plains, Tiles};
use super::format::Plain;
use super::gemm::{self, WeightRows};
use super::tile::{FloatTile, ROWS as PANEL_ROWS, TILE};
use crate::simd::{Columns, Level, Simd, SimdKernel, array};
use std::array::from_fn;
use std::marker::PhantomData;
use std::ops::Range;

/// Columns that share a widened tile: with their activations they fill the first-level cache.
const BATCH: usize = 16;
/// Rows that meet a tile of a batch before the next tile comes.
const ROWS: usize = 8;
/// Rows widened at a time.
const TOGETHER: usize = 2;

/// The running sums of some rows with a batch of columns.
type Sums = [[[f32; 16]; BATCH]];

/// The table's entry: all rows, all columns.
pub(super) fn dot<F: Plain>(
    level: Level,
    w: &Matrix<'_>,
    rows: Range<usize>,
    acts: &Activations,
    out: &mut Columns<'_>,
) {
    let (n, step) = (rows.len(), w.k * size_of::<F::Raw>());
    let w = WeightRows { bytes: w.rows(rows), step, k: w.k, rows: n };
    match () {
        _ if acts.in_tiles() => gemm::multiply::<Tiles<Plains<F>>>(level, w, acts, out),
        _ if acts.in_pairs() => gemm::multiply::<Pairs<F>>(level, w, acts, out),
        _ => level.run(DotRows { w, acts, out, format: PhantomData::<F> }),
    }
}

/// The panel of up to sixteen rows: as they lie in the file, for each is read as one stream. What is gained is where they lie.
pub(super) fn pack(rows: &[u8], _k: usize, out: &mut [u8]) {
    let (rows_out, rest) = out.split_at_mut(rows.len());
    rows_out.copy_from_slice(rows);
    rest.fill(0);
}

/// Row `r` of a panel as f32.
pub(super) fn row<F: Plain>(panel: &[u8], r: usize, out: &mut [f32]) {
    let row = &panel[panel.len() / PANEL_ROWS * r..][..panel.len() / PANEL_ROWS];
    for (v, out) in row.chunks_exact(size_of::<F::Raw>()).zip(out) {
        *out = F::widen(bytemuck::pod_read_unaligned(v));
    }
}

/// Sixteen weights of each row of panel `p`, from weight `from` on, as f32; zeros stand for what is not there.
#[inline(always)]
pub(super) fn columns<F: Plain, S: Simd>(s: S, w: &WeightRows<'_>, p: usize, from: usize) -> [S::Floats; 16] {
    let size = size_of::<F::Raw>();
    let mut rows = [s.splat(0.0); 16];
    // A loop: a closure would not inherit the target features.
    for (r, out) in rows.iter_mut().enumerate() {
        let start = ((p * PANEL_ROWS + r) * w.step).min(w.bytes.len());
        let row = w.bytes.get(start..start + w.step).unwrap_or_default();
        let row: &[F::Raw] = bytemuck::cast_slice(row.get(from * size..).unwrap_or_default());
        match row.first_chunk() {
            Some(v) => *out = F::widen16(s, v),
            None => {
                let mut v: [F::Raw; 16] = bytemuck::Zeroable::zeroed();
                v[..row.len()].copy_from_slice(row);
                *out = F::widen16(s, &v);
            }
        }
    }
    rows
}

struct DotRows<'a, 'b, F> {
    w: WeightRows<'a>,
    acts: &'a Activations,
    out: &'a mut Columns<'b>,
    format: PhantomData<F>,
}

impl<F: Plain> SimdKernel for DotRows<'_, '_, F> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let DotRows { w, acts, out, .. } = self;
        let n = out.range().len();
        // A single column reads the weights as one stream, row after row.
        let rows = if acts.columns() == 1 { 1 } else { ROWS };
        let mut tiles = [FloatTile::ZERO; TOGETHER];
        let mut sums = [[[0.0; 16]; BATCH]; ROWS];
        for first in (0..n).step_by(rows) {
            let rows = first..(first + rows).min(n);
            for column in (0..acts.columns()).step_by(BATCH) {
                let columns = column..(column + BATCH).min(acts.columns());
                let sums = &mut sums[..rows.len()];
                sums.iter_mut().for_each(|row| row[..columns.len()].fill([0.0; 16]));
                for t in 0..w.k.div_ceil(TILE) {
                    add_tiles::<F, S>(s, &w, (rows.start, t), (acts, &columns), &mut tiles, sums);
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
fn add_tiles<F: Plain, S: Simd>(
    s: S,
    w: &WeightRows<'_>,
    (first, t): (usize, usize),
    (acts, columns): (&Activations, &Range<usize>),
    tiles: &mut [FloatTile; TOGETHER],
    sums: &mut Sums,
) {
    let n = TILE.min(w.k - t * TILE);
    let size = size_of::<F::Raw>();
    let bytes = t * TILE * size..(t * TILE + n) * size;
    let packed = |row: usize| &w.bytes[row * w.step..][bytes.clone()];
    if columns.len() == 1 {
        for (row, sums) in sums.iter_mut().enumerate() {
            add_packed::<F, S>(s, packed(first + row), acts.floats(columns.start, t), &mut sums[0]);
        }
        return;
    }
    for (pair, sums) in sums.chunks_mut(TOGETHER).enumerate() {
        for (i, tile) in tiles[..sums.len()].iter_mut().enumerate() {
            widen::<F, S>(s, packed(first + TOGETHER * pair + i), tile);
        }
        let mut c = columns.start;
        while c < columns.end {
            let at = c - columns.start;
            if sums.len() == TOGETHER && S::REGISTERS >= 32 && c + 4 <= columns.end {
                add::<S, TOGETHER, 4>(s, tiles, from_fn(|i| acts.floats(c + i, t)), n, sums, at);
                c += 4;
            } else if sums.len() == TOGETHER && c + 2 <= columns.end {
                add::<S, TOGETHER, 2>(s, tiles, from_fn(|i| acts.floats(c + i, t)), n, sums, at);
                c += 2;
            } else {
                for (tile, sums) in tiles.chunks(1).zip(sums.chunks_mut(1)) {
                    add::<S, 1, 1>(s, tile, [acts.floats(c, t)], n, sums, at);
                }
                c += 1;
            }
        }
    }
}

/// Widens the weights of a tile.
#[inline(always)]
fn widen<F: Plain, S: Simd>(s: S, bytes: &[u8], tile: &mut FloatTile) {
    let (whole, rest) = bytemuck::cast_slice::<u8, F::Raw>(bytes).as_chunks::<16>();
    let (out, tail) = tile.0.split_at_mut(whole.len());
    for (v, out) in whole.iter().zip(out) {
        s.store(F::widen16(s, v), out);
    }
    tail.iter_mut().take(2).for_each(|t| *t = [0.0; 16]);
    for (v, out) in rest.iter().zip(tail.as_flattened_mut()) {
        *out = F::widen(*v);
    }
}

/// Adds the product of weights, not yet widened, with one column to its sum: [`widen`] and [`add`] in one, to the same bits.
#[inline(always)]
fn add_packed<F: Plain, S: Simd>(s: S, bytes: &[u8], acts: &FloatTile, sum: &mut [f32; 16]) {
    let (whole, rest) = bytemuck::cast_slice::<u8, F::Raw>(bytes).as_chunks::<32>();
    let (x, last) = acts.0.as_chunks::<2>().0.split_at(whole.len());
    let (mut even, mut odd) = (s.floats(sum), s.splat(0.0));
    for (w, x) in whole.iter().zip(x) {
        s.fetch(w.as_ptr().cast(), size_of_val(w), (usize::MAX, 0));
        even = s.mul_add(F::widen16(s, array(w, 0)), s.floats(&x[0]), even);
        odd = s.mul_add(F::widen16(s, array(w, 16)), s.floats(&x[1]), odd);
    }
    if let (false, Some(x)) = (rest.is_empty(), last.first()) {
        let mut w = [0.0; 32];
        for (w, v) in w.iter_mut().zip(rest) {
            *w = F::widen(*v);
        }
        even = s.mul_add(s.floats(array(&w, 0)), s.floats(&x[0]), even);
        odd = s.mul_add(s.floats(array(&w, 16)), s.floats(&x[1]), odd);
    }
    s.store(s.add(even, odd), sum);
}

/// Adds the products of `R` tiles of `n` weights with `C` columns to the sums of those, which begin at `column`.
#[inline(always)]
fn add<S: Simd, const R: usize, const C: usize>(
    s: S,
    tiles: &[FloatTile],
    acts: [&FloatTile; C],
    n: usize,
    sums: &mut Sums,
    column: usize,
) {
    // Two sums, because a single one would wait for its own last addition.
    let mut total = [[[s.splat(0.0); 2]; C]; R];
    for r in 0..R {
        for c in 0..C {
            total[r][c][0] = s.floats(&sums[r][column + c]);
        }
    }
    for i in 0..n.div_ceil(32).min(TILE / 32) {
        for c in 0..C {
            let x = [s.floats(&acts[c].0[2 * i]), s.floats(&acts[c].0[2 * i + 1])];
            for r in 0..R {
                let [even, odd] = total[r][c];
                let even = s.mul_add(s.floats(&tiles[r].0[2 * i]), x[0], even);
                let odd = s.mul_add(s.floats(&tiles[r].0[2 * i + 1]), x[1], odd);
                total[r][c] = [even, odd];
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            s.store(s.add(total[r][c][0], total[r][c][1]), &mut sums[r][column + c]);
        }
    }
}
