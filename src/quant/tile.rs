//! What the product of block formats works on: sixteen rows of weights, one per 32-bit lane, and the activations they meet.

use crate::simd::Simd;

/// Weights of a row that are multiplied at a time. Two unpacked panels and a few columns fit the first-level cache.
pub(super) const TILE: usize = 512;
/// Weights in a chunk: as many as share a scale of the activations.
pub(super) const CHUNK: usize = 32;
/// Rows of a panel: one per 32-bit lane.
pub(super) const ROWS: usize = 16;
/// The fewest weights that share a scale.
pub(super) const GROUP: usize = 16;

/// A tile of sixteen rows: w = d · (q − zero) + m. All methods must be `#[inline(always)]`.
pub(super) trait Source {
    /// Chunk `j` is about to be read.
    fn begin<S: Simd>(&self, s: S, j: usize);
    /// Word `i` < 8 of chunk `j`: codes 4 i … 4 i + 3 of each row, as [`Simd::dot_words`] wants them.
    fn word<S: Simd>(&self, s: S, j: usize, i: usize) -> S::Words;
    /// d of group `g` of each row.
    fn scale<S: Simd>(&self, s: S, g: usize) -> S::Floats;
    /// m of group `g` of each row.
    fn min<S: Simd>(&self, s: S, g: usize) -> S::Floats;
    /// The code that stands for zero.
    fn zero<S: Simd>(&self, s: S) -> i32;
}

/// Up to [`TILE`] weights of sixteen rows, unpacked.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Word i: weights 4 i … 4 i + 3 of each row.
    pub codes: [[u8; 64]; TILE / 4],
    /// Per group, of each row.
    pub scales: [[f32; ROWS]; TILE / GROUP],
    /// The same.
    pub mins: [[f32; ROWS]; TILE / GROUP],
    /// The code that stands for zero.
    pub zero: i32,
}

impl Panel {
    /// All zero.
    pub const ZERO: Panel = Panel { codes: [[0; _]; _], scales: [[0.0; _]; _], mins: [[0.0; _]; _], zero: 0 };
}

impl Source for &Panel {
    #[inline(always)]
    fn begin<S: Simd>(&self, _s: S, _j: usize) {}

    #[inline(always)]
    fn word<S: Simd>(&self, s: S, j: usize, i: usize) -> S::Words {
        s.words(&self.codes[8 * j + i])
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, g: usize) -> S::Floats {
        s.floats(&self.scales[g])
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, g: usize) -> S::Floats {
        s.floats(&self.mins[g])
    }

    #[inline(always)]
    fn zero<S: Simd>(&self, _s: S) -> i32 {
        self.zero
    }
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
