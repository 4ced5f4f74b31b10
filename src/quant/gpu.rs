//! The layout that shaders read: each part of a block in its own plane, so that loads are whole words.
//!
//! A plane holds one part of every block, in order; planes start at multiples of 16 bytes. Within a plane the bits are
//! permuted so that consecutive weights lie in ascending bits of consecutive words; single and double bits by parity, see
//! `bytes::pack_by_parity`. Sizes stay those of the file, but for
//! Q4_K and Q5_K, whose scales are spread to whole bytes (+3 %).

use super::bytes::pack_nibbles;
use super::format::{Block, MAX_PLANES, format};
use crate::base::DType;

/// Where the planes of a shard of rows lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuPlanes {
    /// Words of the whole shard, a multiple of 4.
    pub words: usize,
    /// Word offset of each plane, a multiple of 4: the shaders' `params.planes`.
    pub planes: [u32; MAX_PLANES],
}

/// Weights per row in the GPU layout: `k` rounded up to a multiple of 32, so that 32 weights never straddle rows.
pub fn gpu_padded(k: usize) -> usize {
    k.next_multiple_of(32)
}

/// Whether the dot form reads its values from a table in workgroup memory (the flag TABLE of shaders/quant).
pub fn gpu_table(dtype: DType) -> bool {
    matches!(dtype, DType::IQ4_NL | DType::IQ4_XS)
}

/// Whether the form for products of bytes does so (the flags TABLE and DOT4).
pub fn gpu_bytes_table(dtype: DType) -> bool {
    matches!(dtype, DType::IQ4_NL | DType::IQ4_XS | DType::MXFP4)
}

/// Whether that form has codes by parity: those of weights 8j, 8j + 2, 8j + 4, 8j + 6 in a word, and those between them in the next; else
/// one after the other.
pub fn gpu_by_parity(dtype: DType) -> bool {
    !gpu_bytes_table(dtype) && dtype != DType::Q8_0
}

/// The planes of `rows` rows of `k` weights. Panics for an unsupported type, rows that are no whole blocks, or a shard
/// of 16 GiB and more.
pub fn gpu_planes(dtype: DType, rows: usize, k: usize) -> GpuPlanes {
    assert!(k.is_multiple_of(dtype.block()), "rows of {k} values are no whole blocks of {dtype}");
    let blocks = rows * gpu_padded(k) / dtype.block().max(32);
    let mut words = 0;
    let planes = format(dtype).planes.map(|bytes| {
        let at = u32::try_from(words).expect("a shard below 16 GiB");
        words += (blocks * bytes).next_multiple_of(16) / 4;
        at
    });
    GpuPlanes { words, planes }
}

/// Repacks `rows` whole rows of `k` weights, as they lie in a file, for the GPU. Panics like [`gpu_planes`], or where
/// `bytes` has another length.
pub fn gpu_layout(dtype: DType, rows: usize, k: usize, bytes: &[u8]) -> Vec<u32> {
    assert_eq!(Some(bytes.len()), dtype.row_bytes(k).map(|row| row * rows), "{rows} rows of {k} {dtype}");
    let mut out = vec![0; gpu_planes(dtype, rows, k).words];
    (format(dtype).gpu)(bytes, rows, k, &mut out);
    out
}

/// Blocks as they lie in a file, made of the planes of one of the types that caches are made of, Q8_0 or Q4_0: what [`gpu_layout`] makes of
/// rows whose length is a multiple of 32, undone.
pub fn gpu_blocks(dtype: DType, codes: &[u8], scales: &[u8]) -> Vec<u8> {
    let of_codes = dtype.block_bytes() - 2;
    let mut out = Vec::with_capacity(codes.len() + scales.len());
    for (codes, scale) in codes.chunks_exact(of_codes).zip(scales.chunks_exact(2)) {
        out.extend_from_slice(scale);
        match dtype {
            DType::Q8_0 => out.extend_from_slice(codes),
            DType::Q4_0 => {
                let ascending: [u8; 32] = std::array::from_fn(|i| codes[i / 2] >> (4 * (i % 2)) & 15);
                out.extend_from_slice(&pack_nibbles(&ascending));
            }
            _ => panic!("no cache is made of {dtype}"),
        }
    }
    out
}

/// The values of a GPU layout in one of the types that caches are made of, Q8_0 or Q4_0: what tests read back.
pub fn gpu_decode(dtype: DType, rows: usize, k: usize, words: &[u32]) -> Vec<f32> {
    let (codes, scales) = words.split_at(gpu_planes(dtype, rows, k).planes[1] as usize);
    let (codes, scales): (&[u8], &[half::f16]) = (bytemuck::cast_slice(codes), bytemuck::cast_slice(scales));
    let code = |i: usize| match dtype {
        DType::Q8_0 => codes[i] as i8 as f32,
        DType::Q4_0 => (codes[i / 2] >> (4 * (i % 2)) & 15) as f32 - 8.0,
        _ => panic!("no cache is made of {dtype}"),
    };
    (0..rows * k).map(|i| code(i) * scales[i / 32].to_f32()).collect()
}

/// Any block format: its own permutation, plane by plane.
pub(super) fn layout_blocks<F: Block>(bytes: &[u8], rows: usize, k: usize, out: &mut [u32]) {
    let ends = gpu_planes(F::DTYPE, rows, k).planes;
    let mut rest: &mut [u8] = bytemuck::cast_slice_mut(out);
    let mut planes: [&mut [u8]; MAX_PLANES] = Default::default();
    for (p, plane) in planes.iter_mut().enumerate() {
        let len = ends.get(p + 1).map_or(rest.len(), |end| 4 * (*end - ends[p]) as usize);
        (*plane, rest) = std::mem::take(&mut rest).split_at_mut(len);
    }
    for (i, b) in bytemuck::cast_slice::<u8, F::Raw>(bytes).iter().enumerate() {
        let mut p = 0;
        let parts = planes.each_mut().map(|plane| {
            let size = F::PLANES[p];
            p += 1;
            &mut plane[i * size..(i + 1) * size]
        });
        F::planes(b, parts);
    }
}

/// Plain types: as they are, rows padded with zeros.
pub(super) fn layout_plain(bytes: &[u8], rows: usize, k: usize, out: &mut [u32]) {
    if rows == 0 || k == 0 {
        return;
    }
    let row = bytes.len() / rows;
    let padded = row / k * gpu_padded(k);
    let out: &mut [u8] = bytemuck::cast_slice_mut(out);
    for (from, to) in bytes.chunks_exact(row).zip(out.chunks_exact_mut(padded)) {
        to[..row].copy_from_slice(from);
    }
}
