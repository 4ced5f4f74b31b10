//! The product of weights of every type with the many columns of a prompt where there are units for tiles of bf16: weights are
//! unpacked, scaled and rounded to bf16, activations rounded to it once. A rounding is off by 2⁻⁹ at the most, so the result by
//! some 0.2 %, a third of what 8-bit activations cost, and no scale is left to apply afterwards.

use super::activations::Activations;
use super::dot_plain::columns;
use super::format::{Block, Plain};
use super::gemm::{PanelProduct, Unpack, WeightRows};
use super::panel::Packed;
use super::tile::{self, CHUNK, ROWS, Source};
use crate::simd::{Simd, SimdKernel, TILE_DEPTH, TILE_ROWS, Tile, TileSums, array_mut};
use std::cell::RefCell;
use std::marker::PhantomData;

const _: () = assert!(TILE_DEPTH == CHUNK && TILE_ROWS == ROWS);

/// Weights of a row that are multiplied at a time: those of two panels and of two groups of columns fit the first-level cache
/// together. Measured on a Sapphire Rapids: 65 % of the units' peak, 52 % with twice as many, as with half.
pub(super) const TILE: usize = 256;
const _: () = assert!(tile::TILE.is_multiple_of(TILE));
/// Chunks of a row in a panel.
pub(super) const CHUNKS: usize = TILE / CHUNK;
/// Columns whose products are made together: two tiles of activations.
pub(super) const COLUMNS: usize = 2 * TILE_ROWS;

/// Up to [`TILE`] weights of sixteen rows.
#[repr(C)]
pub(super) struct Panel([Tile; CHUNKS]);

impl Panel {
    const ZERO: Panel = Panel([Tile([[0; _]; _]); _]);
}

thread_local! {
    static PANELS: RefCell<[Panel; 2]> = const { RefCell::new([Panel::ZERO; 2]) };
}

/// Rounds a tile of up to sixteen columns, `stride` apart in `x`. Zeros stand for what is not there.
pub(super) struct Round<'a> {
    pub x: &'a [f32],
    pub stride: usize,
    /// How many columns there are, where in them the tile begins, and how many values it has.
    pub sizes: [usize; 3],
    pub to: &'a mut [Tile],
}

impl SimdKernel for Round<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let Round { x, stride, sizes: [columns, first, n], to } = self;
        for c in 0..TILE_ROWS {
            let row = if c < columns { &x[c * stride + first..][..n] } else { &[] };
            for (j, tile) in to.iter_mut().enumerate() {
                let values = row.get(j * CHUNK..).unwrap_or_default();
                let out = &mut tile.0[c];
                match values.first_chunk::<CHUNK>() {
                    Some(values) => out.iter_mut().zip(values).for_each(|(out, v)| *out = bf16(*v)),
                    None => {
                        out.fill(0);
                        out.iter_mut().zip(values).for_each(|(out, v)| *out = bf16(*v));
                    }
                }
            }
        }
    }
}

/// The nearest bf16; ties go away from zero, which is as near. Without branches, so that it becomes vectors.
#[inline(always)]
fn bf16(v: f32) -> u16 {
    // NaN stays NaN: its upper half alone might be infinity, and the sum might overflow.
    let bits = if v.is_nan() { 0x7fc0_0000 } else { v.to_bits().wrapping_add(0x8000) };
    (bits >> 16) as u16
}

/// Weights and activations as tiles of bf16, of weights that `U` unpacks.
pub(super) struct Tiles<U>(PhantomData<U>);

/// How weights become tiles. The method must be `#[inline(always)]`.
pub(super) trait ToTiles: 'static {
    /// See [`Unpack::ROWS_PER_STEP`].
    const ROWS_PER_STEP: usize;
    /// See [`Unpack::unpack`].
    fn unpack<S: Simd>(s: S, w: &WeightRows<'_>, p: usize, t: usize, to: &mut Panel);
}

