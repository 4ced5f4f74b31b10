//! Scores of the few queries of an answer: keys are read as they lie, for turning them would cost more than the products.
#![allow(clippy::needless_range_loop)] // r and n index several arrays at once

use super::attention_cells::{Ahead, BLOCK, Number, Place, Rows, STRIDE, with_rows};
use crate::base::View;
use crate::simd::{Level, Simd, SimdKernel, array, array_mut};

/// The most queries of a kv head for which this is the faster way.
pub(super) const FEW: usize = 8;
/// Cells whose products are added up together.
const CELLS: usize = 4;

/// Scores of all queries, `[kvs, rows, dim]`, with the cells: `scores[row * STRIDE + cell - start]`.
pub(super) fn score(cache: &View, place: &Place, cells: &mut Vec<f32>, (q, dim): (&[f32], usize), scores: &mut [f32]) {
    with_rows!(cache, place, cells, |keys, place| Level::best().run(Score { keys, place, q, dim, scores }));
}

struct Score<'a, T> {
    keys: Rows<'a, T>,
    place: &'a Place<'a>,
    q: &'a [f32],
    dim: usize,
    scores: &'a mut [f32],
}

impl<T: Number> SimdKernel for Score<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Score { keys, place, q, dim, scores } = self;
        for block in place.blocks() {
            let (cells, ahead) = (place.rows(block), place.ahead(block));
            for head in 0..place.kvs.len() {
                let rows = head * place.rows..(head + 1) * place.rows;
                let mut row = rows.start;
                while row < rows.end {
                    let at = At { cells: &cells, ahead: (row == rows.start).then_some(&ahead), head };
                    let (q, scores) = (&q[row * dim..], &mut scores[row * STRIDE + block - place.start..]);
                    row += match rows.end - row {
                        4.. if S::REGISTERS >= 32 => score_rows::<S, T, 4>(s, keys, at, q, dim, scores),
                        3.. if S::REGISTERS >= 32 => score_rows::<S, T, 3>(s, keys, at, q, dim, scores),
                        2.. if S::REGISTERS >= 32 => score_rows::<S, T, 2>(s, keys, at, q, dim, scores),
                        _ => score_rows::<S, T, 1>(s, keys, at, q, dim, scores),
                    };
                }
            }
        }
    }
}

/// The keys of a block.
struct At<'a> {
    /// The cells' rows in the cache.
    cells: &'a [usize; BLOCK],
    /// What is to be fetched meanwhile.
    ahead: Option<&'a Ahead<'a>>,
    head: usize,
}

/// Scores of `R` queries with sixteen cells: `scores[row * STRIDE ..][.. 16]`. Gives `R`.
#[inline(always)]
fn score_rows<S: Simd, T: Number, const R: usize>(
    s: S,
    keys: Rows<'_, T>,
    at: At<'_>,
    q: &[f32],
    dim: usize,
    scores: &mut [f32],
) -> usize {
    let mut folded = [[s.splat(0.0); BLOCK / CELLS]; R];
    for i in 0..BLOCK / CELLS {
        let mut sums = [[s.splat(0.0); CELLS]; R];
        let mut k = [keys.head(at.cells[CELLS * i], at.head); CELLS];
        for n in 0..CELLS {
            k[n] = keys.head(at.cells[CELLS * i + n], at.head);
            if let Some(ahead) = at.ahead {
                keys.fetch(s, ahead, CELLS * i + n, at.head);
            }
        }
        for c in (0..dim).step_by(BLOCK) {
            let mut v = [s.splat(0.0); CELLS];
            for n in 0..CELLS {
                v[n] = T::widen(s, array(k[n], c));
            }
            for r in 0..R {
                let q = s.floats(array(q, r * dim + c));
                for n in 0..CELLS {
                    sums[r][n] = s.mul_add(v[n], q, sums[r][n]);
                }
            }
        }
        for r in 0..R {
            folded[r][i] = s.fold(sums[r]);
        }
    }
    for r in 0..R {
        s.store(s.fold_across(folded[r]), array_mut(scores, r * STRIDE));
    }
    R
}
