//! Q4_0: 32 weights in 18 bytes, one scale. Source: ggml, block_q4_0.
//!   byte 0..2  d: f16      byte 2..18  q: 4 bits × 32, weight j with weight j + 16      w = d · (q − 8)
//! Shader: shaders/quant/q4_0.wgsl; planes: nibbles ascending (16 bytes), d (2).

use super::bytes::{Half, nibble, pack_ascending, pack_nibbles, spread_nibbles};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q4_0;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    qs: [u8; 16],
}

impl Block for Q4_0 {
    const DTYPE: DType = DType::Q4_0;
    const BITS: usize = 4;
    const ZERO: i32 = 8;
    const SCALES: Scales = Scales::Half;
    const PLANES: [usize; MAX_PLANES] = [16, 2, 0, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let d = b.d.get();
        for (j, out) in out.iter_mut().enumerate() {
            *out = (nibble(&b.qs, j) as i32 - 8) as f32 * d;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let d = Half::new(search::extreme(x) / -8.0);
        let codes = search::round_to(x, d.get(), 0.0, 8, 0..=15);
        Raw { d, qs: pack_nibbles(&codes) }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        to.d = b.d;
        spread_nibbles(&b.qs, &mut to.codes);
    }

    fn planes(b: &Raw, [q, d, ..]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        d.copy_from_slice(&b.d.0);
    }
}
