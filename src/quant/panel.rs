//! Panels: how quantized weights lie in memory once they are loaded for the CPU. Sixteen rows are interleaved by words of
//! four bytes, so that one vector holds the same place of all sixteen: a sum over k then needs no sum across lanes, scales are
//! applied once per group of weights for sixteen rows, and a product reads one sequential stream.
//!
//! A panel is a sequence of tiles of up to 512 weights of each row. A tile is, per row interleaved, f16 or integer scales as
//! the format has them, then, from a multiple of 64 bytes on, its chunks of 32 weights: BITS vectors of 64 bytes each. Codes
//! of 4, 5 and 6 bits have their low nibbles first (word i in the low half of vector i, word i + 4 in the high half), then
//! their high bits; of 2 and 3 bits the low two, then the third. The size is that of the file, but that scales of six bits
//! take eight.

use super::bytes::Half;
use super::format::Block;
use super::tile::{CHUNK, Panel, ROWS, Source, TILE, WeightCodes};
use crate::simd::{Level, Simd, SimdKernel, array, array_mut};
use std::marker::PhantomData;

/// How a block format's scales are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// An f16 per chunk.
    Half,
    /// An f16 per chunk, and another that is added to every weight.
    HalfMin,
    /// A power of two per chunk: 2^(e − 128).
    Exponent,
    /// An i8 per group, under an f16 per 256 weights.
    Int,
    /// The same, and as much again that is subtracted.
    IntMin,
}

impl Scales {
    const fn is_int(self) -> bool {
        matches!(self, Scales::Int | Scales::IntMin)
    }

    /// Whether something is added to d · q.
    pub const fn mins(self) -> bool {
        matches!(self, Scales::HalfMin | Scales::IntMin)
    }
}

/// One block, taken apart.
pub(super) struct Parts {
    /// One code per weight; of table formats, indices into the table.
    pub codes: [u8; 256],
    /// The f16 scale.
    pub d: Half,
    /// The f16 of the minimum.
    pub m: Half,
    /// Per group; an exponent lies in the first.
    pub scales: [i8; 16],
    /// The same.
    pub mins: [i8; 16],
}

impl Parts {
    const ZERO: Parts = Parts { codes: [0; 256], d: Half([0; 2]), m: Half([0; 2]), scales: [0; 16], mins: [0; 16] };
}

/// Where the parts of a tile begin, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    pub mins: usize,
    pub scales: usize,
    pub int_mins: usize,
    pub codes: usize,
    pub end: usize,
}

/// Bytes of the f16 scales of one chunk, or of 256 weights.
pub(super) const HALVES: usize = 2 * ROWS;

/// The map of a tile of so many chunks.
#[inline(always)]
pub(super) const fn map<F: Block>(chunks: usize) -> Map {
    let halves = if F::SCALES.is_int() { chunks.div_ceil(8) } else { chunks } * HALVES;
    let (d, m) = match F::SCALES {
        Scales::Half | Scales::Int => (halves, 0),
        Scales::HalfMin | Scales::IntMin => (halves, halves),
        Scales::Exponent => (0, 0),
    };
    let ints = chunks * ROWS * if F::HALVES { 2 } else { 1 };
    let (s, n) = match F::SCALES {
        Scales::Half | Scales::HalfMin => (0, 0),
        Scales::Exponent | Scales::Int => (ints, 0),
        Scales::IntMin => (ints, ints),
    };
    let codes = (d + m + s + n).next_multiple_of(64);
    Map { mins: d, scales: d + m, int_mins: d + m + s, codes, end: codes + chunks * chunk_bytes::<F>() }
}

pub(super) const fn chunk_bytes<F: Block>() -> usize {
    F::BITS * CHUNK * ROWS / 8
}

/// Bytes of a whole tile.
pub(super) const fn tile_bytes<F: Block>() -> usize {
    map::<F>(TILE / CHUNK).end
}

/// Bytes of a panel whose rows have `k` weights.
pub(super) fn panel_bytes<F: Block>(k: usize) -> usize {
    k / TILE * tile_bytes::<F>() + if k.is_multiple_of(TILE) { 0 } else { map::<F>(k % TILE / CHUNK).end }
}

