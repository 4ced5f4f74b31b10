//! BF16: the upper half of an f32. Source: arXiv 1905.12322.
//! Shader: shaders/quant/bf16.wgsl, two weights per word.

use super::format::Plain;
use crate::base::DType;
use crate::simd::Simd;
use half::bf16;

pub(super) struct BF16;

impl Plain for BF16 {
    const DTYPE: DType = DType::BF16;
    type Raw = [u8; 2];

    fn widen(v: [u8; 2]) -> f32 {
        bf16::from_le_bytes(v).to_f32()
    }

    fn narrow(v: f32) -> [u8; 2] {
        bf16::from_f32(v).to_le_bytes()
    }

    #[inline(always)]
    fn widen16<S: Simd>(s: S, v: &[[u8; 2]; 16]) -> S::Floats {
        s.widen_bf16(bytemuck::cast_ref(v))
    }
}
