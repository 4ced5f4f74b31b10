//! Every format against the reference's bytes and values (tests/data/quants.json) and against an f64 oracle.

mod rounded;

use super::*;
use crate::base::{Layout, Role, Serial};
use crate::simd::{Columns, Level};
use base64::Engine;

struct Fixture {
    dtype: DType,
    bytes: Vec<u8>,
    values: Vec<f32>,
    /// What was quantized.
    source: Vec<f32>,
    row: usize,
    /// The reference's relative error.
    rel_rmse: f64,
}

/// Uniform in 0 … 1, from the rule of the reference data: splitmix64 seeded by fnv1a64(name) xor seed.
fn uniform(name: &str, seed: u64, n: usize) -> Vec<f32> {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01B3)) ^ seed;
    let draw = |i: u64| {
        let z = hash.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32
    };
    (1..=n as u64).map(draw).collect()
}

/// Roughly normal, with variance 1.
fn normal(name: &str, n: usize) -> Vec<f32> {
    let parts: Vec<_> = (0..6).map(|seed| uniform(name, seed, n)).collect();
    (0..n).map(|i| (parts.iter().map(|p| p[i]).sum::<f32>() - 3.0) * std::f32::consts::SQRT_2).collect()
}

fn fixtures() -> Vec<Fixture> {
    let text = include_str!("../../tests/data/quants.json");
    let list: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
    let decode = |v: &serde_json::Value| base64::prelude::BASE64_STANDARD.decode(v.as_str().unwrap()).unwrap();
    let read = |v: &serde_json::Value| {
        let dtype = DType::from_id(v["id"].as_u64().unwrap() as u32).unwrap();
        let values: Vec<f32> =
            decode(&v["values"]).as_chunks().0.iter().map(|b: &[u8; 4]| f32::from_le_bytes(*b)).collect();
        let rule = &v["src_rule"];
        let mut source = uniform(rule["name"].as_str().unwrap(), rule["seed"].as_u64().unwrap(), values.len());
        for x in &mut source {
            *x = 2.0 * *x - 1.0;
            *x = *x * x.abs() * 0.5;
        }
        source[0] = 3.0;
        let (row, rel_rmse) = (v["n_per_row"].as_u64().unwrap() as usize, v["rel_rmse"].as_f64().unwrap());
        Fixture { dtype, bytes: decode(&v["data"]), values, source, row, rel_rmse }
    };
    list.iter().map(read).filter(|f| is_supported(f.dtype)).collect()
}

fn rel_rmse(source: &[f32], values: &[f32]) -> f64 {
    let (mut error, mut power) = (0.0, 0.0);
    for (&x, &y) in source.iter().zip(values) {
        error += (x as f64 - y as f64).powi(2);
        power += (x as f64).powi(2);
    }
    (error / power).sqrt()
}

#[test]
fn decodes_the_reference_bit_exactly() {
    let fixtures = fixtures();
    assert_eq!(fixtures.len(), SUPPORTED.len() - 1, "all but F32");
    for f in fixtures {
        let mut out = vec![0.0; f.values.len()];
        decode(f.dtype, &f.bytes, &mut out);
        for (i, (a, b)) in out.iter().zip(&f.values).enumerate() {
            assert_eq!(a.to_bits(), b.to_bits(), "{} value {i}: {a} instead of {b}", f.dtype);
        }
        assert!((rel_rmse(&f.source, &f.values) / f.rel_rmse - 1.0).abs() < 1e-3, "{}: the fixture's source", f.dtype);
    }
}

#[test]
fn encodes_as_well_as_the_reference() {
    for f in fixtures() {
        let mut bytes = vec![0; f.bytes.len()];
        encode(f.dtype, &f.source, f.row, &mut bytes);
        let mut out = vec![0.0; f.values.len()];
        decode(f.dtype, &bytes, &mut out);
        let error = rel_rmse(&f.source, &out);
        println!("{:8} error {error:.5}, reference {:.5}, ratio {:.3}", f.dtype.name(), f.rel_rmse, error / f.rel_rmse);
        assert!(error <= 1.15 * f.rel_rmse, "{}: error {error}, reference {}", f.dtype, f.rel_rmse);
    }
}

