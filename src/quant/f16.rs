//! F16: IEEE 754 half precision, subnormals included.
//! Shader: shaders/quant/f16.wgsl, two weights per word.

use super::format::Plain;
use crate::base::DType;
use crate::simd::Simd;
use half::f16;

pub(super) struct F16;

impl Plain for F16 {
    const DTYPE: DType = DType::F16;
    type Raw = [u8; 2];

    fn widen(v: [u8; 2]) -> f32 {
        f16::from_le_bytes(v).to_f32()
    }

    fn narrow(v: f32) -> [u8; 2] {
        f16::from_f32(v).to_le_bytes()
    }

    #[inline(always)]
    fn widen16<S: Simd>(s: S, v: &[[u8; 2]; 16]) -> S::Floats {
        s.widen_f16(bytemuck::cast_ref(v))
    }
}
