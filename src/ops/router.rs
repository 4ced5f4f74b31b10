//! Mixture-of-experts router: scores, choice of the best `used` experts, their weights.
//! score = softmax(x) | σ(x) | x; choice by score + bias; weights from the scores without the bias.
//! Ties go to the lower expert. Shader: shaders/router.wgsl. Source: arXiv 1701.06538, 2401.04088; sigmoid and bias 2412.19437.

use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Threads, Work, for_chunks};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};

/// How scores come from the router's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
    /// The choice by logits; softmax over the chosen (gpt-oss).
    SoftmaxOfChosen,
}

/// Sources: logits `[tokens, experts]`, optional bias `[experts]` for the choice.
/// Result: `[tokens, 2·used]`: the chosen expert ids as whole numbers, best first, then their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Router {
    /// How scores come about.
    pub gate: Gate,
    /// Experts chosen per token.
    pub used: usize,
    /// Divide the weights by their sum.
    pub normalize: bool,
    /// Factor on the weights.
    pub scale: f32,
}

/// Smallest sum that weights are divided by: f16's smallest normal number, as the models' own code has it.
pub const MIN_SUM: f32 = 6.103_515_6e-5;

impl Router {
    /// One token, in f64: `out[..used]` ids, `out[used..]` weights.
    fn route(&self, logits: &[f64], bias: Option<&[f64]>, out: &mut [f64]) {
        let max = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
        let score = |e: usize| match self.gate {
            Gate::Softmax => (logits[e] - max).exp() / sum,
            Gate::Sigmoid => 1.0 / (1.0 + (-logits[e]).exp()),
            Gate::SoftmaxOfChosen => logits[e],
        };
        let key = |e: usize| score(e) + bias.map_or(0.0, |b| b[e]);
        let (ids, weights) = out.split_at_mut(self.used);
        for u in 0..self.used {
            let (chosen, _) = ids.split_at(u);
            let free = (0..logits.len()).filter(|e| !chosen.contains(&(*e as f64)));
            let best = free.reduce(|a, b| if key(b) > key(a) { b } else { a }).expect("more experts than are used");
            ids[u] = best as f64;
            weights[u] = score(best);
        }
        if self.gate == Gate::SoftmaxOfChosen {
            let max = weights.iter().copied().fold(f64::MIN, f64::max);
            weights.iter_mut().for_each(|w| *w = (*w - max).exp());
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        let norm = if self.normalize { weights.iter().sum::<f64>().max(MIN_SUM as f64) } else { 1.0 };
        weights.iter_mut().for_each(|w| *w *= self.scale as f64 / norm);
    }
}

impl Op for Router {
    const NAME: &str = "router";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::F32)?;
        let experts = src[0].shape.row();
        if self.used == 0 || self.used > experts {
            return Err(Error::format(format!("router: {} of {experts} experts cannot be used", self.used)));
        }
        if let Some(bias) = src.get(1) {
            bias.want(Self::NAME, DType::F32)?;
        }
        Ok(Meta::f32([src[0].outer(), 2 * self.used]))
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    // A few hundred scores per token: f64 costs nothing here and keeps close calls as the definition has them.
    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let bias: Option<Vec<f64>> = src.get(1).map(|b| b.f32().iter().map(|v| *v as f64).collect());
        for_chunks(pool, dst.f32(), 2 * self.used, |t, y| {
            let logits: Vec<f64> = src[0].row(t).iter().map(|v| *v as f64).collect();
            let mut out = vec![0.0; 2 * self.used];
            self.route(&logits, bias.as_deref(), &mut out);
            y.iter_mut().zip(out).for_each(|(y, v)| *y = v as f32);
        });
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let mut flags = match self.gate {
            Gate::Softmax => vec!["SOFTMAX"],
            Gate::Sigmoid => vec!["SIGMOID"],
            Gate::SoftmaxOfChosen => vec!["OF_CHOSEN"],
        };
        flags.extend((src.len() > 1).then_some("BIAS"));
        flags.extend(self.normalize.then_some("NORMALIZE"));
        let mut pass = Pass {
            shader: "router",
            flags,
            consts: vec![("WG", 64), ("EXPERTS", src[0].shape.row() as u32), ("USED", self.used as u32)],
            params: vec![("x_stride", src[0].stride.into()), ("scale", self.scale.into())],
            binds: vec![("x", Bind::Src(0)), ("y", Bind::Dst)],
            workgroups: [src[0].outer() as u32, 1, 1],
            ..Pass::default()
        };
        pass.binds.extend((src.len() > 1).then_some(("bias", Bind::Src(1))));
        Kernel::reductions(pass, caps)
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let tokens = src[0].meta.outer();
        let mut y = vec![0.0; tokens * 2 * self.used];
        for (t, out) in y.chunks_mut(2 * self.used).enumerate() {
            self.route(src[0].row(t), src.get(1).map(|b| b.data.as_slice()), out);
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |gate, used, normalize, scale, experts: usize, tokens: usize, bias: bool| {
            let mut src =
                vec![Input { fill: Fill::Uniform { scale: 4.0, offset: 0.0 }, ..Input::f32([tokens, experts]) }];
            src.extend(bias.then(|| Input::f32([experts])));
            Case { op: Router { gate, used, normalize, scale }, src, nmse: 1e-10 }
        };
        let ties = |gate, experts: usize, fill| Case {
            op: Router { gate, used: 9, normalize: true, scale: 1.0 },
            src: vec![Input { fill, ..Input::f32([6, experts]) }],
            nmse: 1e-10,
        };
        vec![
            case(Gate::Softmax, 2, true, 1.0, 8, 5, false),
            case(Gate::Softmax, 8, false, 1.0, 128, 40, false),
            case(Gate::Sigmoid, 6, true, 2.5, 160, 3, true),
            case(Gate::SoftmaxOfChosen, 4, false, 1.0, 32, 7, false),
            case(Gate::Softmax, 1, true, 1.0, 300, 1, false),
            ties(Gate::Softmax, 40, Fill::Below(3)),
            // -0, 0, -1, 1: zeros are equal.
            ties(
                Gate::SoftmaxOfChosen,
                30,
                Fill::Words(&[0x8000_0000, 0, 0xbf80_0000, 0x3f80_0000, 0, 0x8000_0000, 0]),
            ),
        ]
    }
}
