//! Q5_K: 256 weights in 176 bytes; every 32 have a 6-bit scale and a 6-bit minimum. Source: ggml, block_q5_K.
//!   byte 0..2    d: f16      byte 2..4  dmin: f16      byte 4..16  s, m: as in Q4_K
//!   byte 16..48  h: bit 4 of weight 32 j + l in bit j of byte l
//!   byte 48..176 q: 4 bits × 256; of each 64 weights, weight l with weight l + 32
//!   w = d · s · (q + 16 h) − dmin · m
//! Shader: shaders/quant/q5_k.wgsl; planes: nibbles ascending (128 bytes), h by parity (32), s and m alternating (16), d and
//! dmin (4).

use super::bytes::{Half, or_high_bits, pack_ascending, pack_by_parity};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::q4_k::{interleave, nibble, pack_nibbles, pack_scales_mins, put_scales_mins, scales_mins, unpack_nibbles};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q5_K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    dmin: Half,
    scales: [u8; 12],
    qh: [u8; 32],
    qs: [u8; 128],
}

fn high_bit(qh: &[u8; 32], i: usize) -> u8 {
    qh[i % 32] >> (i / 32) & 1
}

impl Block for Q5_K {
    const DTYPE: DType = DType::Q5_K;
    const BITS: usize = 5;
    const SCALES: Scales = Scales::IntMin;
    const PLANES: [usize; MAX_PLANES] = [128, 32, 16, 4];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let (d, dmin) = (b.d.get(), b.dmin.get());
        let s = scales_mins(&b.scales);
        for (i, out) in out.iter_mut().enumerate() {
            let code = nibble(&b.qs, i) | high_bit(&b.qh, i) << 4;
            *out = d * s[i / 32] as f32 * code as f32 - dmin * s[8 + i / 32] as f32;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let q = search::affine_block(x, 32, 31, 63);
        let scales = pack_scales_mins(&q.scales, &q.mins);
        let mut qh = [0; 32];
        for (i, code) in q.codes.iter().enumerate() {
            qh[i % 32] |= (code >> 4) << (i / 32);
        }
        Raw { d: q.d, dmin: q.dmin, scales, qh, qs: pack_nibbles(&q.codes) }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        (to.d, to.m) = (b.d, b.dmin);
        put_scales_mins(&b.scales, to);
        unpack_nibbles(&b.qs, &mut to.codes);
        or_high_bits(&b.qh, 4, &mut to.codes);
    }

    fn planes(b: &Raw, [q, h, s, d]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |i| nibble(&b.qs, i));
        pack_by_parity(1, h, |i| high_bit(&b.qh, i));
        interleave(&b.scales, s);
        d[..2].copy_from_slice(&b.d.0);
        d[2..].copy_from_slice(&b.dmin.0);
    }
}
