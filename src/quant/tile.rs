//! The scratch between a format and the dot product: up to 1024 weights of one row as byte codes and f32 scales.

use crate::simd::Simd;

/// Weights in a tile. It fits the first-level cache together with the activations it meets.
pub(super) const TILE: usize = 1024;
/// Weights in a chunk: what formats unpack at a time.
pub(super) const CHUNK: usize = 32;
const CHUNKS: usize = TILE / CHUNK;

/// Codes q, scales d and mins m of up to [`TILE`] weights: w = d · q + m.
#[repr(C, align(64))]
pub(super) struct Tile {
    codes: [[u8; CHUNK]; CHUNKS],
    /// Per 4 weights, which is what one 32-bit lane of a dot product holds.
    scales: [[f32; CHUNK / 4]; CHUNKS],
    /// Per 16 weights.
    mins: [[f32; CHUNK / 16]; CHUNKS],
}

/// A tile's part for one block.
pub(super) struct Chunks<'a> {
    codes: &'a mut [[u8; CHUNK]],
    scales: &'a mut [[f32; CHUNK / 4]],
    mins: &'a mut [[f32; CHUNK / 16]],
}

impl Chunks<'_> {
    /// Writes chunk `j` of the block: 32 codes, with a scale and a min for each half.
    #[inline(always)]
    pub fn put<S: Simd>(&mut self, s: S, j: usize, codes: S::Bytes, scales: [f32; 2], mins: [f32; 2]) {
        s.store_bytes(codes, &mut self.codes[j]);
        self.scales[j][..4].fill(scales[0]);
        self.scales[j][4..].fill(scales[1]);
        self.mins[j] = mins;
    }
}

impl Tile {
    /// All zero.
    pub fn new() -> Tile {
        Tile { codes: [[0; CHUNK]; CHUNKS], scales: [[0.0; 8]; CHUNKS], mins: [[0.0; 2]; CHUNKS] }
    }

    /// The parts for blocks of `N` weights, one after the other.
    #[inline(always)]
    pub fn blocks(&mut self, n: usize) -> impl Iterator<Item = Chunks<'_>> {
        let n = n / CHUNK;
        let codes = self.codes.chunks_exact_mut(n);
        let scales = self.scales.chunks_exact_mut(n);
        let mins = self.mins.chunks_exact_mut(n);
        codes.zip(scales).zip(mins).map(|((codes, scales), mins)| Chunks { codes, scales, mins })
    }

    /// Clears what follows the first `n` weights, as far as the dot product may read.
    #[inline(always)]
    pub fn clear_from(&mut self, n: usize) {
        let n = n / CHUNK;
        if !n.is_multiple_of(2) {
            self.codes[n].fill(0);
            self.scales[n].fill(0.0);
        }
        let end = n.next_multiple_of(256 / CHUNK);
        self.mins[n..end].fill([0.0; 2]);
    }

    /// The codes, 64 at a time.
    #[inline(always)]
    pub fn codes(&self) -> &[[u8; 64]; TILE / 64] {
        bytemuck::cast_ref(&self.codes)
    }

    /// The scales of 64 weights at a time, one per 4.
    #[inline(always)]
    pub fn scales(&self) -> &[[f32; 16]; TILE / 64] {
        bytemuck::cast_ref(&self.scales)
    }

    /// The mins of 256 weights at a time, one per 16.
    #[inline(always)]
    pub fn mins(&self) -> &[[f32; 16]; TILE / 256] {
        bytemuck::cast_ref(&self.mins)
    }
}
