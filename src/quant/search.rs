//! Finding scales and codes: what the encoders share.
//!
//! Rounding to nearest under a given scale is easy; the scale is what matters. For a block of weights x with
//! importances p, and codes q fixed, least squares gives the best scale Σ p·q·x / Σ p·q²; and the codes follow from a
//! scale by rounding. So: try a number of scales around the obvious one, round, solve, keep the best.

use super::bytes::Half;
use std::ops::RangeInclusive;

/// The value of largest magnitude, with its sign; 0 for none. NaN is passed over.
pub(super) fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |best: f32, &v| if v.abs() > best.abs() { v } else { best })
}

/// The least and the largest value.
pub(super) fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)))
}

/// 1 / v, or 0 if that would be infinite.
fn inverse(v: f32) -> f32 {
    let inverse = 1.0 / v;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The codes q in `codes` for which d · (q − zero) + m is nearest to x.
pub(super) fn round_to(x: &[f32], d: f32, m: f32, zero: i32, codes: RangeInclusive<i32>) -> Vec<u8> {
    let inverse = inverse(d);
    let code = |v: f32| ((v - m) * inverse).round_ties_even() as i32;
    x.iter().map(|&v| code(v).saturating_add(zero).clamp(*codes.start(), *codes.end()) as u8).collect()
}

/// The index of the value of `table` nearest to v.
fn nearest(table: &[i8; 16], v: f32) -> u8 {
    let mut best = 0;
    for (i, &t) in table.iter().enumerate() {
        if (t as f32 - v).abs() < (table[best] as f32 - v).abs() {
            best = i;
        }
    }
    best as u8
}

/// The codes q for which d · table\[q\] is nearest to x.
pub(super) fn round_to_table(x: &[f32], d: f32, table: &[i8; 16]) -> Vec<u8> {
    let inverse = inverse(d);
    x.iter().map(|&v| nearest(table, v * inverse)).collect()
}

/// The importance of each value where the caller knows none: large weights meet large activations no more than small
/// ones do, but their error is what rounding can do something about.
fn importance(v: f32) -> f32 {
    v * v
}

/// Accumulates Σ p·q·x and Σ p·q² for the best scale under given codes.
#[derive(Default)]
struct Fit {
    qx: f32,
    qq: f32,
}

impl Fit {
    fn add(&mut self, x: f32, q: f32) {
        let p = importance(x);
        self.qx += p * q * x;
        self.qq += p * q * q;
    }

    /// The best scale.
    fn scale(&self) -> f32 {
        self.qx * inverse(self.qq)
    }

    /// By how much that scale lowers the squared error.
    fn gain(&self) -> f32 {
        self.qx * self.scale()
    }
}

/// The best scale d for w = d · table\[q\].
pub(super) fn table_scale(x: &[f32], table: &[i8; 16]) -> f32 {
    let top = extreme(x);
    let candidates = (-7..=7).map(|i| (table[0] as f32 + i as f32) * inverse(top));
    best_scale(x, candidates, |v| table[nearest(table, v) as usize] as f32)
}

/// The best scale d for w = d · q with −n ≤ q < n.
fn symmetric_scale(x: &[f32], n: i32) -> f32 {
    let top = extreme(x);
    let candidates = (-9..=9).map(|i| -(n as f32 + 0.1 * i as f32) * inverse(top));
    best_scale(x, candidates, |v| v.round_ties_even().clamp(-n as f32, (n - 1) as f32))
}

/// Tries inverse scales and returns the fitted scale of the best.
fn best_scale(x: &[f32], inverses: impl Iterator<Item = f32>, code: impl Fn(f32) -> f32) -> f32 {
    let mut best = Fit::default();
    for inverse in inverses {
        let mut fit = Fit::default();
        for &v in x {
            fit.add(v, code(v * inverse));
        }
        if fit.gain() > best.gain() {
            best = fit;
        }
    }
    best.scale()
}

/// A super-block of 256 weights w = d · s · (q − n).
pub(super) struct Symmetric {
    pub d: Half,
    pub scales: Vec<i32>,
    pub codes: Vec<u8>,
}

/// Quantizes 256 weights to codes below 2 `n`, with a scale −`levels` ≤ s < `levels` for every 16.
pub(super) fn symmetric_block(x: &[f32], n: i32, levels: i32) -> Symmetric {
    let scales: Vec<f32> = x.chunks_exact(16).map(|x| symmetric_scale(x, n)).collect();
    let d = Half::new(extreme(&scales) / -levels as f32);
    let inverse = inverse(d.get());
    let scales: Vec<i32> =
        scales.iter().map(|s| ((s * inverse).round_ties_even() as i32).clamp(-levels, levels - 1)).collect();
    let codes = x.chunks_exact(16).zip(&scales);
    let codes = codes.flat_map(|(x, &s)| round_to(x, d.get() * s as f32, 0.0, n, 0..=2 * n - 1)).collect();
    Symmetric { d, scales, codes }
}

/// A super-block of 256 weights w = d · s · q − dmin · m.
pub(super) struct Affine {
    pub d: Half,
    pub dmin: Half,
    pub scales: Vec<u8>,
    pub mins: Vec<u8>,
    pub codes: Vec<u8>,
}

/// Quantizes 256 weights to codes up to `top`, with a scale and a minimum up to `levels` for every `group`.
pub(super) fn affine_block(x: &[f32], group: usize, top: i32, levels: i32) -> Affine {
    let (scales, mins): (Vec<f32>, Vec<f32>) = x.chunks_exact(group).map(|x| affine_fit(x, top)).unzip();
    let d = Half::new(extreme(&scales) / levels as f32);
    let dmin = Half::new(extreme(&mins) / levels as f32);
    let scales = round_to(&scales, d.get(), 0.0, 0, 0..=levels);
    let mins = round_to(&mins, dmin.get(), 0.0, 0, 0..=levels);
    let mut codes = Vec::with_capacity(x.len());
    for (j, x) in x.chunks_exact(group).enumerate() {
        let (s, m) = (d.get() * scales[j] as f32, dmin.get() * mins[j] as f32);
        codes.extend(round_to(x, s, -m, 0, 0..=top));
    }
    Affine { d, dmin, scales, mins, codes }
}

/// The best scale s and minimum m ≥ 0 for w = s · q − m with 0 ≤ q ≤ `top`.
fn affine_fit(x: &[f32], top: i32) -> (f32, f32) {
    let (low, high) = range(x);
    let low = low.min(0.0);
    if high <= low {
        return (0.0, -low);
    }
    let mean_square = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let weight = |v: f32| mean_square.sqrt() + v.abs();
    let mut best = ((high - low) / top as f32, low);
    let mut least = f32::INFINITY;
    for i in -5..=20 {
        let steps = (top as f32 + 0.1 * (i as f32 - 5.0)) / (high - low);
        let (mut p, mut q, mut qq, mut px, mut qx) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &v in x {
            let code = ((v - low) * steps).round_ties_even().clamp(0.0, top as f32);
            let w = weight(v);
            p += w;
            q += w * code;
            qq += w * code * code;
            px += w * v;
            qx += w * code * v;
        }
        // Least squares for w = s · q + m, with m held at 0 if it would be positive.
        let det = p * qq - q * q;
        if det <= 0.0 {
            continue;
        }
        let (mut s, mut m) = ((p * qx - q * px) / det, (qq * px - q * qx) / det);
        if m > 0.0 {
            (s, m) = (qx / qq, 0.0);
        }
        let error = x.iter().map(|&v| {
            let code = ((v - m) * inverse(s)).round_ties_even().clamp(0.0, top as f32);
            weight(v) * (s * code + m - v).powi(2)
        });
        let error: f32 = error.sum();
        if error < least {
            (least, best) = (error, (s, m));
        }
    }
    (best.0, -best.1)
}
