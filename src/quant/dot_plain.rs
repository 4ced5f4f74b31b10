//! The dot product of plain types: as f32.

use super::activations::Activations;
use super::dot::{Dot, Sums};
use super::format::Plain;
use super::tile::{FloatTile, TILE};
use crate::simd::{Simd, array};
use std::marker::PhantomData;

/// The dot product with weights of type `F`.
pub(super) struct DotPlain<F>(PhantomData<F>);

impl<F: Plain> Dot for DotPlain<F> {
    type Tile = FloatTile;
    type Acts = FloatTile;
    const EMPTY: FloatTile = FloatTile::ZERO;

    fn bytes(n: usize) -> usize {
        n * size_of::<F::Raw>()
    }

    #[inline(always)]
    fn acts(acts: &Activations, _plane: usize, column: usize, t: usize) -> &FloatTile {
        acts.floats(column, t)
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, bytes: &[u8], _n: usize, tile: &mut FloatTile) {
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

    #[inline(always)]
    fn add_packed<S: Simd>(s: S, bytes: &[u8], acts: &FloatTile, _n: usize, sum: &mut [f32; 16]) {
        let (whole, rest) = bytemuck::cast_slice::<u8, F::Raw>(bytes).as_chunks::<32>();
        let (x, last) = acts.0.as_chunks::<2>().0.split_at(whole.len());
        let (mut even, mut odd) = (s.floats(sum), s.splat(0.0));
        for (w, x) in whole.iter().zip(x) {
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
}
