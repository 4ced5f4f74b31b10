//! Elementwise functions of one tensor: activations, and scale, softcap, clamp.
//! Shader: shaders/unary.wgsl (functions in shaders/activation.wgsl). Source: GELU arXiv 1606.08415, squared ReLU arXiv 2109.08668.

use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Threads, WG, Work, for_chunks, grid};
use crate::base::{DType, Meta, Result, View, ViewMut};
use crate::simd;

/// Source: x `[tokens, …]`. Result: as x, packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unary {
    /// An activation.
    Act(Act),
    /// y = s · x.
    Scale(f32),
    /// y = cap · tanh(x / cap): Gemma 2, Grok.
    Softcap(f32),
    /// y = min(max(x, lo), hi): MPT, OLMo, DBRX clamp Q, K and V.
    Clamp(f32, f32),
}

/// Activation functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Act {
    /// x · σ(x)
    Silu,
    /// GELU, tanh form, as most models are trained: ½x(1 + tanh(√(2/π)(x + 0.044715x³)))
    Gelu,
    /// GELU, exact: ½x(1 + erf(x/√2))
    GeluErf,
    /// x · σ(1.702x)
    GeluQuick,
    /// max(x, 0)
    Relu,
    /// max(x, 0)²
    ReluSquared,
    /// σ(x)
    Sigmoid,
    Tanh,
}

impl Act {
    /// Every activation: cases and shaders go through all.
    pub const ALL: &[Act] =
        &[Act::Silu, Act::Gelu, Act::GeluErf, Act::GeluQuick, Act::Relu, Act::ReluSquared, Act::Sigmoid, Act::Tanh];

    /// The flag that picks it in shaders/activation.wgsl.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Act::Silu => "SILU",
            Act::Gelu => "GELU",
            Act::GeluErf => "GELU_ERF",
            Act::GeluQuick => "GELU_QUICK",
            Act::Relu => "RELU",
            Act::ReluSquared => "RELU_SQUARED",
            Act::Sigmoid => "SIGMOID",
            Act::Tanh => "TANH",
        }
    }
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

pub(super) fn act_f32(act: Act, x: f32) -> f32 {
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    match act {
        Act::Silu => x * sigmoid(x),
        // ½(1 + tanh(z)) = σ(2z): one exponential instead of a tanh.
        Act::Gelu => x * sigmoid(2.0 * SQRT_2_OVER_PI as f32 * x * (1.0 + 0.044715 * x * x)),
        Act::GeluErf => act_f64(Act::GeluErf, x as f64) as f32,
        Act::GeluQuick => x * sigmoid(1.702 * x),
        Act::Relu => x.max(0.0),
        Act::ReluSquared => x.max(0.0) * x.max(0.0),
        Act::Sigmoid => sigmoid(x),
        Act::Tanh => x.tanh(),
    }
}

/// x ← act(x).
pub(super) fn act_all(act: Act, x: &mut [f32]) {
    match act {
        Act::Silu => simd::silu(x),
        Act::Gelu => simd::gelu(x),
        Act::GeluErf => simd::gelu_erf(x),
        Act::GeluQuick => simd::gelu_quick(x),
        Act::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
        Act::ReluSquared => x.iter_mut().for_each(|x| *x = x.max(0.0) * x.max(0.0)),
        Act::Sigmoid => simd::sigmoid(x),
        Act::Tanh => simd::tanh(x),
    }
}

pub(super) fn act_f64(act: Act, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match act {
        Act::Silu => x * sigmoid(x),
        Act::Gelu => 0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)).tanh()),
        Act::GeluErf => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Act::GeluQuick => x * sigmoid(1.702 * x),
        Act::Relu => x.max(0.0),
        Act::ReluSquared => x.max(0.0).powi(2),
        Act::Sigmoid => sigmoid(x),
        Act::Tanh => x.tanh(),
    }
}

/// The error function to 1e-15: Taylor series near zero, continued fraction of erfc beyond.
/// Source: Abramowitz and Stegun 7.1.6 and 7.1.14.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term > sum * 1e-17 && n < 200.0 {
            n += 1.0;
            term *= 2.0 * a * a / (2.0 * n + 1.0);
            sum += term;
        }
        return (sum * (-a * a).exp() * std::f64::consts::FRAC_2_SQRT_PI).copysign(x);
    }
    let fraction = (1..=60).rev().fold(a, |f, n| a + n as f64 / 2.0 / f);
    (1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()).copysign(x)
}

