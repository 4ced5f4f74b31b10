//! Activations rounded to fewer than 16 bits.

use super::*;

#[test]
fn eight_bits_are_close_and_nearly_the_same_everywhere() {
    for &dtype in SUPPORTED.iter().filter(|d| d.is_quantized()) {
        let (rows, k, columns) = (35, 768, 15);
        let w = weights(dtype, rows, k);
        let mut values = vec![0.0; rows * k];
        decode(dtype, &w, &mut values);
        let x = normal("activations", columns * k);
        let kind = (dtype, Precision::Eight);
        let want = run_rounded(Level::Portable, kind, &w, rows, &x, [columns, k, k]);
        let error = nmse(&oracle(&values, &x, k, k, columns), &want);
        assert!(error > 1e-7 && error < 2e-4, "{dtype}: error {error:e}");
        let exact = Vec::from_iter(want.iter().map(|v| *v as f64));
        for level in Level::available().filter(|level| level.tiles().is_none()) {
            let got = run_rounded(level, kind, &w, rows, &x, [columns, k, k]);
            // Fused or not, scales round differently.
            assert!(nmse(&exact, &got) < 1e-12, "{dtype} at {}", level.name());
            let one = run_rounded(level, kind, &w, rows, &x[k..], [1, k, k]);
            let error = nmse(&exact[rows..2 * rows], &one);
            assert!(error < 1e-12, "{dtype} at {}: the second column alone: {error:e}", level.name());
        }
    }
}

#[test]
fn outliers_keep_their_low_bytes() {
    let (dtype, rows, k, columns) = (DType::Q8_0, 16, 1024, 13);
    let w = weights(dtype, rows, k);
    let mut values = vec![0.0; rows * k];
    decode(dtype, &w, &mut values);
    let mut x = normal("activations", columns * k);
    // One channel of a thousand times the others', as trained models have them.
    (0..columns).for_each(|c| x[c * k + 77] = 1000.0 + c as f32 / 3.0);
    let want = oracle(&values, &x, k, k, columns);
    // Tiles of bf16 have no low bytes.
    for level in Level::available().filter(|level| level.tiles().is_none()) {
        let error = nmse(&want, &run_rounded(level, (dtype, Precision::Eight), &w, rows, &x, [columns, k, k]));
        // Without the low byte 1000 is off by 1000 / 254 at the most: an error of 10⁻⁶ and more.
        assert!(error < 1e-7, "at {}: {error:e}", level.name());
    }
}

#[test]
fn an_answers_outliers_keep_their_low_bytes() {
    for &dtype in SUPPORTED.iter().filter(|d| d.is_quantized()) {
        let (rows, k) = (19, 1280);
        let w = weights(dtype, rows, k);
        let mut values = vec![0.0; rows * k];
        decode(dtype, &w, &mut values);
        let mut x = normal("activations", k);
        x[77] = 1000.3;
        let want = oracle(&values, &x, k, k, 1);
        for level in Level::available() {
            let error = nmse(&want, &run_rounded(level, (dtype, Precision::Eight), &w, rows, &x, [1, k, k]));
            assert!(error > 1e-12 && error < 1e-6, "{dtype} at {}: {error:e}", level.name());
        }
        // Elsewhere they are rounded, nearly the same at every level: those without fused products round scales twice.
        x[77] = 0.3;
        let one = |level| run_rounded(level, (dtype, Precision::Eight), &w, rows, &x, [1, k, k]);
        let (want, error) = (one(Level::Portable), nmse(&oracle(&values, &x, k, k, 1), &one(Level::Portable)));
        assert!(error > 1e-7 && error < 2e-4, "{dtype}: {error:e}");
        for level in Level::available() {
            let error = nmse(&Vec::from_iter(want.iter().map(|v| *v as f64)), &one(level));
            assert!(error < 1e-12, "{dtype} at {}: {error:e}", level.name());
        }
    }
}

