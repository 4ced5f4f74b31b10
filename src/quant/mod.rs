//! Floor 2: block formats. One file per format here and in `shaders/quant/`, and one line in the table below.
//!
//! A format's file says how its bytes lie, and gives: `decode` (bit-exact, as the format's makers define it), `encode`
//! (round to nearest, with a search for good scales), `unpack` (to byte codes and their scales, of which `panel` makes what
//! the CPU multiplies, the same way for all) and `planes` (the layout that its shader reads). Everything takes whole rows.
//!
//! Bytes are little-endian, as in the files, and so must the machine be.

mod activations;
mod bytes;
mod dot;
mod dot_blocks;
mod dot_eight;
mod dot_pairs;
mod dot_part;
mod dot_plain;
mod dot_tiles;
mod fixed_point;
mod format;
mod gemm;
mod gpu;
mod lookup;
mod panel;
mod search;
mod tile;

pub use activations::{Activations, EIGHT_BITS, OUTLIER, Precision};
pub use dot::{Matrix, PANEL_ROWS, ROW_BATCH, ROW_BLOCK, dot_rows, dot_rows_at, pack_panel, panel_bytes};
pub use gpu::{
    GpuPlanes, gpu_blocks, gpu_by_parity, gpu_bytes_table, gpu_decode, gpu_layout, gpu_padded, gpu_planes, gpu_table,
};
pub use lookup::decode_panel_row;

use crate::base::{DType, Error};
use format::{Format, format};

/// Declares the modules and the table of all formats.
macro_rules! formats {
    ($($kind:ident $module:ident::$name:ident;)*) => {
        $(mod $module;)*

        /// All formats that can be computed with.
        static FORMATS: &[Format] = &[$(Format::$kind::<$module::$name>(),)*];

        /// Their types.
        pub const SUPPORTED: &[DType] = &[$(DType::$name,)*];
    };
}

formats! {
    plain f32::F32;
    plain f16::F16;
    plain bf16::BF16;
    block q4_0::Q4_0;
    block q4_1::Q4_1;
    block q5_0::Q5_0;
    block q5_1::Q5_1;
    block q8_0::Q8_0;
    block q2_k::Q2_K;
    block q3_k::Q3_K;
    block q4_k::Q4_K;
    block q5_k::Q5_K;
    block q6_k::Q6_K;
    block iq4_nl::IQ4_NL;
    block iq4_xs::IQ4_XS;
    block mxfp4::MXFP4;
}

/// Whether this build can compute with weights of this type.
pub fn is_supported(dtype: DType) -> bool {
    SUPPORTED.contains(&dtype)
}

/// The error for a type that it cannot.
pub fn unsupported(dtype: DType) -> Error {
    let names: Vec<_> = SUPPORTED.iter().map(|d| d.name()).collect();
    Error::unsupported(format!("weights of type {dtype} cannot be computed with"))
        .help(format!("use a file in one of {}", names.join(", ")))
}

/// Decodes whole blocks, bit-exactly. Panics for an unsupported type or where the lengths do not fit each other:
/// tensors are checked when they are loaded.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    check_lengths(dtype, bytes.len(), out.len());
    (format(dtype).decode)(bytes, out);
}

/// Quantizes rows of `row` values each: every value to the nearest code, under scales searched for a small squared
/// error. Panics for an unsupported type or where the lengths do not fit each other.
pub fn encode(dtype: DType, src: &[f32], row: usize, out: &mut [u8]) {
    assert!(row > 0 && src.len().is_multiple_of(row), "{} values in rows of {row}", src.len());
    assert!(row.is_multiple_of(dtype.block()), "rows of {row} values are no whole blocks of {dtype}");
    check_lengths(dtype, out.len(), src.len());
    (format(dtype).encode)(src, out);
}

fn check_lengths(dtype: DType, bytes: usize, values: usize) {
    assert_eq!(dtype.row_bytes(values), Some(bytes), "{values} values of {dtype} in {bytes} bytes");
}

#[cfg(test)]
mod tests;
