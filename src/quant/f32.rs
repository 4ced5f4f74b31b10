//! F32: IEEE 754 single precision.
//! Shader: shaders/quant/f32.wgsl, one word per weight.

use super::format::Plain;
use crate::base::DType;
use crate::simd::Simd;

pub(super) struct F32;

impl Plain for F32 {
    const DTYPE: DType = DType::F32;
    type Raw = [u8; 4];

    fn widen(v: [u8; 4]) -> f32 {
        f32::from_le_bytes(v)
    }

    fn narrow(v: f32) -> [u8; 4] {
        v.to_le_bytes()
    }

    #[inline(always)]
    fn widen16<S: Simd>(s: S, v: &[[u8; 4]; 16]) -> S::Floats {
        s.floats(&bytemuck::pod_read_unaligned(bytemuck::bytes_of(v)))
    }
}
