//! Q5_1: 32 weights in 24 bytes, a scale and a minimum. Source: ggml, block_q5_1.
//!   byte 0..2  d: f16   byte 2..4  m: f16   byte 4..8  h: bit 4 of weight j in bit j
//!   byte 8..24  q: 4 bits × 32, weight j with weight j + 16      w = d · (q + 16 h) + m
//! Shader: shaders/quant/q5_1.wgsl; planes: nibbles ascending (16 bytes), h by parity (4), d and m (4).

use super::bytes::{Half, nibble, pack_ascending, pack_by_parity};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::q5_0::{code, pack, unpack_codes};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q5_1;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    m: Half,
    qh: [u8; 4],
    qs: [u8; 16],
}

impl Block for Q5_1 {
    const DTYPE: DType = DType::Q5_1;
    const BITS: usize = 5;
    const SCALES: Scales = Scales::HalfMin;
    const PLANES: [usize; MAX_PLANES] = [16, 4, 4, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let (d, m) = (b.d.get(), b.m.get());
        for (j, out) in out.iter_mut().enumerate() {
            *out = code(&b.qs, b.qh, j) as f32 * d + m;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let (low, high) = search::range(x);
        let (d, m) = (Half::new((high - low) / 31.0), Half::new(low));
        let (qs, qh) = pack(&search::round_to(x, d.get(), m.get(), 0, 0..=31));
        Raw { d, m, qh, qs }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        (to.d, to.m) = (b.d, b.m);
        unpack_codes(&b.qs, b.qh, &mut to.codes);
    }

    fn planes(b: &Raw, [q, h, dm, _]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        let high = u32::from_le_bytes(b.qh);
        pack_by_parity(1, h, |j| (high >> j & 1) as u8);
        dm[..2].copy_from_slice(&b.d.0);
        dm[2..].copy_from_slice(&b.m.0);
    }
}
