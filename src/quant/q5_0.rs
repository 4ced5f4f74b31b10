//! Q5_0: 32 weights in 22 bytes, one scale. Source: ggml, block_q5_0.
//!   byte 0..2  d: f16   byte 2..6  h: bit 4 of weight j in bit j   byte 6..22  q: 4 bits × 32, weight j with j + 16
//!   w = d · (q + 16 h − 16)
//! Shader: shaders/quant/q5_0.wgsl; planes: nibbles ascending (16 bytes), h by parity (4), d (2).

use super::bytes::{Half, nibble, pack_ascending, pack_by_parity, pack_nibbles, spread_nibbles};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
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

/// All 32 codes.
#[inline]
pub(super) fn unpack_codes(qs: &[u8; 16], qh: [u8; 4], out: &mut [u8]) {
    spread_nibbles(qs, out);
    let qh = u32::from_le_bytes(qh);
    for (j, out) in out[..32].iter_mut().enumerate() {
        *out |= ((qh >> j & 1) as u8) << 4;
    }
}

impl Block for Q5_0 {
    const DTYPE: DType = DType::Q5_0;
    const BITS: usize = 5;
    const ZERO: i32 = 16;
    const SCALES: Scales = Scales::Half;
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

    fn unpack(b: &Raw, to: &mut Parts) {
        to.d = b.d;
        unpack_codes(&b.qs, b.qh, &mut to.codes);
    }

    fn planes(b: &Raw, [q, h, d, _]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        let high = u32::from_le_bytes(b.qh);
        pack_by_parity(1, h, |j| (high >> j & 1) as u8);
        d.copy_from_slice(&b.d.0);
    }
}
