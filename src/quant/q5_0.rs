//! Q5_0: 32 weights in 22 bytes, one scale. Source: ggml, block_q5_0.
//!   byte 0..2  d: f16   byte 2..6  h: bit 4 of weight j in bit j   byte 6..22  q: 4 bits × 32, weight j with j + 16
//!   w = d · (q + 16 h − 16)
//! Shader: shaders/quant/q5_0.wgsl; planes: nibbles ascending (16 bytes), h (4), d (2).

use super::bytes::{Half, nibble, pack_ascending, pack_nibbles};
use super::format::{Block, MAX_PLANES};
use super::search;
use super::tile::Sink;
use crate::base::DType;
use crate::simd::Simd;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q5_0;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    qh: [u8; 4],
    qs: [u8; 16],
}

/// The code of weight `j` of a block of five-bit codes.
pub(super) fn code(qs: &[u8; 16], qh: [u8; 4], j: usize) -> u8 {
    nibble(qs, j) | ((u32::from_le_bytes(qh) >> j & 1) as u8) << 4
}

/// 32 five-bit codes as their low nibbles and their high bits.
pub(super) fn pack(codes: &[u8]) -> ([u8; 16], [u8; 4]) {
    let low: Vec<u8> = codes.iter().map(|c| c & 15).collect();
    let high = codes.iter().enumerate().fold(0u32, |bits, (j, c)| bits | (*c as u32 >> 4) << j);
    (pack_nibbles(&low), high.to_le_bytes())
}

/// 32 five-bit codes.
#[inline(always)]
pub(super) fn unpack_codes<S: Simd>(s: S, qs: &[u8; 16], qh: [u8; 4]) -> S::Bytes {
    let high = s.and(s.spread_bits(u32::from_le_bytes(qh)), s.splat_byte(16));
    s.or(s.nibbles(qs), high)
}

impl Block for Q5_0 {
    const DTYPE: DType = DType::Q5_0;
    const SIGNED: bool = true;
    const PLANES: [usize; MAX_PLANES] = [16, 4, 2, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let d = b.d.get();
        for (j, out) in out.iter_mut().enumerate() {
            *out = (code(&b.qs, b.qh, j) as i32 - 16) as f32 * d;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let d = Half::new(search::extreme(x) / -16.0);
        let (qs, qh) = pack(&search::round_to(x, d.get(), 0.0, 16, 0..=31));
        Raw { d, qh, qs }
    }

    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &Raw, out: &mut impl Sink<S>) {
        let codes = s.sub_bytes(unpack_codes(s, &b.qs, b.qh), s.splat_byte(16));
        out.put(s, 0, codes, [b.d.with(s); 2], [0.0; 2]);
    }

    fn planes(b: &Raw, [q, h, d, _]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        h.copy_from_slice(&b.qh);
        d.copy_from_slice(&b.d.0);
    }
}