impl Unary {
    /// The flags that pick it in shaders/pointwise.wgsl.
    pub(super) fn flags(self) -> Vec<&'static str> {
        match self {
            Unary::Act(act) => vec!["ACT", act.flag()],
            Unary::Scale(_) => vec!["SCALE"],
            Unary::Softcap(_) => vec!["SOFTCAP"],
            Unary::Clamp(..) => vec!["CLAMP"],
        }
    }

    /// `params.a` and `params.b` there.
    pub(super) fn constants(self) -> (f32, f32) {
        match self {
            Unary::Act(_) => (0.0, 0.0),
            Unary::Scale(s) => (s, 0.0),
            Unary::Softcap(cap) => (cap, 0.0),
            Unary::Clamp(lo, hi) => (lo, hi),
        }
    }

    pub(super) fn eval(self, x: f32) -> f32 {
        match self {
            Unary::Act(act) => act_f32(act, x),
            Unary::Scale(s) => s * x,
            Unary::Softcap(cap) => cap * (x / cap).tanh(),
            Unary::Clamp(lo, hi) => x.clamp(lo, hi),
        }
    }
}

impl Op for Unary {
    const NAME: &str = "unary";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::F32)?;
        Ok(Meta::f32(src[0].shape))
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let n = dst.meta.inner();
        for_chunks(pool, dst.f32(), n, |t, y| {
            let pairs = y.iter_mut().zip(src[0].row(t));
            match *self {
                Unary::Act(act) => pairs.for_each(|(y, x)| *y = act_f32(act, *x)),
                Unary::Scale(s) => pairs.for_each(|(y, x)| *y = s * x),
                Unary::Softcap(cap) => pairs.for_each(|(y, x)| *y = cap * (x / cap).tanh()),
                Unary::Clamp(lo, hi) => pairs.for_each(|(y, x)| *y = x.clamp(lo, hi)),
            }
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (a, b) = self.constants();
        let (rows, n) = (dst.outer(), dst.inner());
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                flags: self.flags(),
                consts: vec![("WG", WG)],
                params: vec![
                    ("rows", rows.into()),
                    ("n", n.into()),
                    ("x_stride", src[0].stride.into()),
                    ("a", a.into()),
                    ("b", b.into()),
                ],
                binds: vec![("x", Bind::Src(0)), ("y", Bind::Dst)],
                workgroups: grid(n, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let f = |x: &f64| match *self {
            Unary::Act(act) => act_f64(act, *x),
            Unary::Scale(s) => s as f64 * x,
            Unary::Softcap(cap) => cap as f64 * (x / cap as f64).tanh(),
            Unary::Clamp(lo, hi) => x.clamp(lo as f64, hi as f64),
        };
        src[0].data.iter().map(f).collect()
    }

    fn cases() -> Vec<Case<Self>> {
        let wide = |shape: [usize; 2]| Input { fill: Fill::Uniform { scale: 9.0, offset: 0.0 }, ..Input::f32(shape) };
        let case = |op, src| Case { op, src: vec![src], nmse: 1e-9 };
        let mut all: Vec<_> = Act::ALL.iter().map(|act| case(Unary::Act(*act), wide([3, 385]))).collect();
        all.push(case(Unary::Scale(0.125), wide([2, 64]).strided(192, 64)));
        all.push(case(
            Unary::Softcap(30.0),
            Input { fill: Fill::Uniform { scale: 200.0, offset: 0.0 }, ..wide([2, 999]) },
        ));
        all.push(case(Unary::Clamp(-1.0, 2.0), wide([70, 128])));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn erf_matches_published_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in
            [(0.1, 0.1124629160182849), (1.0, 0.8427007929497149), (2.0, 0.9953222650189527), (3.0, 0.9999779095030014)]
        {
            assert!((erf(x) - want).abs() < 1e-14, "erf({x}) = {}", erf(x));
            assert!((erf(-x) + want).abs() < 1e-14);
        }
    }
}
