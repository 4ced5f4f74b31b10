//! Little numbers inside blocks.

use bytemuck::{Pod, Zeroable};
use half::f16;

/// An f16 at any address.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Half(pub [u8; 2]);

impl Half {
    /// The nearest f16.
    pub fn new(v: f32) -> Self {
        Half(f16::from_f32(v).to_le_bytes())
    }

    /// As f32.
    pub fn get(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32_const()
    }
}

/// The low and high nibbles of 16 bytes, for the formats that pair weight j with weight j + 16.
pub(super) fn pack_nibbles(codes: &[u8]) -> [u8; 16] {
    std::array::from_fn(|j| codes[j] | codes[j + 16] << 4)
}

/// The code of weight `j` of 32, as [`pack_nibbles`] stores it.
pub(super) fn nibble(qs: &[u8; 16], j: usize) -> u8 {
    if j < 16 { qs[j] & 15 } else { qs[j - 16] >> 4 }
}

/// All 32 codes, as [`pack_nibbles`] stores them.
#[inline]
pub(super) fn spread_nibbles(qs: &[u8; 16], out: &mut [u8]) {
    let (low, high) = out[..32].split_at_mut(16);
    for (j, q) in qs.iter().enumerate() {
        low[j] = q & 15;
        high[j] = q >> 4;
    }
}

/// Ors the bits of a plane in which bit 32 j + l stands in bit j of byte l, shifted left by `at`, to 256 codes.
#[inline]
pub(super) fn or_high_bits(plane: &[u8; 32], at: usize, out: &mut [u8; 256]) {
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (out, bits) in out.iter_mut().zip(plane) {
            *out |= (bits >> j & 1) << at;
        }
    }
}

/// Writes codes of one or two `bits` as shaders want them that multiply four at a time: in the bytes of a word lie those of weights
/// 8j, 8j + 2, 8j + 4 and 8j + 6 of 32, side by side for all j; then those between them. Two bits take a word more for these.
pub(super) fn pack_by_parity(bits: usize, out: &mut [u8], code: impl Fn(usize) -> u8) {
    pack_ascending(bits, out, |i| {
        let (odd, byte) = if bits == 1 { (i / 4 % 2, i / 8 % 4) } else { (i / 16 % 2, i / 4 % 4) };
        code(i / 32 * 32 + i % 4 * 8 + 2 * byte + odd)
    });
}

/// Writes codes of `bits` bits each one after the other, lowest bits first: the order in which shaders read them.
pub(super) fn pack_ascending(bits: usize, out: &mut [u8], code: impl Fn(usize) -> u8) {
    let per_byte = 8 / bits;
    for (i, out) in out.iter_mut().enumerate() {
        *out = (0..per_byte).fold(0, |byte, j| byte | code(i * per_byte + j) << (bits * j));
    }
}
