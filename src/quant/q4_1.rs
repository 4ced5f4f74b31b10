//! Q4_1: 32 weights in 20 bytes, a scale and a minimum. Source: ggml, block_q4_1.
//!   byte 0..2  d: f16   byte 2..4  m: f16   byte 4..20  q: 4 bits × 32, weight j with weight j + 16     w = d · q + m
//! Shader: shaders/quant/q4_1.wgsl; planes: nibbles ascending (16 bytes), d and m (4).

use super::bytes::{Half, nibble, pack_ascending, pack_nibbles, spread_nibbles};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q4_1;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    m: Half,
    qs: [u8; 16],
}

impl Block for Q4_1 {
    const DTYPE: DType = DType::Q4_1;
    const BITS: usize = 4;
    const SCALES: Scales = Scales::HalfMin;
    const PLANES: [usize; MAX_PLANES] = [16, 4, 0, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let (d, m) = (b.d.get(), b.m.get());
        for (j, out) in out.iter_mut().enumerate() {
            *out = nibble(&b.qs, j) as f32 * d + m;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let (low, high) = search::range(x);
        let (d, m) = (Half::new((high - low) / 15.0), Half::new(low));
        let codes = search::round_to(x, d.get(), m.get(), 0, 0..=15);
        Raw { d, m, qs: pack_nibbles(&codes) }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        (to.d, to.m) = (b.d, b.m);
        spread_nibbles(&b.qs, &mut to.codes);
    }

    fn planes(b: &Raw, [q, dm, ..]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        dm[..2].copy_from_slice(&b.d.0);
        dm[2..].copy_from_slice(&b.m.0);
    }
}
