//! Dot products of weight rows with activations: y[column][row] = Σ_k w[row][k] · x[column][k].
//!
//! Sums run in the same order whatever the number of columns and the instruction set, so a token's result depends
//! neither on the batch around it nor, for quantized weights, on the machine.

use super::activations::Activations;
use super::format::format;
use crate::base::DType;
use crate::simd::{Columns, Level};
use std::ops::Range;

/// Rows of weights that one thread should take at least, and in multiples: two panels.
pub const ROW_BLOCK: usize = 2 * super::tile::ROWS;

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
    pub bytes: &'a [u8],
    /// Bytes of a row.
    pub row: usize,
    /// Weights in a row.
    pub k: usize,
}