/// Interleaves up to sixteen rows of `k` weights, as they lie in a file; rows that are not there become zero.
pub(super) fn pack<F: Block>(rows: &[u8], k: usize, out: &mut [u8]) {
    let row = F::DTYPE.row_bytes(k).expect("a row is whole blocks");
    let mut parts = Parts::ZERO;
    let mut codes = [[[0u8; CHUNK]; TILE / CHUNK]; ROWS];
    let mut rest = out;
    for start in (0..k).step_by(TILE) {
        let chunks = TILE.min(k - start) / CHUNK;
        let map = map::<F>(chunks);
        let (tile, tail) = rest.split_at_mut(map.end);
        rest = tail;
        let (head, body) = tile.split_at_mut(map.codes);
        head.fill(0);
        let bytes = |weights: usize| weights / F::DTYPE.block() * F::DTYPE.block_bytes();
        for (r, codes) in codes.iter_mut().enumerate() {
            let Some(row) = rows.get(r * row..(r + 1) * row) else {
                *codes = [[0; CHUNK]; _];
                continue;
            };
            let blocks: &[F::Raw] = bytemuck::cast_slice(&row[bytes(start)..bytes(start + chunks * CHUNK)]);
            let per_block = F::DTYPE.block() / CHUNK;
            for (b, (block, to)) in blocks.iter().zip(codes.chunks_exact_mut(per_block)).enumerate() {
                F::unpack(block, &mut parts);
                to.as_flattened_mut().copy_from_slice(&parts.codes[..F::DTYPE.block()]);
                put_scales::<F>(&parts, b, r, &map, head);
            }
        }
        for (j, out) in body.chunks_exact_mut(chunk_bytes::<F>()).enumerate() {
            let mut words = [[0u32; ROWS]; CHUNK / 4];
            for r in 0..ROWS {
                for (i, word) in codes[r][j].as_chunks::<4>().0.iter().enumerate() {
                    words[i][r] = u32::from_le_bytes(*word);
                }
            }
            interleave::<F>(&words, bytemuck::cast_slice_mut(out));
        }
    }
}

/// Writes the scales of block `b` of row `r`.
fn put_scales<F: Block>(parts: &Parts, b: usize, r: usize, map: &Map, head: &mut [u8]) {
    let half = b * HALVES + 2 * r;
    if F::SCALES != Scales::Exponent {
        head[half..half + 2].copy_from_slice(&parts.d.0);
    }
    if F::SCALES.mins() {
        head[map.mins + half..][..2].copy_from_slice(&parts.m.0);
    }
    if F::SCALES == Scales::Exponent {
        head[map.scales + b * ROWS + r] = parts.scales[0] as u8;
    }
    let groups = if F::HALVES { 16 } else { 8 };
    if F::SCALES.is_int() {
        for g in 0..groups {
            let at = (b * groups + g) * ROWS + r;
            head[map.scales + at] = parts.scales[g] as u8;
            if F::SCALES.mins() {
                head[map.int_mins + at] = parts.mins[g] as u8;
            }
        }
    }
}

/// Packs a chunk: word i holds weights 4 i … 4 i + 3.
fn interleave<F: Block>(words: &[[u32; ROWS]; 8], out: &mut [[u32; ROWS]]) {
    let low = match F::BITS {
        8 => 8,
        4.. => 4,
        _ => 2,
    };
    let mask = 0x0101_0101 * ((1u32 << low) - 1);
    let per_byte = 8 / low;
    out.fill([0; ROWS]);
    for (i, word) in words.iter().enumerate() {
        // Nibbles: word i with word i + 4. Pairs of bits: words 4 n … 4 n + 3 in vector n.
        let (n, shift) = match low {
            8 => (i, 0),
            4 => (i % 4, i / 4 * 4),
            _ => (i / 4, i % 4 * 2),
        };
        for r in 0..ROWS {
            out[n][r] |= (word[r] & mask) << shift;
        }
        let base = 8 / per_byte;
        let (n, shift, mask) = match F::BITS - low {
            0 => continue,
            1 => (base, i, 0x0101_0101),
            _ => (base + i / 4, i % 4 * 2, 0x0303_0303),
        };
        for r in 0..ROWS {
            out[n][r] |= (word[r] >> low & mask) << shift;
        }
    }
}

/// A tile of a panel, unpacked as it is read.
pub(super) struct Packed<'a, F> {
    tile: &'a [u8],
    /// Bytes of the panel from this tile on, and from its end to the panel that is read after it.
    ahead: (usize, usize),
    map: Map,
    format: PhantomData<F>,
}

impl<F> Clone for Packed<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Packed<'_, F> {}

impl<'a, F: Block> Packed<'a, F> {
    /// Tile `t` of the panel of rows of `k` weights at the head of `stream`, of which so many panels are read together.
    #[inline(always)]
    pub fn new(stream: &'a [u8], k: usize, t: usize, together: usize) -> Self {
        let start = t * tile_bytes::<F>();
        let map = map::<F>(TILE.min(k - t * TILE) / CHUNK);
        let panel = panel_bytes::<F>(k);
        let ahead = (panel - start, (together - 1) * panel);
        Packed { tile: &stream[start..start + map.end], ahead, map, format: PhantomData }
    }

    /// Unpacks the first `chunks` chunks. Must stand where the features of `s` are.
    #[inline(always)]
    pub fn unpack<S: Simd>(&self, s: S, chunks: usize, to: &mut Panel) {
        to.zero = self.zero(s);
        for (j, words) in to.codes.as_chunks_mut::<8>().0.iter_mut().enumerate().take(chunks) {
            for (i, to) in words.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let pair = s.zip_words(self.word(s, j, 2 * i), self.word(s, j, 2 * i + 1));
                s.store_words(pair[0], &mut to[0]);
                s.store_words(pair[1], &mut to[1]);
            }
            let halves = if F::HALVES { 2 } else { 1 };
            for g in halves * j..halves * (j + 1) {
                s.store(self.scale(s, g), array_mut(to.scales.as_flattened_mut(), g * ROWS));
                if F::SCALES.mins() {
                    s.store(self.min(s, g), array_mut(to.mins.as_flattened_mut(), g * ROWS));
                }
            }
        }
    }
}