#[test]
fn sixteen_bit_weights_meet_prompts_in_pairs() {
    for dtype in [DType::F16, DType::BF16] {
        for (rows, k, columns) in [(35, 768, 15), (16, 100, 4), (33, 65, 7)] {
            let w = weights(dtype, rows, k);
            let mut values = vec![0.0; rows * k];
            decode(dtype, &w, &mut values);
            let mut x = normal("activations", columns * k);
            let want = oracle(&values, &x, k, k, columns);
            for level in Level::available().filter(|level| level.tiles().is_none()) {
                let got = run_rounded(level, (dtype, Precision::Eight), &w, rows, &x, [columns, k, k]);
                let error = nmse(&want, &got);
                assert!(error > 1e-12 && error < 4e-7, "{dtype} {rows}x{k} at {}: error {error:e}", level.name());
            }
            for bad in [f32::NAN, f32::INFINITY] {
                x[k / 2] = bad;
                let got = run_rounded(Level::best(), (dtype, Precision::Eight), &w, rows, &x, [columns, k, k]);
                assert!(got[..rows].iter().all(|v| !v.is_finite()), "{bad} became {:?}", &got[..rows]);
                assert!(got[rows..].iter().all(|v| v.is_finite()), "{bad} reached other columns");
            }
        }
    }
}

#[test]
fn bad_weights_in_pairs_show() {
    let (rows, k, columns) = (16, 128, 4);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = normal("weights", rows * k);
        values[3 * k + 70] = bad;
        let mut w = vec![0; 2 * values.len()];
        encode(DType::F16, &values, k, &mut w);
        let x = normal("activations", columns * k);
        for level in Level::available() {
            let got = run_rounded(level, (DType::F16, Precision::Eight), &w, rows, &x, [columns, k, k]);
            for (i, v) in got.iter().enumerate() {
                assert_eq!(v.is_finite(), i % rows != 3, "{bad}: {v} in row {} at {}", i % rows, level.name());
            }
        }
    }
}

#[test]
fn tiles_are_closer_than_eight_bits_for_every_type() {
    let levels = || Level::available().filter(|level| level.tiles().is_some());
    assert!(levels().count() > 0, "the twin is everywhere");
    for &dtype in SUPPORTED.iter().filter(|d| **d != DType::F32) {
        // A short last tile, panel and group; two whole ones; a batch and more.
        for (rows, k, columns) in [(35, 768, 47), (32, 512, 32), (150, 1280, 16)] {
            let w = weights(dtype, rows, k);
            let mut values = vec![0.0; rows * k];
            decode(dtype, &w, &mut values);
            // Columns lie further apart than they are long.
            let x = normal("activations", columns * (k + 3));
            let want = oracle(&values, &x, k, k + 3, columns);
            for level in levels() {
                let got = run_rounded(level, (dtype, Precision::Eight), &w, rows, &x, [columns, k, k + 3]);
                let error = nmse(&want, &got);
                assert!(error > 1e-8 && error < 8e-6, "{dtype} {rows}x{k} at {}: error {error:e}", level.name());
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_tiles() {
    let (rows, k, columns) = (20, 512, 33);
    for level in Level::available().filter(|level| level.tiles().is_some()) {
        for bad in [f32::NAN, f32::INFINITY, f32::from_bits(0x7fff_ffff)] {
            let mut x = normal("activations", columns * k);
            x[32 * k + 300] = bad;
            let w = weights(DType::Q8_0, rows, k);
            let got = run_rounded(level, (DType::Q8_0, Precision::Eight), &w, rows, &x, [columns, k, k]);
            let (fine, other) = got.split_at(32 * rows);
            assert!(fine.iter().all(|v| v.is_finite()), "{bad} reached other columns at {}", level.name());
            assert!(other.iter().all(|v| !v.is_finite()), "{bad} became {other:?} at {}", level.name());
        }
        // Weights whose scale is NaN with all bits set, where rounding must not carry over.
        for bits in [0x7fffu16, 0xffff] {
            for (dtype, at) in [(DType::Q8_0, 3 * DType::Q8_0.row_bytes(k).unwrap()), (DType::F16, 2 * 3 * k)] {
                let mut w = weights(dtype, rows, k);
                w[at..at + 2].copy_from_slice(&bits.to_le_bytes());
                let x = normal("activations", columns * k);
                let got = run_rounded(level, (dtype, Precision::Eight), &w, rows, &x, [columns, k, k]);
                for (i, v) in got.iter().enumerate() {
                    assert_eq!(v.is_nan(), i % rows == 3, "{dtype}: {v} in row {} at {}", i % rows, level.name());
                }
            }
        }
        // Few columns are not worth it.
        let mut acts = Activations::new();
        acts.fill_at(level, &Serial, (DType::Q8_0, Precision::Eight, Role::Answer), &[0.0; 2048], [512, 4, 512]);
        assert!(!acts.in_tiles());
    }
}
