//! IQ4_XS: 256 weights in 136 bytes; every 32 have a signed 6-bit scale, codes index the table of IQ4_NL.
//! Source: ggml, block_iq4_xs.
//!   byte 0..2    d: f16      byte 2..4  high 2 bits of the scales, ascending      byte 4..8  low 4 bits, ascending
//!   byte 8..136  q: 4 bits × 256; of each 32 weights, weight j with weight j + 16      w = d · (s − 32) · VALUES[q]
//! Shader: shaders/quant/iq4_xs.wgsl; planes: nibbles ascending (128 bytes), low bits (4), high bits and d (4).

use super::bytes::{Half, nibble, pack_ascending, pack_nibbles, spread_nibbles};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::iq4_nl::VALUES;
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct IQ4_XS;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    scales_h: [u8; 2],
    scales_l: [u8; 4],
    qs: [[u8; 16]; 8],
}

/// Scale `j` of 8.
#[inline(always)]
fn scale(b: &Raw, j: usize) -> i32 {
    let low = u32::from_le_bytes(b.scales_l) >> (4 * j) & 15;
    let high = u16::from_le_bytes(b.scales_h) as u32 >> (2 * j) & 3;
    (low | high << 4) as i32 - 32
}

impl Block for IQ4_XS {
    const DTYPE: DType = DType::IQ4_XS;
    const BITS: usize = 4;
    const SIGNED: bool = true;
    const TABLE: Option<[i8; 16]> = Some(VALUES);
    const SCALES: Scales = Scales::Int;
    const PLANES: [usize; MAX_PLANES] = [128, 4, 4, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let d = b.d.get();
        for (j, out) in out.chunks_exact_mut(32).enumerate() {
            let d = d * scale(b, j) as f32;
            for (i, out) in out.iter_mut().enumerate() {
                *out = d * VALUES[nibble(&b.qs[j], i) as usize] as f32;
            }
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let mut scales = [0.0; 8];
        for (x, scale) in x.chunks_exact(32).zip(&mut scales) {
            *scale = search::table_scale(x, &VALUES);
        }
        let d = Half::new(search::extreme(&scales) / -32.0);
        let codes = search::round_to(&scales, d.get(), 0.0, 32, 0..=63);
        let (mut low, mut high) = (0u32, 0u16);
        for (j, &code) in codes.iter().enumerate() {
            low |= (code as u32 & 15) << (4 * j);
            high |= (code as u16 >> 4) << (2 * j);
        }
        let mut b = Raw { d, scales_h: high.to_le_bytes(), scales_l: low.to_le_bytes(), qs: [[0; 16]; 8] };
        for (j, x) in x.chunks_exact(32).enumerate() {
            b.qs[j] = pack_nibbles(&search::round_to_table(x, d.get() * scale(&b, j) as f32, &VALUES));
        }
        b
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        to.d = b.d;
        for (j, (qs, codes)) in b.qs.iter().zip(to.codes.as_chunks_mut::<32>().0).enumerate() {
            to.scales[j] = scale(b, j) as i8;
            spread_nibbles(qs, codes);
        }
    }

    fn planes(b: &Raw, [q, low, high, _]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |i| nibble(&b.qs[i / 32], i % 32));
        low.copy_from_slice(&b.scales_l);
        high[..2].copy_from_slice(&b.scales_h);
        high[2..].copy_from_slice(&b.d.0);
    }
}
