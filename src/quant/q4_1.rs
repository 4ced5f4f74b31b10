//! Q4_1: 32 weights in 20 bytes, a scale and a minimum. Source: ggml, block_q4_1.
//!   byte 0..2  d: f16   byte 2..4  m: f16   byte 4..20  q: 4 bits × 32, weight j with weight j + 16     w = d · q + m
//! Shader: shaders/quant/q4_1.wgsl; planes: nibbles ascending (16 bytes), d and m (4).

use super::bytes::{Half, nibble, pack_ascending, pack_nibbles};
use super::format::{Block, MAX_PLANES};
use super::search;
use super::tile::Sink;
use crate::base::DType;
use crate::simd::Simd;
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

    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &Raw, out: &mut impl Sink<S>) {
        out.put(s, 0, s.nibbles(&b.qs), [b.d.with(s); 2], [b.m.with(s); 2]);
    }

    fn planes(b: &Raw, [q, dm, ..]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        dm[..2].copy_from_slice(&b.d.0);
        dm[2..].copy_from_slice(&b.m.0);
    }
}