#[test]
fn encodes_odd_blocks() {
    for &dtype in SUPPORTED {
        let n = 256;
        let mut spike = vec![0.0; n];
        spike[7] = -2.0;
        let cases =
            [vec![0.0; n], vec![1.0; n], vec![-0.25; n], spike, vec![1e-12; n], (0..n).map(|i| i as f32).collect()];
        for x in cases {
            let mut bytes = vec![0; dtype.row_bytes(n).unwrap()];
            encode(dtype, &x, n, &mut bytes);
            let mut out = vec![f32::NAN; n];
            decode(dtype, &bytes, &mut out);
            let amax = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (a, b) in x.iter().zip(&out) {
                // No further off than the coarsest step of any format, or the least f16.
                assert!((a - b).abs() <= 0.5 * amax + 6e-8, "{dtype}: {a} became {b}, amax {amax}");
            }
        }
    }
}

/// y\[column\]\[row\] in f64 from the decoded weights.
fn oracle(w: &[f32], x: &[f32], k: usize, stride: usize, columns: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for c in 0..columns {
        for w in w.chunks_exact(k) {
            out.push(w.iter().zip(&x[c * stride..]).map(|(a, b)| *a as f64 * *b as f64).sum());
        }
    }
    out
}

fn nmse(want: &[f64], got: &[f32]) -> f64 {
    assert_eq!(want.len(), got.len());
    let (mut error, mut power) = (0.0, 0.0);
    for (w, g) in want.iter().zip(got) {
        error += (w - *g as f64).powi(2);
        power += w * w;
    }
    error / power
}

/// Rows of encoded weights of `dtype`.
fn weights(dtype: DType, rows: usize, k: usize) -> Vec<u8> {
    let mut bytes = vec![0; dtype.row_bytes(rows * k).unwrap()];
    encode(dtype, &normal("weights", rows * k), k, &mut bytes);
    bytes
}

/// These rows as they are in a file.
fn rows_of<'a>(dtype: DType, bytes: &'a [u8], k: usize) -> Matrix<'a> {
    Matrix { dtype, layout: Layout::Rows, bytes, k }
}

/// These rows in panels.
fn packed(dtype: DType, rows: &[u8], k: usize) -> Vec<u8> {
    let size = panel_bytes(dtype, k);
    let mut out = Vec::new();
    for rows in rows.chunks(PANEL_ROWS * dtype.row_bytes(k).unwrap()) {
        let start = out.len();
        out.resize(start + size, 0xa5);
        pack_panel(dtype, rows, k, &mut out[start..]);
    }
    out
}

fn run_dot(level: Level, dtype: DType, w: &[u8], rows: usize, x: &[f32], sizes: [usize; 3]) -> Vec<f32> {
    run_rounded(level, (dtype, Precision::Sixteen), w, rows, x, sizes)
}

/// As rows of an answer where they are few, and of a prompt otherwise.
fn run_rounded(
    level: Level,
    (dtype, precision): (DType, Precision),
    w: &[u8],
    rows: usize,
    x: &[f32],
    sizes: [usize; 3],
) -> Vec<f32> {
    let role = if sizes[0] < 4 { Role::Answer } else { Role::Prompt };
    run_as(level, (dtype, precision, role), w, rows, x, sizes)
}

fn run_as(
    level: Level,
    (dtype, precision, role): (DType, Precision, Role),
    w: &[u8],
    rows: usize,
    x: &[f32],
    [columns, k, stride]: [usize; 3],
) -> Vec<f32> {
    let mut acts = Activations::new();
    acts.fill_at(level, &Serial, (dtype, precision, role), x, [stride, columns, k]);
    acts.meet_at(level, dtype);
    let mut out = vec![f32::NAN; columns * rows];
    dot_rows_at(level, &rows_of(dtype, w, k), 0..rows, &acts, &mut Columns::whole(&mut out, columns, rows, rows));
    // Loaded weights lie in panels: to the same bits.
    let bytes = packed(dtype, w, k);
    let (w, mut again) = (Matrix { dtype, layout: Layout::Packed, bytes: &bytes, k }, vec![f32::NAN; out.len()]);
    dot_rows_at(level, &w, 0..rows, &acts, &mut Columns::whole(&mut again, columns, rows, rows));
    assert!(out.iter().zip(&again).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype} in panels");
    out
}

/// Row lengths: whole tiles, a part of one, an odd number of blocks, and for plain types no multiple of anything.
fn lengths(dtype: DType) -> &'static [usize] {
    match dtype.block() {
        256 => &[256, 1280, 2048],
        32 => &[32, 96, 576, 2080],
        _ => &[1, 31, 48, 1024, 1100],
    }
}

