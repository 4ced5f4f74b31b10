//! MXFP4: 32 weights in 17 bytes; e2m1 floats under a power of two. Source: OCP Microscaling Formats 1.0.
//!   byte 0  e: e8m0      byte 1..17  q: 4 bits × 32, weight j with weight j + 16      w = 2^(e − 128) · VALUES[q]
//! VALUES are twice the e2m1 numbers, hence 128 and not 127.
//! Shader: shaders/quant/mxfp4.wgsl; planes: nibbles ascending (16 bytes), e (1).

use super::bytes::{nibble, pack_ascending, pack_nibbles, spread_nibbles};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct MXFP4;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    e: u8,
    qs: [u8; 16],
}

/// Twice the e2m1 numbers.
const VALUES: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The same plus 12, which panels hold: then the code for zero is 12, and none is negative.
const PANEL_VALUES: [i8; 16] = {
    let (mut v, mut i) = (VALUES, 0);
    while i < 16 {
        v[i] += 12;
        i += 1;
    }
    v
};

/// 2^(e − 128); the smallest two are subnormal.
#[inline(always)]
fn scale(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e as u32 - 1) << 23 })
}

impl Block for MXFP4 {
    const DTYPE: DType = DType::MXFP4;
    const BITS: usize = 4;
    const ZERO: i32 = 12;
    const TABLE: Option<[i8; 16]> = Some(PANEL_VALUES);
    const SCALES: Scales = Scales::Exponent;
    const PLANES: [usize; MAX_PLANES] = [16, 1, 0, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let d = scale(b.e);
        for (j, out) in out.iter_mut().enumerate() {
            *out = VALUES[nibble(&b.qs, j) as usize] as f32 * d;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        // The exponent that puts the largest magnitude between 4 and 8, the top of e2m1 (6) in its middle.
        let amax = search::extreme(x).abs();
        let exponent = (amax.to_bits() >> 23) as i32 - 2;
        let e = if amax > 0.0 { exponent.clamp(0, 254) as u8 } else { 0 };
        Raw { e, qs: pack_nibbles(&search::round_to_table(x, scale(e), &VALUES)) }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        to.scales[0] = b.e as i8;
        spread_nibbles(&b.qs, &mut to.codes);
    }

    fn planes(b: &Raw, [q, e, ..]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        e[0] = b.e;
    }
}
