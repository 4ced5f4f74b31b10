//! The scratch between formats and the dot product: sixteen rows of weights, unpacked to byte codes and f32 scales, turned so
//! that one vector holds the same place of all sixteen; and the activations that they meet.
//!
//! Turned so, a sum over k needs no sum across lanes, and scales are applied once per group of weights for sixteen rows.

use crate::simd::Simd;

/// Weights of a row that are unpacked at a time. Two panels and a few columns fit the first-level cache.
pub(super) const TILE: usize = 512;
/// Weights in a chunk: what formats unpack at a time.
pub(super) const CHUNK: usize = 32;
/// Rows of a panel: one per 32-bit lane.
pub(super) const ROWS: usize = 16;
/// The fewest weights that share a scale.
pub(super) const GROUP: usize = 16;

/// Where a format's unpacked weights go.
pub(super) trait Sink<S: Simd> {
    /// Takes chunk `j` of the block: 32 codes, with a scale and a min for each half. Must be `#[inline(always)]`.
    fn put(&mut self, s: S, j: usize, codes: S::Bytes, scales: [f32; 2], mins: [f32; 2]);
}

/// Rows as they were unpacked, one after the other: codes q, scales d and mins m, w = d · q + m.
#[repr(C, align(64))]
pub(super) struct Staging {
    pub codes: [[[u8; CHUNK]; TILE / CHUNK]; ROWS],
    /// Per group of 16 weights; of formats whose groups are chunks, per chunk, in the first half.
    pub scales: [[f32; TILE / GROUP]; ROWS],
    /// The same.
    pub mins: [[f32; TILE / GROUP]; ROWS],
}

/// Up to [`TILE`] weights of sixteen rows, turned.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Word i: weights 4i … 4i + 3 of each row, as [`Simd::weights`] makes them.
    pub codes: [[u8; 64]; TILE / 4],
    /// Per group, of each row.
    pub scales: [[f32; ROWS]; TILE / GROUP],
    /// The same.
    pub mins: [[f32; ROWS]; TILE / GROUP],
}

/// What a thread unpacks to.
pub(super) struct Scratch {
    /// Rows on their way into a panel.
    pub staging: Staging,
    /// Two panels: with their rows every activation is used twice.
    pub panels: [Panel; 2],
}

impl Scratch {
    /// All zero.
    pub const ZERO: Scratch = Scratch {
        staging: Staging { codes: [[[0; _]; _]; _], scales: [[0.0; _]; _], mins: [[0.0; _]; _] },
        panels: [const { Panel { codes: [[0; _]; _], scales: [[0.0; _]; _], mins: [[0.0; _]; _] } }; 2],
    };
}

/// [`TILE`] activations as 16-bit fixed point in two bytes each: value = scale · (256 · high + low).
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct IntTile {
    /// Four at a time; never −128.
    pub(super) high: [[i8; 4]; TILE / 4],
    /// Four at a time; never −128.
    pub(super) low: [[i8; 4]; TILE / 4],
    /// Per chunk.
    pub(super) scales: [f32; TILE / CHUNK],
    /// Σ 256 · high + low of each half of a chunk.
    pub(super) sums: [[i32; 2]; TILE / CHUNK],
}

impl IntTile {
    /// All zero.
    pub(super) const ZERO: IntTile =
        IntTile { high: [[0; 4]; _], low: [[0; 4]; _], scales: [0.0; _], sums: [[0; 2]; _] };
}

/// [`TILE`] weights or activations as f32; zeros follow the last up to a multiple of 32.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct FloatTile(pub(super) [[f32; 16]; TILE / 16]);

impl FloatTile {
    /// All zero.
    pub(super) const ZERO: FloatTile = FloatTile([[0.0; 16]; _]);
}