#[test]
fn dot_matches_the_oracle_at_every_level() {
    for &dtype in SUPPORTED {
        for &k in lengths(dtype) {
            let (rows, columns, stride) = (19, 7, k + 5);
            let w = weights(dtype, rows, k);
            let mut values = vec![0.0; rows * k];
            decode(dtype, &w, &mut values);
            let x = normal("activations", columns * stride);
            let want = oracle(&values, &x, k, stride, columns);
            for level in Level::available() {
                let error = nmse(&want, &run_dot(level, dtype, &w, rows, &x, [columns, k, stride]));
                let limit = if dtype.is_quantized() { 1e-8 } else { 1e-12 };
                assert!(error <= limit, "{dtype} at {}, k = {k}: error {error:e}", level.name());
            }
        }
    }
}

#[test]
fn levels_agree_bit_by_bit() {
    for &dtype in SUPPORTED.iter().filter(|d| d.is_quantized()) {
        for &k in lengths(dtype) {
            let (rows, columns) = (5, 6);
            let w = weights(dtype, rows, k);
            let x = normal("activations", columns * k);
            let want = run_dot(Level::Portable, dtype, &w, rows, &x, [columns, k, k]);
            for level in Level::available() {
                let got = run_dot(level, dtype, &w, rows, &x, [columns, k, k]);
                assert!(want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype} at {}", level.name());
            }
        }
    }
}

#[test]
fn a_column_does_not_depend_on_the_batch() {
    for &dtype in SUPPORTED {
        // Whole tiles and a short one; outliers elsewhere in each third column.
        let (rows, k, columns) = (18, 1280, 37);
        let w = weights(dtype, rows, k);
        let mut x = normal("activations", columns * k);
        (0..columns).for_each(|c| x[c * k + 40 + 500 * (c % 3)] = 300.0 + c as f32 / 3.0);
        for level in Level::available() {
            for precision in [Precision::Sixteen, Precision::SixteenOrTiles, Precision::Eight] {
                for role in [Role::Prompt, Role::Answer] {
                    let run = |x: &[f32], n| run_as(level, (dtype, precision, role), &w, rows, x, [n, k, k]);
                    let all = run(&x, columns);
                    for c in (0..columns).step_by(if level == Level::best() { 3 } else { 12 }) {
                        let what = format!("{dtype}, {precision:?}, {role:?}, column {c} at {}", level.name());
                        assert_eq!(run(&x[c * k..], 1), all[c * rows..(c + 1) * rows], "{what}");
                    }
                    // Groups of columns end at other places.
                    let some = run(&x[5 * k..], 13);
                    assert_eq!(some, all[5 * rows..18 * rows], "{dtype}, {precision:?}, {role:?} at {}", level.name());
                }
            }
        }
    }
}

#[test]
fn threads_share_the_rows() {
    let (dtype, rows, k, columns) = (DType::Q4_K, 40, 256, 3);
    let w = weights(dtype, rows, k);
    let x = normal("activations", columns * k);
    let mut acts = Activations::new();
    acts.fill(&Serial, (dtype, Precision::Sixteen, Role::Prompt), &x, [k, columns, k]);
    let mut out = vec![f32::NAN; columns * rows];
    let blocks = crate::simd::ColumnBlocks::new(&mut out, columns, rows, rows, 16);
    let bytes = packed(dtype, &w, k);
    let panels = Matrix { dtype, layout: Layout::Packed, bytes: &bytes, k };
    std::thread::scope(|scope| {
        for i in 0..blocks.len() {
            let (blocks, acts, w) = (&blocks, &acts, &panels);
            scope.spawn(move || {
                let mut part = blocks.take(i);
                dot_rows(w, part.range(), acts, &mut part);
            });
        }
    });
    assert_eq!(out, run_dot(Level::best(), dtype, &w, rows, &x, [columns, k, k]));
}