impl<U: ToTiles> Unpack for Tiles<U> {
    type Panel = Panel;
    const TILE: usize = TILE;
    const ROWS_PER_STEP: usize = U::ROWS_PER_STEP;
    // The units are fast: with half of it they wait for activations.
    const BATCH: usize = 16 * ROWS;

    #[inline(always)]
    fn with_panels<T>(f: impl FnOnce(&mut [Panel; 2]) -> T) -> T {
        PANELS.with_borrow_mut(f)
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, w: &WeightRows<'_>, p: usize, t: usize, to: &mut Panel) {
        U::unpack(s, w, p, t, to);
    }
}

impl<U: ToTiles> PanelProduct for Tiles<U> {
    #[inline(always)]
    fn group<S: Simd>(_acts: &Activations, _from: usize) -> usize {
        COLUMNS
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        _s: S,
        panels: &[Panel; 2],
        _used: usize,
        acts: &Activations,
        t: usize,
        _next: [&[u8]; 2],
        sums: &mut [[f32; ROWS]],
    ) {
        let chunks = TILE.min(acts.k() - t * TILE).div_ceil(CHUNK);
        let sums: &mut [TileSums] = bytemuck::cast_slice_mut(sums);
        let (unit, acts) = acts.tiles(t);
        unit.multiply([&panels[0].0[..chunks], &panels[1].0[..chunks]], acts, CHUNKS, t > 0, sums);
    }
}

/// Panels of a block format.
pub(super) struct Blocks<F>(PhantomData<F>);

impl<F: Block> ToTiles for Blocks<F> {
    const ROWS_PER_STEP: usize = ROWS;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, w: &WeightRows<'_>, p: usize, t: usize, to: &mut Panel) {
        let from = Packed::<F>::new(&w.bytes[p * w.step..], w.k, t * TILE / tile::TILE, 1);
        let first = t * TILE % tile::TILE / CHUNK;
        let chunks = TILE.min(w.k - t * TILE) / CHUNK;
        let parts = if F::HALVES { 2 } else { 1 };
        let zero = s.splat(from.zero(s) as f32);
        for (j, tile) in (first..).zip(to.0.iter_mut().take(chunks)) {
            from.begin(s, j);
            let out: &mut [[u8; 64]; TILE_ROWS] = bytemuck::cast_mut(&mut tile.0);
            for part in 0..parts {
                let g = parts * j + part;
                let d = from.scale(s, g);
                // Exact: zero is a power of two.
                let m = if F::SCALES.mins() { from.min(s, g) } else { s.sub(s.splat(0.0), s.mul(zero, d)) };
                let words = CHUNK / 4 / parts;
                for i in part * words..(part + 1) * words {
                    let w = from.word(s, j, i);
                    for pair in 0..2 {
                        let even = s.mul_add(s.byte_floats(w, 2 * pair), d, m);
                        let odd = s.mul_add(s.byte_floats(w, 2 * pair + 1), d, m);
                        s.store_words(s.pairs_bf16(even, odd), &mut out[2 * i + pair as usize]);
                    }
                }
            }
        }
    }
}

/// Rows of a plain type.
pub(super) struct Plains<F>(PhantomData<F>);

impl<F: Plain> ToTiles for Plains<F> {
    const ROWS_PER_STEP: usize = 1;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, w: &WeightRows<'_>, p: usize, t: usize, to: &mut Panel) {
        let chunks = TILE.min(w.k - t * TILE).div_ceil(CHUNK);
        for (j, tile) in to.0.iter_mut().enumerate().take(chunks) {
            for half in 0..2 {
                let turned = s.transpose(columns::<F, S>(s, w, p, t * TILE + j * CHUNK + 16 * half));
                for i in 0..8 {
                    let words = s.pairs_bf16(turned[2 * i], turned[2 * i + 1]);
                    let row = array_mut(bytemuck::cast_slice_mut(&mut tile.0), 64 * (8 * half + i));
                    s.store_words(words, row);
                }
            }
        }
    }
}
