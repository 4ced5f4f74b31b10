//! Floor 2: block formats.
use crate::base::{DType, Error};

/// The formats that decode here.
pub const SUPPORTED: &[DType] = &[DType::F32, DType::F16];

/// Whether `dtype` decodes here.
pub fn is_supported(dtype: DType) -> bool {
    SUPPORTED.contains(&dtype)
}

/// The error for a type that does not.
pub fn unsupported(dtype: DType) -> Error {
    Error::unsupported(format!("weights of type {dtype} cannot be computed with"))
}

/// Decodes whole rows.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => out.copy_from_slice(bytemuck::cast_slice(bytes)),
        DType::F16 => {
            let v: &[half::f16] = bytemuck::cast_slice(bytes);
            out.iter_mut().zip(v).for_each(|(o, v)| *o = v.to_f32());
        }
        _ => panic!("{dtype}"),
    }
}

/// Encodes rows.
pub fn encode(dtype: DType, src: &[f32], _row: usize, out: &mut [u8]) {
    match dtype {
        DType::F32 => out.copy_from_slice(bytemuck::cast_slice(src)),
        DType::F16 => {
            let o: &mut [half::f16] = bytemuck::cast_slice_mut(out);
            o.iter_mut().zip(src).for_each(|(o, v)| *o = half::f16::from_f32(*v));
        }
        _ => panic!("{dtype}"),
    }
}