/// Brings bits `from` … of each byte to bits `to` …, and drops what `mask` has not. The shifts are constants once inlined.
#[inline(always)]
fn bits<S: Simd>(s: S, v: S::Words, from: usize, to: usize, mask: u8) -> S::Words {
    let v = if from >= to { s.shr_words(v, (from - to) as u32) } else { s.shl_words(v, (to - from) as u32) };
    s.and_words(v, s.splat_words(mask))
}

impl<F: Block> Source for Packed<'_, F> {
    #[inline(always)]
    fn words(&self) -> Option<&[[u8; 64]; TILE / 4]> {
        None
    }

    #[inline(always)]
    fn begin<S: Simd>(&self, s: S, j: usize) {
        let step = chunk_bytes::<F>() + if F::SCALES.mins() { 64 } else { 32 };
        let (left, skip) = self.ahead;
        s.fetch(self.tile.as_ptr().wrapping_add(j * step), step, (left.saturating_sub(j * step), skip));
    }

    #[inline(always)]
    fn word<S: Simd>(&self, s: S, j: usize, i: usize) -> S::Words {
        let chunk = &self.tile[self.map.codes + j * chunk_bytes::<F>()..][..chunk_bytes::<F>()];
        let code = match F::BITS {
            8 => s.words(array(chunk, 64 * i)),
            4.. => {
                let low = bits(s, s.words(array(chunk, i % 4 * 64)), i / 4 * 4, 0, 15);
                match F::BITS {
                    5 => s.or_words(low, bits(s, s.words(array(chunk, 256)), i, 4, 16)),
                    6 => s.or_words(low, bits(s, s.words(array(chunk, 256 + i / 4 * 64)), i % 4 * 2, 4, 0x30)),
                    _ => low,
                }
            }
            _ => {
                let low = bits(s, s.words(array(chunk, i / 4 * 64)), i % 4 * 2, 0, 3);
                match F::BITS {
                    3 => s.or_words(low, bits(s, s.words(array(chunk, 128)), i, 2, 4)),
                    _ => low,
                }
            }
        };
        let code = match &F::TABLE {
            Some(table) => s.lookup_words(table, code),
            None => code,
        };
        if F::SIGNED { s.weights_signed(code) } else { code }
    }

    #[inline(always)]
    fn scale<S: Simd>(&self, s: S, g: usize) -> S::Floats {
        let small = |at: usize| bytemuck::cast_ref::<[u8; 16], [i8; 16]>(array(self.tile, at));
        match F::SCALES {
            Scales::Half | Scales::HalfMin => s.widen_f16(array(self.tile, g * HALVES)),
            Scales::Exponent => s.exponents(array(self.tile, g * ROWS)),
            Scales::Int | Scales::IntMin => {
                let d = s.widen_f16(array(self.tile, g / groups::<F>() * HALVES));
                s.mul(d, s.widen_i8(small(self.map.scales + g * ROWS)))
            }
        }
    }

    #[inline(always)]
    fn min<S: Simd>(&self, s: S, g: usize) -> S::Floats {
        let small = |at: usize| bytemuck::cast_ref::<[u8; 16], [i8; 16]>(array(self.tile, at));
        match F::SCALES {
            Scales::HalfMin => s.widen_f16(array(self.tile, self.map.mins + g * HALVES)),
            _ => {
                let d = s.widen_f16(array(self.tile, self.map.mins + g / groups::<F>() * HALVES));
                let m = s.mul(d, s.widen_i8(small(self.map.int_mins + g * ROWS)));
                s.sub(s.splat(0.0), m)
            }
        }
    }

    #[inline(always)]
    fn zero<S: Simd>(&self, s: S) -> i32 {
        zero::<F, S>(s)
    }
}

/// The code that stands for zero.
#[inline(always)]
fn zero<F: Block, S: Simd>(s: S) -> i32 {
    if F::SIGNED { s.signed_zero() } else { F::ZERO }
}

/// What activations must know of a format's weights.
pub(super) fn weights<F: Block>(level: Level) -> WeightCodes {
    struct Zero<F>(PhantomData<F>);
    impl<F: Block> SimdKernel for Zero<F> {
        type Out = i32;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> i32 {
            zero::<F, S>(s)
        }
    }
    WeightCodes { zero: level.run(Zero(PhantomData::<F>)), halves: F::HALVES }
}

/// Scales per 256 weights.
const fn groups<F: Block>() -> usize {
    if F::HALVES { 16 } else { 8 }
}
