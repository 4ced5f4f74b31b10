//! Dot products of weight rows with activations: y[column][row] = Σ_k w[row][k] · x[column][k].
//!
//! Sums run in the same order whatever the number of columns, the layout and the instruction set, so a token's result depends
//! on no batch around it. Of quantized weights and 16-bit activations it does not depend on the machine either; 8-bit ones have fused products
//! where there are some.

use super::activations::Activations;
use super::format::format;
use super::tile::ROWS;
use crate::base::{DType, Layout};
use crate::simd::{Columns, Level};
use std::ops::Range;

/// Rows of weights that one thread should take at least, and in multiples: two panels.
pub const ROW_BLOCK: usize = 2 * ROWS;

/// Rows of weights that one thread should take where there are many columns: as many as are multiplied at a time.
pub const ROW_BATCH: usize = 16 * ROWS;

/// Rows of a panel.
pub const PANEL_ROWS: usize = ROWS;

/// A matrix of weights, `[n, k]`.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// Type of the weights.
    pub dtype: DType,
    /// How they lie in `bytes`.
    pub layout: Layout,
    /// All rows.
    pub bytes: &'a [u8],
    /// Weights in a row.
    pub k: usize,
}

impl<'a> Matrix<'a> {
    /// Some rows, as they lie in a file.
    pub(super) fn rows(&self, rows: Range<usize>) -> &'a [u8] {
        let row = self.dtype.row_bytes(self.k).expect("a row is whole blocks");
        &self.bytes[rows.start * row..rows.end * row]
    }
}

/// Bytes of a panel of sixteen rows of `k` weights.
pub fn panel_bytes(dtype: DType, k: usize) -> usize {
    (format(dtype).panels.bytes)(k)
}

/// Interleaves up to sixteen rows of `k` weights, as they lie in a file, to a panel of [`panel_bytes`]. Rows that are not
/// there become zero. Panics if the lengths do not fit each other.
pub fn pack_panel(dtype: DType, rows: &[u8], k: usize, out: &mut [u8]) {
    let panels = &format(dtype).panels;
    assert!(rows.len() <= dtype.row_bytes(ROWS * k).expect("whole blocks") && out.len() == (panels.bytes)(k));
    (panels.pack)(rows, k, out);
}

/// Multiplies rows `rows` of `w` with all columns of `acts`, which were filled for the same type and `k`:
/// `out.row(column)[i]` = row `rows.start + i` · column. Of panels, `rows` must begin with one.
///
/// Several threads can do this at once, each with its own rows and its own [`Columns`] of the output. Nothing is
/// allocated once warm. Panics if the sizes do not fit each other.
pub fn dot_rows(w: &Matrix<'_>, rows: Range<usize>, acts: &Activations, out: &mut Columns<'_>) {
    dot_rows_at(Level::best(), w, rows, acts, out);
}

/// [`dot_rows`] with the instructions of `level`.
pub fn dot_rows_at(level: Level, w: &Matrix<'_>, rows: Range<usize>, acts: &Activations, out: &mut Columns<'_>) {
    let (dtype, k) = (w.dtype, w.k);
    assert!(acts.suits(dtype) && acts.k() == k, "activations of {} values for {dtype} weights of {k}", acts.k());
    assert!(acts.knows(level, dtype), "activations that have not met {dtype}");
    assert_eq!(rows.len(), out.range().len(), "rows of weights and columns of the output");
    assert_eq!(acts.columns(), out.rows(), "columns of activations and rows of the output");
    assert!(w.layout == Layout::Rows || rows.start.is_multiple_of(ROWS), "row {} begins no panel", rows.start);
    (format(dtype).dot)(level, w, rows, acts, out);
}
