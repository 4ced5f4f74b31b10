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
    /// The words of all chunks, if they are stored unpacked. Others are unpacked by [`word`](Self::word), which is fast if `i` is a constant.
    fn words(&self) -> Option<&[[u8; 64]; TILE / 4]>;
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
    /// Word i: weights 4 i … 4 i + 3 of each row; two by two as [`Simd::zip_words`] gives them.
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
    fn words(&self) -> Option<&[[u8; 64]; TILE / 4]> {
        Some(&self.codes)
    }

    #[inline(always)]
    fn begin<S: Simd>(&self, _s: S, _j: usize) {}

    #[inline(always)]
    fn word<S: Simd>(&self, s: S, j: usize, i: usize) -> S::Words {
        let at = 8 * j + i;
        if S::MATRICES {
            let first = at / 2 * 2;
            return s.unzip_words([s.words(&self.codes[first]), s.words(&self.codes[first + 1])])[at % 2];
        }
        s.words(&self.codes[at])
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

/// [`TILE`] activations as fixed point in two bytes each: value = scale · (256 · high + low). Those rounded to eight bits have
/// a low byte only in chunks of `wide`; elsewhere it is zero.
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
    /// Σ low of each half of a chunk.
    pub(super) low_sums: [[i32; 2]; TILE / CHUNK],
    /// Bit j: chunk j has low bytes.
    pub(super) wide: u16,
    /// What goes with the codes, for the weights that the tile meets: of both bytes, or of the high ones if those are alone. See [`Terms::of`].
    pub(super) terms: Terms,
}

const _: () = assert!(TILE / CHUNK == 16, "a bit per chunk");

/// What activations, or one byte of each, need beside their codes where they are multiplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Of a chunk's codes.
    pub scales: [f32; TILE / CHUNK],
    /// −zero · Σ a of each part of a chunk: where its sum of products begins.
    pub starts: [[i32; 2]; TILE / CHUNK],
    /// scale · Σ a of each part of a chunk: by what minima are multiplied.
    pub offsets: [[f32; 2]; TILE / CHUNK],
}

/// What terms depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WeightCodes {
    /// The code that stands for zero.
    pub zero: i32,
    /// Whether half a chunk is a part; otherwise the whole is the first.
    pub halves: bool,
}

/// Which bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Byte {
    Both,
    High,
    Low,
}

impl Terms {
    pub const ZERO: Terms = Terms { scales: [0.0; _], starts: [[0; 2]; _], offsets: [[0.0; 2]; _] };

    /// Those of some bytes of `tile`.
    #[inline(always)]
    pub fn of(tile: &IntTile, byte: Byte, w: WeightCodes) -> Terms {
        // A loop of its own for each case, without a branch in it: each becomes vectors.
        match (byte, w.halves) {
            (Byte::Both, true) => Self::all(tile, Byte::Both, WeightCodes { halves: true, ..w }),
            (Byte::Both, false) => Self::all(tile, Byte::Both, WeightCodes { halves: false, ..w }),
            (Byte::High, true) => Self::all(tile, Byte::High, WeightCodes { halves: true, ..w }),
            (Byte::High, false) => Self::all(tile, Byte::High, WeightCodes { halves: false, ..w }),
            (Byte::Low, _) => Self::all(tile, Byte::Low, w),
        }
    }

    #[inline(always)]
    fn all(tile: &IntTile, byte: Byte, w: WeightCodes) -> Terms {
        let mut terms = Terms::ZERO;
        for j in 0..TILE / CHUNK {
            terms.set(j, tile, byte, w);
        }
        terms
    }

    /// Makes those of chunk `j`.
    #[inline(always)]
    pub fn set(&mut self, j: usize, tile: &IntTile, byte: Byte, w: WeightCodes) {
        let [a, b] = tile.low_sums[j];
        let (a, b, scale) = match byte {
            Byte::Both => (tile.sums[j][0], tile.sums[j][1], tile.scales[j]),
            Byte::Low => (a, b, tile.scales[j]),
            Byte::High => ((tile.sums[j][0] - a) >> 8, (tile.sums[j][1] - b) >> 8, 256.0 * tile.scales[j]),
        };
        let (a, b) = if w.halves { (a, b) } else { (a + b, 0) };
        self.scales[j] = scale;
        self.starts[j] = [-w.zero * a, -w.zero * b];
        self.offsets[j] = [a as f32 * scale, b as f32 * scale];
    }
}

impl IntTile {
    /// All zero.
    pub(super) const ZERO: IntTile = IntTile {
        high: [[0; 4]; _],
        low: [[0; 4]; _],
        scales: [0.0; _],
        sums: [[0; 2]; _],
        low_sums: [[0; 2]; _],
        wide: 0,
        terms: Terms::ZERO,
    };
}

/// [`TILE`] weights or activations as f32; zeros follow the last up to a multiple of 32.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct FloatTile(pub(super) [[f32; 16]; TILE / 16]);

impl FloatTile {
    /// All zero.
    pub(super) const ZERO: FloatTile = FloatTile([[0.0; 16]; _]);
}
