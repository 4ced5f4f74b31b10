//! Q2_K: 256 weights in 84 bytes; every 16 have a 4-bit scale and a 4-bit minimum. Source: ggml, block_q2_K.
//!   byte 0..16   s: low nibble scale, high nibble minimum, one byte per 16 weights
//!   byte 16..80  q: 2 bits × 256; of each 128 weights, weight 32 j + l lies in bits 2j of byte l
//!   byte 80..82  d: f16      byte 82..84  dmin: f16      w = d · scale · q − dmin · minimum
//! Shader: shaders/quant/q2_k.wgsl; planes: q by parity (64 bytes), s (16), d and dmin (4).

use super::bytes::{Half, pack_by_parity};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q2_K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    scales: [u8; 16],
    qs: [u8; 64],
    d: Half,
    dmin: Half,
}

/// The two bits of weight `i`, in the order that Q2_K and Q3_K share.
pub(super) fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// The inverse of [`two_bits`].
pub(super) fn pack_two_bits(codes: &[u8]) -> [u8; 64] {
    let mut qs = [0; 64];
    for (i, code) in codes.iter().enumerate() {
        qs[i / 128 * 32 + i % 32] |= (code & 3) << (i % 128 / 32 * 2);
    }
    qs
}

/// The two bits of all weights.
#[inline]
pub(super) fn unpack_two_bits(qs: &[u8; 64], out: &mut [u8; 256]) {
    for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (out, q) in out.iter_mut().zip(&qs[j / 4 * 32..]) {
            *out = q >> (j % 4 * 2) & 3;
        }
    }
}

impl Block for Q2_K {
    const DTYPE: DType = DType::Q2_K;
    const BITS: usize = 2;
    const SCALES: Scales = Scales::IntMin;
    const HALVES: bool = true;
    const PLANES: [usize; MAX_PLANES] = [64, 16, 4, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let (d, dmin) = (b.d.get(), b.dmin.get());
        for (i, out) in out.iter_mut().enumerate() {
            let scale = b.scales[i / 16];
            *out = d * (scale & 15) as f32 * two_bits(&b.qs, i) as f32 - dmin * (scale >> 4) as f32;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let q = search::affine_block(x, 16, 3, 15);
        let scales = std::array::from_fn(|j| q.scales[j] | q.mins[j] << 4);
        Raw { scales, qs: pack_two_bits(&q.codes), d: q.d, dmin: q.dmin }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        (to.d, to.m) = (b.d, b.dmin);
        unpack_two_bits(&b.qs, &mut to.codes);
        for (j, both) in b.scales.iter().enumerate() {
            to.scales[j] = (both & 15) as i8;
            to.mins[j] = (both >> 4) as i8;
        }
    }

    fn planes(b: &Raw, [q, scales, d, _]: [&mut [u8]; MAX_PLANES]) {
        pack_by_parity(2, q, |i| two_bits(&b.qs, i));
        scales.copy_from_slice(&b.scales);
        d[..2].copy_from_slice(&b.d.0);
        d[2..].copy_from_slice(&b.dmin.0);
    }
}
