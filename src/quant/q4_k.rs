//! Q4_K: 256 weights in 144 bytes; every 32 have a 6-bit scale and a 6-bit minimum. Source: ggml, block_q4_K.
//!   byte 0..2    d: f16      byte 2..4  dmin: f16
//!   byte 4..16   s, m: 6 bits × 8 each: s[j] and m[j] of j < 4 in the low bits of bytes j and j + 4; of j ≥ 4 the nibbles
//!                in byte j + 4, their upper bits in the top bits of bytes j − 4 and j
//!   byte 16..144 q: 4 bits × 256; of each 64 weights, weight l with weight l + 32
//!   w = d · s · q − dmin · m
//! Shader: shaders/quant/q4_k.wgsl; planes: nibbles ascending (128 bytes), s and m alternating (16), d and dmin (4).

use super::bytes::{Half, pack_ascending};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
use crate::simd::array;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct Q4_K;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    dmin: Half,
    scales: [u8; 12],
    qs: [u8; 128],
}

/// The 8 scales, then the 8 minima, as bytes.
#[inline(always)]
pub(super) fn scales_mins(s: &[u8; 12]) -> [i8; 16] {
    let word = |i| u32::from_le_bytes(*array(s, i));
    let (a, b, c) = (word(0), word(4), word(8));
    let low = |v: u32| v & 0x3f3f_3f3f;
    let high = |v: u32| v >> 2 & 0x3030_3030;
    bytemuck::cast([low(a), c & 0x0f0f_0f0f | high(a), low(b), c >> 4 & 0x0f0f_0f0f | high(b)])
}

/// Sets scales and minima.
#[inline]
pub(super) fn put_scales_mins(scales: &[u8; 12], to: &mut Parts) {
    let s = scales_mins(scales);
    to.scales[..8].copy_from_slice(&s[..8]);
    to.mins[..8].copy_from_slice(&s[8..]);
}

/// Sets all nibbles.
#[inline]
pub(super) fn unpack_nibbles(qs: &[u8; 128], out: &mut [u8; 256]) {
    for (qs, out) in qs.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        let (low, high) = out.split_at_mut(32);
        for (l, q) in qs.iter().enumerate() {
            low[l] = q & 15;
            high[l] = q >> 4;
        }
    }
}

/// The inverse of [`scales_mins`].
pub(super) fn pack_scales_mins(s: &[u8], m: &[u8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => s[i] | (s[i + 4] >> 4) << 6,
        4..8 => m[i - 4] | (m[i] >> 4) << 6,
        _ => s[i - 4] & 15 | (m[i - 4] & 15) << 4,
    })
}

/// Scale and minimum of each 32 weights side by side.
pub(super) fn interleave(scales: &[u8; 12], out: &mut [u8]) {
    let s = scales_mins(scales);
    for (j, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *out = [s[j] as u8, s[8 + j] as u8];
    }
}

/// The nibble of weight `i`.
pub(super) fn nibble(qs: &[u8; 128], i: usize) -> u8 {
    qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15
}

/// The inverse of [`nibble`], for the low four bits of the codes.
pub(super) fn pack_nibbles(codes: &[u8]) -> [u8; 128] {
    let mut qs = [0; 128];
    for (i, code) in codes.iter().enumerate() {
        qs[i / 64 * 32 + i % 32] |= (code & 15) << (i % 64 / 32 * 4);
    }
    qs
}

impl Block for Q4_K {
    const DTYPE: DType = DType::Q4_K;
    const BITS: usize = 4;
    const SCALES: Scales = Scales::IntMin;
    const PLANES: [usize; MAX_PLANES] = [128, 16, 4, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let (d, dmin) = (b.d.get(), b.dmin.get());
        let s = scales_mins(&b.scales);
        for (i, out) in out.iter_mut().enumerate() {
            *out = d * s[i / 32] as f32 * nibble(&b.qs, i) as f32 - dmin * s[8 + i / 32] as f32;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let q = search::affine_block(x, 32, 15, 63);
        let scales = pack_scales_mins(&q.scales, &q.mins);
        Raw { d: q.d, dmin: q.dmin, scales, qs: pack_nibbles(&q.codes) }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        (to.d, to.m) = (b.d, b.dmin);
        put_scales_mins(&b.scales, to);
        unpack_nibbles(&b.qs, &mut to.codes);
    }

    fn planes(b: &Raw, [q, s, d, _]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |i| nibble(&b.qs, i));
        interleave(&b.scales, s);
        d[..2].copy_from_slice(&b.d.0);
        d[2..].copy_from_slice(&b.dmin.0);
    }
}
