//! Q6_K: 256 weights in 210 bytes; every 16 have a signed 8-bit scale. Source: ggml, block_q6_K.
//!   byte 0..128   q: low 4 bits × 256; of each 128 weights, weight l < 64 with weight l + 64
//!   byte 128..192 h: high 2 bits × 256; of each 128 weights, weight 32 j + l in bits 2j of byte l
//!   byte 192..208 s: i8 × 16      byte 208..210  d: f16      w = d · s · (q + 16 h − 32)
//! Shader: shaders/quant/q6_k.wgsl; planes: q ascending (128 bytes), h by parity (64), s (16), d (2).

use super::bytes::{Half, pack_ascending, pack_by_parity};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::q2_k::{pack_two_bits, two_bits};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q6_K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    ql: [u8; 128],
    qh: [u8; 64],
    scales: [u8; 16],
    d: Half,
}

fn low(ql: &[u8; 128], i: usize) -> u8 {
    ql[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15
}

impl Block for Q6_K {
    const DTYPE: DType = DType::Q6_K;
    const BITS: usize = 6;
    const ZERO: i32 = 32;
    const SCALES: Scales = Scales::Int;
    const HALVES: bool = true;
    const PLANES: [usize; MAX_PLANES] = [128, 64, 16, 2];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let d = b.d.get();
        for (i, out) in out.iter_mut().enumerate() {
            let code = low(&b.ql, i) | two_bits(&b.qh, i) << 4;
            *out = d * b.scales[i / 16] as i8 as f32 * (code as i32 - 32) as f32;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let q = search::symmetric_block(x, 32, 128);
        let mut ql = [0; 128];
        for (i, code) in q.codes.iter().enumerate() {
            ql[i / 128 * 64 + i % 64] |= (code & 15) << (i % 128 / 64 * 4);
        }
        let high: Vec<u8> = q.codes.iter().map(|c| c >> 4).collect();
        let scales = std::array::from_fn(|j| q.scales[j] as i8 as u8);
        Raw { ql, qh: pack_two_bits(&high), scales, d: q.d }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        to.d = b.d;
        to.scales = bytemuck::cast(b.scales);
        let halves = to.codes.as_chunks_mut::<128>().0.iter_mut().zip(b.ql.as_chunks::<64>().0);
        for ((codes, ql), qh) in halves.zip(b.qh.as_chunks::<32>().0) {
            for l in 0..32 {
                codes[l] = ql[l] & 15 | (qh[l] & 3) << 4;
                codes[l + 32] = ql[l + 32] & 15 | (qh[l] >> 2 & 3) << 4;
                codes[l + 64] = ql[l] >> 4 | (qh[l] >> 4 & 3) << 4;
                codes[l + 96] = ql[l + 32] >> 4 | (qh[l] >> 6) << 4;
            }
        }
    }

    fn planes(b: &Raw, [q, h, s, d]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |i| low(&b.ql, i));
        pack_by_parity(2, h, |i| two_bits(&b.qh, i));
        s.copy_from_slice(&b.scales);
        d.copy_from_slice(&b.d.0);
    }
}
