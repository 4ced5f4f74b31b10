//! Q3_K: 256 weights in 110 bytes; every 16 have a signed 6-bit scale. Source: ggml, block_q3_K.
//!   byte 0..32    h: bit 2 of weight 32 j + l in bit j of byte l
//!   byte 32..96   q: 2 bits × 256; of each 128 weights, weight 32 j + l lies in bits 2j of byte l
//!   byte 96..108  s: 6 bits × 16: low nibbles of s[i] and s[i + 8] in byte i < 8, then the high bits of s[i], s[i + 4],
//!                 s[i + 8], s[i + 12] in byte 8 + i
//!   byte 108..110 d: f16      w = d · (s − 32) · (q + 4 h − 4)
//! Shader: shaders/quant/q3_k.wgsl; planes: q by parity (64 bytes), h by parity (32), s as nibbles ascending (8) and then
//! high bits ascending (4), d (2).

use super::bytes::{Half, or_high_bits, pack_ascending, pack_by_parity};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::q2_k::{pack_two_bits, two_bits, unpack_two_bits};
use super::search;
use crate::base::DType;
use crate::simd::array;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q3_K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    hmask: [u8; 32],
    qs: [u8; 64],
    scales: [u8; 12],
    d: Half,
}

/// The 16 scales, plus 32.
#[inline(always)]
fn unpack_scales(s: &[u8; 12]) -> [i8; 16] {
    let word = |i| u32::from_le_bytes(*array(s, i));
    let (a, b, c) = (word(0), word(4), word(8));
    let join = |low: u32, high: u32| low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4;
    bytemuck::cast([join(a, c), join(b, c >> 2), join(a >> 4, c >> 4), join(b >> 4, c >> 6)])
}

fn pack_scales(scales: &[u8]) -> [u8; 12] {
    let mut s = [0; 12];
    for (i, v) in scales.iter().enumerate() {
        s[i % 8] |= (v & 15) << (i / 8 * 4);
        s[8 + i % 4] |= (v >> 4) << (i / 4 * 2);
    }
    s
}

fn high_bit(hmask: &[u8; 32], i: usize) -> u8 {
    hmask[i % 32] >> (i / 32) & 1
}

impl Block for Q3_K {
    const DTYPE: DType = DType::Q3_K;
    const BITS: usize = 3;
    const ZERO: i32 = 4;
    const SCALES: Scales = Scales::Int;
    const HALVES: bool = true;
    const PLANES: [usize; MAX_PLANES] = [64, 32, 12, 2];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let (d, scales) = (b.d.get(), unpack_scales(&b.scales));
        for (i, out) in out.iter_mut().enumerate() {
            let scale = d * (scales[i / 16] - 32) as f32;
            let code = two_bits(&b.qs, i) | high_bit(&b.hmask, i) << 2;
            *out = scale * (code as i32 - 4) as f32;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let q = search::symmetric_block(x, 4, 32);
        let mut hmask = [0; 32];
        for (i, code) in q.codes.iter().enumerate() {
            hmask[i % 32] |= (code >> 2) << (i / 32);
        }
        let scales: [u8; 16] = std::array::from_fn(|j| (q.scales[j] + 32) as u8);
        Raw { hmask, qs: pack_two_bits(&q.codes), scales: pack_scales(&scales), d: q.d }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        to.d = b.d;
        to.scales = unpack_scales(&b.scales).map(|s| s - 32);
        unpack_two_bits(&b.qs, &mut to.codes);
        or_high_bits(&b.hmask, 2, &mut to.codes);
    }

    fn planes(b: &Raw, [q, h, s, d]: [&mut [u8]; MAX_PLANES]) {
        pack_by_parity(2, q, |i| two_bits(&b.qs, i));
        pack_by_parity(1, h, |i| high_bit(&b.hmask, i));
        let scales = unpack_scales(&b.scales);
        pack_ascending(4, &mut s[..8], |i| scales[i] as u8 & 15);
        pack_ascending(2, &mut s[8..], |i| scales[i] as u8 >> 4);
        d.copy_from_slice(&b.d.0);
    }
}
