//! The exponential and what is made of it: softmax terms and activation functions, in place on slices.

use super::level::{Level, SimdKernel};
use super::math::padded;
use super::vector::Simd;

/// A function of one variable.
pub(super) trait Unary: Copy {
    /// Must be `#[inline(always)]`.
    fn apply<S: Simd>(self, s: S, x: S::Floats) -> S::Floats;
}

pub(super) struct Map<'a, U>(pub U, pub &'a mut [f32]);

impl<U: Unary> SimdKernel for Map<'_, U> {
    type Out = f32;

    /// Gives the sum of the results.
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let Map(f, x) = self;
        let (whole, rest) = x.as_chunks_mut::<16>();
        let mut total = s.splat(0.0);
        for v in whole {
            let y = f.apply(s, s.floats(v));
            total = s.add(total, y);
            s.store(y, v);
        }
        let mut last = padded(rest, 0.0);
        s.store(f.apply(s, s.floats(&last)), &mut last);
        rest.copy_from_slice(&last[..rest.len()]);
        let last: [f32; 16] = padded(rest, 0.0);
        s.sum(s.add(total, s.floats(&last)))
    }
}

fn map(f: impl Unary, x: &mut [f32]) -> f32 {
    Level::best().run(Map(f, x))
}

/// eˣ to 1e-7 relative, over the whole range: 0 and ∞ where f32 ends, NaN from NaN.
///
/// With n = round(x / ln 2) and r = x − n ln 2: eˣ = 2ⁿ · eʳ, |r| ≤ 0.35, and eʳ by its series up to r⁷/7!, whose rest
/// is below 6e-9. 2ⁿ is applied in two halves, for results beyond the normal range.
#[inline(always)]
fn exp_vector<S: Simd>(s: S, x: S::Floats) -> S::Floats {
    let x = s.min(s.splat(90.0), s.max(s.splat(-105.0), x));
    let round = s.splat(12582912.0); // 1.5 · 2²³: the sum has no room for fractions
    let n = s.sub(s.add(s.mul(x, s.splat(std::f32::consts::LOG2_E)), round), round);
    // ln 2 in two parts, the first with few bits so that its product with n is exact.
    let r = s.mul_add(n, s.splat(-0.693_359_4), x);
    let r = s.mul_add(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.mul_add(p, r, s.splat(c));
    }
    let half = s.sub(s.add(s.mul(n, s.splat(0.5)), round), round);
    s.mul(s.mul(p, s.exp2_int(half)), s.exp2_int(s.sub(n, half)))
}

#[inline(always)]
fn sigmoid_vector<S: Simd>(s: S, x: S::Floats) -> S::Floats {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp_vector(s, s.sub(s.splat(0.0), x))))
}

/// e^(x − shift).
#[derive(Clone, Copy)]
pub(super) struct Exp {
    pub shift: f32,
}

impl Unary for Exp {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::Floats) -> S::Floats {
        exp_vector(s, s.sub(x, s.splat(self.shift)))
    }
}

/// x · sigmoid(scale · x).
#[derive(Clone, Copy)]
pub(super) struct Swish {
    pub scale: f32,
}

impl Unary for Swish {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::Floats) -> S::Floats {
        s.mul(x, sigmoid_vector(s, s.mul(x, s.splat(self.scale))))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Sigmoid;

impl Unary for Sigmoid {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::Floats) -> S::Floats {
        sigmoid_vector(s, x)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Tanh;

impl Unary for Tanh {
    /// 1 − 2 / (e²ˣ + 1): exact to 1e-7 of 1, not of small results.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::Floats) -> S::Floats {
        let e = exp_vector(s, s.mul(s.splat(2.0), x));
        let one = s.splat(1.0);
        s.sub(one, s.div(s.splat(2.0), s.add(e, one)))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Gelu;

impl Unary for Gelu {
    /// 0.5 (1 + tanh u) = sigmoid(2u).
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::Floats) -> S::Floats {
        let cubic = s.mul_add(s.mul(x, x), s.splat(0.044715), s.splat(1.0));
        let u = s.mul(s.mul(x, s.splat(2.0 * 0.797_884_6)), cubic);
        s.mul(x, sigmoid_vector(s, u))
    }
}

#[derive(Clone, Copy)]
pub(super) struct GeluErf;

impl Unary for GeluErf {
    /// x · (1 + erf(x / √2)) / 2, with erf as in Abramowitz and Stegun 7.1.26: off by at most 1.5e-7.
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::Floats) -> S::Floats {
        let one = s.splat(1.0);
        let magnitude = s.max(s.sub(s.splat(0.0), x), x);
        let z = s.mul(magnitude, s.splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = s.div(one, s.mul_add(z, s.splat(0.327_591_1), one));
        let mut p = s.splat(1.061_405_4);
        for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = s.mul_add(p, t, s.splat(c));
        }
        // erfc(|z|) / 2: what is missing from 1 for positive x, and all there is for negative x.
        let tail = s.mul(s.mul(s.mul(p, t), exp_vector(s, s.sub(s.splat(0.0), s.mul(z, z)))), s.splat(0.5));
        s.sub(s.max(x, s.splat(0.0)), s.mul(magnitude, tail))
    }
}

/// x ← eˣ.
pub fn exp(x: &mut [f32]) {
    map(Exp { shift: 0.0 }, x);
}

/// x ← e^(x − shift), and the sum of these.
pub fn exp_sum(x: &mut [f32], shift: f32) -> f32 {
    map(Exp { shift }, x)
}

/// x ← 1 / (1 + e⁻ˣ).
pub fn sigmoid(x: &mut [f32]) {
    map(Sigmoid, x);
}

/// x ← tanh x.
pub fn tanh(x: &mut [f32]) {
    map(Tanh, x);
}

/// x ← x · sigmoid(x).
pub fn silu(x: &mut [f32]) {
    map(Swish { scale: 1.0 }, x);
}

/// GELU by its approximation with tanh, which most models mean. Source: arXiv 1606.08415.
pub fn gelu(x: &mut [f32]) {
    map(Gelu, x);
}

/// GELU by the error function.
pub fn gelu_erf(x: &mut [f32]) {
    map(GeluErf, x);
}

/// x ← x · sigmoid(1.702 x).
pub fn gelu_quick(x: &mut [f32]) {
    map(Swish { scale: 1.702 }, x);
}
