//! Units that multiply small matrices of bf16, adding up in f32: on x86 AMX, whose cores do in a cycle what dot products do in
//! eight to sixteen.

#[cfg(target_arch = "x86_64")]
use super::amx::Amx;
use bytemuck::{Pod, Zeroable};

/// Rows of a tile, and of what a product of two tiles gives.
pub const TILE_ROWS: usize = 16;
/// Values that two tiles share: those along which they are multiplied.
pub const TILE_DEPTH: usize = 32;

/// A matrix of bf16 to be multiplied. Of activations, row `i` holds 32 values of column `i`. Of weights, row `p` holds values
/// 2 p and 2 p + 1 of each of sixteen rows.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Tile(pub [[u16; TILE_DEPTH]; TILE_ROWS]);

/// Products of 32 columns with two panels of sixteen rows of weights: panel, half of the columns, column, row.
pub type TileSums = [[[[f32; TILE_ROWS]; TILE_ROWS]; 2]; 2];

/// Something that multiplies tiles.
#[derive(Debug, Clone, Copy)]
pub enum Tiles {
    /// The twin without instructions for it: it says what the others compute, but for rounding.
    Portable,
    /// Intel's units.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

impl Tiles {
    /// Makes `sums[g]` the products of column groups 2 g and 2 g + 1 with both panels, or adds them to it. A group's tiles lie `per`
    /// tiles after those of the group before it; as many of them are used as a panel has. Panics if tiles are missing.
    pub fn multiply(self, weights: [&[Tile]; 2], acts: &[Tile], per: usize, add: bool, sums: &mut [TileSums]) {
        assert!(weights[0].len() == weights[1].len() && weights[0].len() <= per, "as many tiles in all");
        assert!(acts.len() >= 2 * per * sums.len(), "tiles of two groups for each block of sums");
        match self {
            Tiles::Portable => multiply(weights, acts, per, add, sums),
            #[cfg(target_arch = "x86_64")]
            Tiles::Amx(unit) => unit.multiply(weights, acts, per, add, sums),
        }
    }

    /// Does nothing but multiplying for `rounds` rounds, and gives the operations that were done.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn roofline(self, rounds: usize) -> Option<f64> {
        match self {
            Tiles::Portable => None,
            Tiles::Amx(unit) => Some(unit.roofline(rounds)),
        }
    }
}

fn multiply(weights: [&[Tile]; 2], acts: &[Tile], per: usize, add: bool, sums: &mut [TileSums]) {
    if !add {
        sums.fill(TileSums::zeroed());
    }
    let wide = |bits: u16| f32::from_bits((bits as u32) << 16);
    for (g, sums) in sums.iter_mut().enumerate() {
        for (weights, sums) in weights.iter().zip(sums) {
            for (half, sums) in sums.iter_mut().enumerate() {
                for (w, x) in weights.iter().zip(&acts[(2 * g + half) * per..]) {
                    for (sums, x) in sums.iter_mut().zip(&x.0) {
                        for (row, sum) in sums.iter_mut().enumerate() {
                            let pair = |p: usize| (w.0[p][2 * row], w.0[p][2 * row + 1]);
                            let product =
                                |p: usize| wide(pair(p).0) * wide(x[2 * p]) + wide(pair(p).1) * wide(x[2 * p + 1]);
                            *sum += (0..TILE_ROWS).map(product).sum::<f32>();
                        }
                    }
                }
            }
        }
    }
}
