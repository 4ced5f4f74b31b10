//! The scratch between formats and the dot product: up to 1024 weights of one row as byte codes and f32 scales, and the
//! activations that they meet, cut alike.

use crate::simd::Simd;

/// Values in a tile. A few tiles of weights and a batch of columns fit the first-level cache.
pub(super) const TILE: usize = 1024;
/// Weights in a chunk: what formats unpack at a time.
pub(super) const CHUNK: usize = 32;
/// Values that one instruction of the dot product takes.
pub(super) const STEP: usize = 64;
/// Weights whose mins one vector holds.
pub(super) const GROUP: usize = 256;

/// Codes q, scales d and mins m of up to [`TILE`] weights: w = d · q + m.
#[repr(C, align(64))]
pub(super) struct Tile {
    codes: [[u8; CHUNK]; TILE / CHUNK],
    /// Per 4 weights, which is what one 32-bit lane of a dot product holds.
    scales: [[f32; CHUNK / 4]; TILE / CHUNK],
    /// Per 16 weights.
    mins: [[f32; CHUNK / 16]; TILE / CHUNK],
}

/// Where a format's unpacked weights go.
pub(super) trait Sink<S: Simd> {
    /// Takes chunk `j` of the block: 32 codes, with a scale and a min for each half. Must be `#[inline(always)]`.
    fn put(&mut self, s: S, j: usize, codes: S::Bytes, scales: [f32; 2], mins: [f32; 2]);
}

/// A tile's part for one block.
pub(super) struct Chunks<'a> {
    codes: &'a mut [[u8; CHUNK]],
    scales: &'a mut [[f32; CHUNK / 4]],
    mins: &'a mut [[f32; CHUNK / 16]],
}

impl<S: Simd> Sink<S> for Chunks<'_> {
    #[inline(always)]
    fn put(&mut self, s: S, j: usize, codes: S::Bytes, scales: [f32; 2], mins: [f32; 2]) {
        s.store_bytes(codes, &mut self.codes[j]);
        self.scales[j][..4].fill(scales[0]);
        self.scales[j][4..].fill(scales[1]);
        self.mins[j] = mins;
    }
}

impl Tile {
    /// All zero.
    pub const fn new() -> Tile {
        Tile { codes: [[0; CHUNK]; _], scales: [[0.0; CHUNK / 4]; _], mins: [[0.0; CHUNK / 16]; _] }
    }

    /// The parts for blocks of `block` weights, one after the other.
    #[inline(always)]
    pub fn blocks(&mut self, block: usize) -> impl Iterator<Item = Chunks<'_>> {
        let n = block / CHUNK;
        let codes = self.codes.chunks_exact_mut(n);
        let scales = self.scales.chunks_exact_mut(n);
        let mins = self.mins.chunks_exact_mut(n);
        codes.zip(scales).zip(mins).map(|((codes, scales), mins)| Chunks { codes, scales, mins })
    }

    /// Clears what follows the first `n` weights, as far as the dot product may read.
    #[inline(always)]
    pub fn clear_from(&mut self, n: usize) {
        let used = n / CHUNK;
        let end = n.next_multiple_of(STEP) / CHUNK;
        self.codes[used..end].fill([0; CHUNK]);
        self.scales[used..end].fill([0.0; CHUNK / 4]);
        self.mins[used..n.next_multiple_of(GROUP) / CHUNK].fill([0.0; CHUNK / 16]);
    }

    /// The codes, 64 at a time.
    #[inline(always)]
    pub fn codes(&self) -> &[[u8; STEP]; TILE / STEP] {
        bytemuck::cast_ref(&self.codes)
    }

    /// The scales of 64 weights at a time, one per 4.
    #[inline(always)]
    pub fn scales(&self) -> &[[f32; 16]; TILE / STEP] {
        bytemuck::cast_ref(&self.scales)
    }

    /// The mins of 256 weights at a time, one per 16.
    #[inline(always)]
    pub fn mins(&self) -> &[[f32; 16]; TILE / GROUP] {
        bytemuck::cast_ref(&self.mins)
    }
}

/// [`TILE`] activations as int8; zeros follow the last.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct IntTile {
    /// Never −128.
    pub codes: [[i8; STEP]; TILE / STEP],
    /// Per 32 values: value = scale · code.
    pub scales: [[f32; 2]; TILE / STEP],
    /// Per 16 values: scale · Σ codes, which meets the weights' mins.
    pub sums: [[f32; 16]; TILE / GROUP],
    /// Per 4 values: −128 · Σ codes, see [`Simd::dot_signed`].
    pub bias: [[i32; 16]; TILE / STEP],
}

impl IntTile {
    /// All zero.
    pub const ZERO: IntTile =
        IntTile { codes: [[0; STEP]; _], scales: [[0.0; 2]; _], sums: [[0.0; 16]; _], bias: [[0; 16]; _] };
}

/// [`TILE`] weights or activations as f32; zeros follow the last up to a multiple of 32.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct FloatTile(pub [[f32; 16]; TILE / 16]);

impl FloatTile {
    /// All zero.
    pub const ZERO: FloatTile = FloatTile([[0.0; 16]; _]);
}
