//! Floor 1: vector primitives.
use half::f16;

/// Σ a·b.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
/// Σ a·b.
pub fn dot_f16(a: &[f16], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a.to_f32() * b).sum()
}
/// y += w·x.
pub fn axpy(w: f32, x: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x);
}
/// y += w·x.
pub fn axpy_f16(w: f32, x: &[f16], y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x.to_f32());
}
/// Replaces scores by exp(score − max) and gives their sum, the sink's share included.
pub fn softmax_numerators(scores: &mut [f32], sink: Option<f32>) -> f32 {
    let max = scores.iter().copied().chain(sink).fold(f32::MIN, f32::max);
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    scores.iter().sum::<f32>() + sink.map_or(0.0, |s| (s - max).exp())
}
