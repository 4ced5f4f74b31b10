//! The dot product of block formats: byte codes with int8 activations, 64 products per instruction.

use super::activations::Activations;
use super::dot::{Dot, Sums};
use super::format::Block;
use super::tile::{CHUNK, GROUP, IntTile, STEP, Sink, TILE, Tile};
use crate::simd::Simd;
use std::marker::PhantomData;

/// The dot product with weights of format `F`.
pub(super) struct DotBlocks<F>(PhantomData<F>);

impl<F: Block> Dot for DotBlocks<F> {
    type Tile = Tile;
    type Acts = IntTile;
    const EMPTY: Tile = Tile::new();

    fn bytes(n: usize) -> usize {
        n / F::DTYPE.block() * F::DTYPE.block_bytes()
    }

    #[inline(always)]
    fn acts(acts: &Activations, plane: usize, column: usize, t: usize) -> &IntTile {
        acts.ints(plane, column, t)
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, bytes: &[u8], n: usize, tile: &mut Tile) {
        let blocks: &[F::Raw] = bytemuck::cast_slice(bytes);
        for (b, mut chunks) in blocks.iter().zip(tile.blocks(F::DTYPE.block())) {
            F::unpack(s, b, &mut chunks);
        }
        tile.clear_from(n);
    }

    #[inline(always)]
    fn add_packed<S: Simd>(s: S, bytes: &[u8], acts: &IntTile, n: usize, sum: &mut [f32; 16]) {
        let blocks: &[F::Raw] = bytemuck::cast_slice(bytes);
        let mut mins = [[0.0; 2]; TILE / CHUNK];
        let mut single = Single { acts, total: s.halves(s.floats(sum)), mins: &mut mins, at: 0, signed: F::SIGNED };
        // Two small blocks at a time, so that even and odd chunks are told apart when compiling.
        let (pairs, odd) = blocks.as_chunks::<2>();
        for [a, b] in pairs {
            F::unpack(s, a, &mut single);
            single.at += F::DTYPE.block() / CHUNK;
            F::unpack(s, b, &mut single);
            single.at += F::DTYPE.block() / CHUNK;
        }
        for b in odd {
            F::unpack(s, b, &mut single);
        }
        let mut total = s.join(single.total);
        if !F::SIGNED {
            let mins: &[[f32; 16]; TILE / GROUP] = bytemuck::cast_ref(&mins);
            for (m, x) in mins.iter().zip(&acts.sums).take(n.div_ceil(GROUP)) {
                total = s.add(total, s.mul(s.floats(m), s.floats(x)));
            }
        }
        s.store(total, sum);
    }

    #[inline(always)]
    fn add<S: Simd, const R: usize, const C: usize>(
        s: S,
        tiles: &[Tile],
        acts: [&IntTile; C],
        n: usize,
        sums: &mut Sums,
        column: usize,
    ) {
        // Loops, not closures, wherever vectors are about: a closure would not inherit the target features.
        let mut total = [[s.splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                total[r][c] = s.floats(&sums[r][column + c]);
            }
        }
        for i in 0..n.div_ceil(STEP).min(TILE / STEP) {
            for c in 0..C {
                let [s0, s1] = acts[c].scales[i];
                let scale = s.splat_pair(s0, s1);
                for r in 0..R {
                    let (q, a) = (&tiles[r].codes()[i], &acts[c].codes[i]);
                    let p = if F::SIGNED { s.dot_signed(q, a, &acts[c].bias[i]) } else { s.dot_unsigned(q, a) };
                    let d = s.mul(s.floats(&tiles[r].scales()[i]), scale);
                    total[r][c] = s.add(total[r][c], s.mul(d, s.to_floats(p)));
                }
            }
        }
        if !F::SIGNED {
            for i in 0..n.div_ceil(GROUP).min(TILE / GROUP) {
                for c in 0..C {
                    let x = s.floats(&acts[c].sums[i]);
                    for r in 0..R {
                        total[r][c] = s.add(total[r][c], s.mul(s.floats(&tiles[r].mins()[i]), x));
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(total[r][c], &mut sums[r][column + c]);
            }
        }
    }
}

/// A sink that multiplies with one column at once, so that nothing but mins goes through memory.
struct Single<'a, S: Simd> {
    acts: &'a IntTile,
    /// Sums of even and odd chunks.
    total: [S::Lanes; 2],
    mins: &'a mut [[f32; 2]; TILE / CHUNK],
    /// The block's first chunk in the tile.
    at: usize,
    signed: bool,
}

impl<S: Simd> Sink<S> for Single<'_, S> {
    #[inline(always)]
    fn put(&mut self, s: S, j: usize, codes: S::Bytes, scales: [f32; 2], mins: [f32; 2]) {
        let i = (self.at + j) % (TILE / CHUNK);
        let acts: &[[i8; CHUNK]; TILE / CHUNK] = bytemuck::cast_ref(&self.acts.codes);
        let x: &[f32; TILE / CHUNK] = bytemuck::cast_ref(&self.acts.scales);
        let total = &mut self.total[i % 2];
        if self.signed {
            let bias: &[[i32; CHUNK / 4]; TILE / CHUNK] = bytemuck::cast_ref(&self.acts.bias);
            *total = s.add_signed(*total, codes, &acts[i], &bias[i], scales, x[i]);
        } else {
            *total = s.add_unsigned(*total, codes, &acts[i], scales, x[i]);
            self.mins[i] = mins;
        }
    }
}
