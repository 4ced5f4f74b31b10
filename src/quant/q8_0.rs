//! Q8_0: 32 weights in 34 bytes, one scale. Source: ggml, block_q8_0.
//!   byte 0..2  d: f16      byte 2..34  q: i8 × 32      w = d · q
//! Shader: shaders/quant/q8_0.wgsl; planes: q (32 bytes), d (2).

use super::bytes::Half;
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q8_0;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    qs: [u8; 32],
}

impl Block for Q8_0 {
    const DTYPE: DType = DType::Q8_0;
    const BITS: usize = 8;
    const SIGNED: bool = true;
    const SCALES: Scales = Scales::Half;
    const PLANES: [usize; MAX_PLANES] = [32, 2, 0, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let d = b.d.get();
        for (q, out) in b.qs.iter().zip(out) {
            *out = *q as i8 as f32 * d;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let d = Half::new(search::extreme(x).abs() / 127.0);
        let codes = search::round_to(x, d.get(), 0.0, 128, 1..=255);
        Raw { d, qs: std::array::from_fn(|j| codes[j] ^ 0x80) }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        to.d = b.d;
        to.codes[..32].copy_from_slice(&b.qs);
    }

    fn planes(b: &Raw, [q, d, ..]: [&mut [u8]; MAX_PLANES]) {
        q.copy_from_slice(&b.qs);
        d.copy_from_slice(&b.d.0);
    }
}
