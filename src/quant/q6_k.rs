//! Q6_K: 256 weights in 210 bytes; every 16 have a signed 8-bit scale. Source: ggml, block_q6_K.
//!   byte 0..128   q: low 4 bits × 256; of each 128 weights, weight l < 64 with weight l + 64
//!   byte 128..192 h: high 2 bits × 256; of each 128 weights, weight 32 j + l in bits 2j of byte l
//!   byte 192..208 s: i8 × 16      byte 208..210  d: f16      w = d · s · (q + 16 h − 32)
//! Shader: shaders/quant/q6_k.wgsl; planes: q ascending (128 bytes), h ascending (64), s (16), d (2).

use super::bytes::{Half, pack_ascending};
use super::format::{Block, MAX_PLANES};
use super::q2_k::{pack_two_bits, two_bits};
use super::search;
use super::tile::Sink;
use crate::base::DType;
use crate::simd::{Simd, array};
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
    const SIGNED: bool = true;
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

    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &Raw, out: &mut impl Sink<S>) {
        let scales = s.mul(s.widen_i8(bytemuck::cast_ref(&b.scales)), s.splat(b.d.with(s)));
        let mut d = [0.0; 16];
        s.store(scales, &mut d);
        let (nib, bits) = (s.splat_byte(15), s.splat_byte(0x30));
        for half in 0..2 {
            let (q0, q1) = (s.bytes(array(&b.ql, 64 * half)), s.bytes(array(&b.ql, 64 * half + 32)));
            let h = s.bytes(array(&b.qh, 32 * half));
            let codes = [
                s.or(s.and(q0, nib), s.and(s.shl::<4>(h), bits)),
                s.or(s.and(q1, nib), s.and(s.shl::<2>(h), bits)),
                s.or(s.shr::<4>(q0), s.and(h, bits)),
                s.or(s.shr::<4>(q1), s.and(s.shr::<2>(h), bits)),
            ];
            for (j, codes) in codes.into_iter().enumerate() {
                let at = 8 * half + 2 * j;
                let codes = s.sub_bytes(codes, s.splat_byte(32));
                out.put(s, 4 * half + j, codes, [d[at], d[at + 1]], [0.0; 2]);
            }
        }
    }

    fn planes(b: &Raw, [q, h, s, d]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |i| low(&b.ql, i));
        pack_ascending(2, h, |i| two_bits(&b.qh, i));
        s.copy_from_slice(&b.scales);
        d.copy_from_slice(&b.d.0);
    }
}
