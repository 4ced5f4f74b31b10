//! Rows of panels as f32, to the same bits as `decode` gives for the file's: what embeddings are looked up in when they are the
//! output's weights too. One weight at a time: a prompt's lookups are a ten-thousandth of its work.

use super::bytes::Half;
use super::format::{Block, format};
use super::panel::{HALVES, Map, Scales, chunk_bytes, map};
use super::tile::{CHUNK, ROWS, TILE};
use crate::base::DType;

/// Decodes row `row` of a matrix in panels whose rows have `k` weights. Panics if the lengths do not fit each
/// other.
pub fn decode_panel_row(dtype: DType, panels: &[u8], k: usize, row: usize, out: &mut [f32]) {
    let code = &format(dtype).panels;
    let bytes = (code.bytes)(k);
    assert_eq!(out.len(), k, "a row of {k} weights");
    (code.row)(&panels[row / ROWS * bytes..][..bytes], row % ROWS, out);
}

/// Row `r` of a panel.
pub(super) fn row<F: Block>(panel: &[u8], r: usize, out: &mut [f32]) {
    let halves = if F::HALVES { 2 } else { 1 };
    for (tile, out) in panel.chunks(map::<F>(TILE / CHUNK).end).zip(out.chunks_mut(TILE)) {
        let map = map::<F>(out.len() / CHUNK);
        let (head, codes) = tile.split_at(map.codes);
        for (chunk, (j, out)) in codes.chunks_exact(chunk_bytes::<F>()).zip(out.chunks_exact_mut(CHUNK).enumerate()) {
            for (h, out) in out.chunks_exact_mut(CHUNK / halves).enumerate() {
                let (d, m) = scale::<F>(head, &map, halves * j + h, r);
                for (i, out) in out.iter_mut().enumerate() {
                    let product = d * code::<F>(chunk, r, CHUNK / halves * h + i) as f32;
                    *out = if F::SCALES.mins() { product + m } else { product };
                }
            }
        }
    }
}

/// d and m of group `g` of row `r`: w = d · (q − zero) + m.
fn scale<F: Block>(head: &[u8], map: &Map, g: usize, r: usize) -> (f32, f32) {
    let per_half = if F::HALVES { 16 } else { 8 };
    let half = |from: usize, i: usize| Half([0, 1].map(|b| head[from + i * HALVES + 2 * r + b])).get();
    let int = |from: usize| f32::from(head[from + g * ROWS + r] as i8);
    match F::SCALES {
        Scales::Half => (half(0, g), 0.0),
        Scales::HalfMin => (half(0, g), half(map.mins, g)),
        // 2^(e − 128); the smallest two are subnormal.
        Scales::Exponent => {
            let e = u32::from(head[g * ROWS + r]);
            (f32::from_bits(if e < 2 { 0x20_0000 << e } else { (e - 1) << 23 }), 0.0)
        }
        Scales::Int => (half(0, g / per_half) * int(map.scales), 0.0),
        Scales::IntMin => {
            (half(0, g / per_half) * int(map.scales), -(half(map.mins, g / per_half) * int(map.int_mins)))
        }
    }
}

/// q − zero of weight `i` of a chunk of row `r`.
fn code<F: Block>(chunk: &[u8], r: usize, i: usize) -> i32 {
    let word = i / 4;
    let byte = |vector: usize| chunk[64 * vector + 4 * r + i % 4];
    let code = match F::BITS {
        8 => byte(word),
        4.. => {
            let low = byte(word % 4) >> (word / 4 * 4) & 15;
            match F::BITS {
                5 => low | (byte(4) >> word & 1) << 4,
                6 => low | (byte(4 + word / 4) >> (word % 4 * 2) & 3) << 4,
                _ => low,
            }
        }
        _ => {
            let low = byte(word / 4) >> (word % 4 * 2) & 3;
            if F::BITS == 3 { low | (byte(2) >> word & 1) << 2 } else { low }
        }
    };
    let code = F::TABLE.map_or(code, |table| table[code as usize] as u8);
    if F::SIGNED { i32::from(code as i8) } else { i32::from(code) - F::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{PANEL_ROWS, SUPPORTED, decode, pack_panel, panel_bytes};

    #[test]
    fn rows_of_panels_have_the_bits_of_the_files() {
        let mut seed = 7u32;
        for &dtype in SUPPORTED {
            for k in [256, 768, 2048 + 256] {
                let (rows, row) = (21, dtype.row_bytes(k).unwrap());
                let random = |_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                };
                let file = Vec::from_iter((0..rows * row).map(random));
                let size = panel_bytes(dtype, k);
                let mut panels = vec![0xa5; 2 * size];
                for (rows, out) in file.chunks(PANEL_ROWS * row).zip(panels.chunks_mut(size)) {
                    pack_panel(dtype, rows, k, out);
                }
                let (mut want, mut got) = (vec![0.0; k], vec![1.0; k]);
                for r in 0..rows {
                    decode(dtype, &file[r * row..][..row], &mut want);
                    decode_panel_row(dtype, &panels, k, r, &mut got);
                    let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                    assert!(want.iter().zip(&got).all(same), "{dtype}, row {r} of {k}");
                }
            }
        }
    }
}