#[test]
fn inputs_that_are_made_where_they_are_wanted_are_the_same() {
    let (rows, columns) = (16, 5);
    for (dtype, k) in [(DType::Q4_1, 576), (DType::F16, 100), (DType::F32, 31)] {
        let (w, x) = (weights(dtype, rows, k), normal("activations", columns * k));
        for level in Level::available() {
            for precision in [Precision::Sixteen, Precision::SixteenOrTiles, Precision::Eight] {
                for role in [Role::Prompt, Role::Answer] {
                    let want = run_as(level, (dtype, precision, role), &w, rows, &x, [columns, k, k]);
                    let mut acts = Activations::new();
                    let make = |c: usize, to: &mut [f32]| to.copy_from_slice(&x[c * k..][..k]);
                    acts.take(
                        level,
                        &Serial,
                        (dtype, precision, role),
                        &activations::Inputs::Made(&make),
                        [columns, k],
                    );
                    acts.meet_at(level, dtype);
                    let mut out = vec![f32::NAN; columns * rows];
                    let to = &mut Columns::whole(&mut out, columns, rows, rows);
                    dot_rows_at(level, &rows_of(dtype, &w, k), 0..rows, &acts, to);
                    assert!(
                        out.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()),
                        "{dtype} {level:?} {precision:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn activations_are_reused_and_let_nan_through() {
    let (dtype, k) = (DType::Q8_0, 64);
    let kind = (dtype, Precision::Sixteen, Role::Prompt);
    let w = weights(dtype, 2, k);
    let mut acts = Activations::new();
    let mut x = normal("activations", 4 * k);
    let mut out = vec![0.0; 8];
    acts.fill(&Serial, kind, &x, [k, 4, k]);
    dot_rows(&rows_of(dtype, &w, k), 0..2, &acts, &mut Columns::whole(&mut out, 4, 2, 2));
    let first = out[..2].to_vec();
    acts.fill(&Serial, kind, &x[..32], [32, 1, 32]);
    acts.fill(&Serial, kind, &x, [k, 1, k]);
    dot_rows(&rows_of(dtype, &w, k), 0..2, &acts, &mut Columns::whole(&mut out, 1, 2, 2));
    assert_eq!(out[..2], first, "what an earlier fill left behind");
    for bad in [f32::NAN, f32::INFINITY] {
        x[40] = bad;
        for level in Level::available() {
            let out = run_dot(level, dtype, &w, 2, &x, [1, k, k]);
            assert!(out.iter().all(|v| !v.is_finite()), "{bad} became {out:?} at {}", level.name());
        }
    }
}

#[test]
fn panels_keep_the_size() {
    for &dtype in SUPPORTED {
        let panel = panel_bytes(dtype, 4096) as f64;
        let file = dtype.row_bytes(PANEL_ROWS * 4096).unwrap() as f64;
        // Scales of four or six bits take eight.
        let limit = match dtype {
            DType::Q2_K => 1.20,
            DType::Q3_K => 1.04,
            _ => 1.03,
        };
        assert!(panel >= file && panel <= limit * file, "{dtype}: {} of the file's size", panel / file);
    }
}

#[test]
fn caches_come_back_from_the_gpus_layout_as_they_were() {
    for dtype in [DType::Q8_0, DType::Q4_0] {
        let (rows, k) = (5, 96);
        let blocks = weights(dtype, rows, k);
        let words = gpu_layout(dtype, rows, k, &blocks);
        let (codes, scales) = words.split_at(gpu_planes(dtype, rows, k).planes[1] as usize);
        let count = rows * k / 32;
        let codes = &bytemuck::cast_slice::<u32, u8>(codes)[..count * (dtype.block_bytes() - 2)];
        let scales = &bytemuck::cast_slice::<u32, u8>(scales)[..count * 2];
        assert_eq!(gpu_blocks(dtype, codes, scales), blocks, "{dtype}");
    }
}

#[test]
fn gpu_layout_keeps_the_size() {
    for &dtype in SUPPORTED {
        let (rows, k) = (3, if dtype.is_quantized() { 512 } else { 500 });
        let w = weights(dtype, rows, k);
        let planes = gpu_planes(dtype, rows, k);
        assert_eq!(gpu_layout(dtype, rows, k, &w).len(), planes.words);
        assert!(planes.words.is_multiple_of(4) && planes.planes.iter().all(|p| p.is_multiple_of(4)), "{dtype}");
        let large = gpu_planes(dtype, 4096, 4096).words as f64 * 4.0;
        let file = dtype.row_bytes(4096 * 4096).unwrap() as f64;
        assert!(large <= 1.03 * file, "{dtype}: {} of the file's size", large / file);
    }
}
