//! IQ4_NL: 32 weights in 18 bytes; codes index a table of 16 values, denser around zero. Source: ggml, block_iq4_nl.
//!   byte 0..2  d: f16      byte 2..18  q: 4 bits × 32, weight j with weight j + 16      w = d · VALUES[q]
//! Shader: shaders/quant/iq4_nl.wgsl; planes: nibbles ascending (16 bytes), d (2).

use super::bytes::{Half, nibble, pack_ascending, pack_nibbles, spread_nibbles};
use super::format::{Block, MAX_PLANES};
use super::panel::{Parts, Scales};
use super::search;
use crate::base::DType;
use bytemuck::{Pod, Zeroable};

#[allow(non_camel_case_types)]
pub(super) struct IQ4_NL;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Raw {
    d: Half,
    qs: [u8; 16],
}

/// What the codes of IQ4_NL and IQ4_XS stand for.
pub(super) const VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Block for IQ4_NL {
    const DTYPE: DType = DType::IQ4_NL;
    const BITS: usize = 4;
    const SIGNED: bool = true;
    const TABLE: Option<[i8; 16]> = Some(VALUES);
    const SCALES: Scales = Scales::Half;
    const PLANES: [usize; MAX_PLANES] = [16, 2, 0, 0];
    type Raw = Raw;

    fn decode(b: &Raw, out: &mut [f32]) {
        let d = b.d.get();
        for (j, out) in out.iter_mut().enumerate() {
            *out = d * VALUES[nibble(&b.qs, j) as usize] as f32;
        }
    }

    fn encode(x: &[f32]) -> Raw {
        let d = Half::new(search::table_scale(x, &VALUES));
        Raw { d, qs: pack_nibbles(&search::round_to_table(x, d.get(), &VALUES)) }
    }

    fn unpack(b: &Raw, to: &mut Parts) {
        to.d = b.d;
        spread_nibbles(&b.qs, &mut to.codes);
    }

    fn planes(b: &Raw, [q, d, ..]: [&mut [u8]; MAX_PLANES]) {
        pack_ascending(4, q, |j| nibble(&b.qs, j));
        d.copy_from_slice(&b.d.0);
    }
}
