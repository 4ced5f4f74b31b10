//! Gated linear unit: y = act(gate) · up.
//! Shader: shaders/glu.wgsl. Source: arXiv 2002.05202; gpt-oss: y = (clamp(up) + 1) · g · σ(α·g), g = min(gate, limit).

use super::unary::{Act, act_all, act_f32, act_f64};
use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Pass, Threads, WG, Work, for_chunks, grid};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};

/// Sources: gate `[tokens, …, n]`, up of the same shape (both may be strided by token). Result: packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Glu {
    /// An activation times `up`: SwiGLU, GeGLU, ReGLU.
    Plain(Act),
    /// gpt-oss: clamped, with `+1` on `up`.
    Clamped {
        /// Steepness of the sigmoid.
        alpha: f32,
        /// Bound on gate (above) and up (both sides).
        limit: f32,
    },
}

impl Glu {
    /// The flags that pick it in shaders/pointwise.wgsl.
    pub(super) fn flags(self) -> Vec<&'static str> {
        match self {
            Glu::Plain(act) => vec!["GLU", "ACT", act.flag()],
            Glu::Clamped { .. } => vec!["GLU", "CLAMPED"],
        }
    }

    /// `params.a` and `params.b` there.
    pub(super) fn constants(self) -> (f32, f32) {
        match self {
            Glu::Plain(_) => (0.0, 0.0),
            Glu::Clamped { alpha, limit } => (alpha, limit),
        }
    }

    /// y, which holds the gate, becomes the result.
    pub(super) fn apply(self, y: &mut [f32], up: &[f32]) {
        match self {
            Glu::Plain(act) => {
                act_all(act, y);
                y.iter_mut().zip(up).for_each(|(y, u)| *y *= u);
            }
            Glu::Clamped { .. } => y.iter_mut().zip(up).for_each(|(y, u)| *y = self.eval(*y, *u)),
        }
    }

    pub(super) fn eval(self, g: f32, u: f32) -> f32 {
        match self {
            Glu::Plain(act) => act_f32(act, g) * u,
            Glu::Clamped { alpha, limit } => {
                let g = g.min(limit);
                (u.clamp(-limit, limit) + 1.0) * g / (1.0 + (-alpha * g).exp())
            }
        }
    }
}

impl Op for Glu {
    const NAME: &str = "glu";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::F32)?;
        if src[0].shape != src[1].shape {
            return Err(Error::format(format!("glu: gate {:?} and up {:?} differ", src[0], src[1])));
        }
        Ok(Meta::f32(src[0].shape))
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let n = dst.meta.inner();
        // A single token is cut as well, so that its thousands of exponentials use every thread.
        let part = if dst.meta.outer() == 1 { n.div_ceil(pool.threads()).max(256).min(n) } else { n };
        for_chunks(pool, dst.f32(), part, |i, y| {
            let (t, start) = (i * part / n, i * part % n);
            let gate = &src[0].row(t)[start..start + y.len()];
            let up = &src[1].row(t)[start..start + y.len()];
            y.copy_from_slice(gate);
            self.apply(y, up);
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
                    ("gate_stride", src[0].stride.into()),
                    ("up_stride", src[1].stride.into()),
                    ("a", a.into()),
                    ("b", b.into()),
                ],
                binds: vec![("gate", Bind::Src(0)), ("up", Bind::Src(1)), ("y", Bind::Dst)],
                workgroups: grid(n, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let pairs = src[0].data.iter().zip(&src[1].data);
        pairs
            .map(|(g, u)| match *self {
                Glu::Plain(act) => act_f64(act, *g) * u,
                Glu::Clamped { alpha, limit } => {
                    let (alpha, limit) = (alpha as f64, limit as f64);
                    let g = g.min(limit);
                    (u.clamp(-limit, limit) + 1.0) * g / (1.0 + (-alpha * g).exp())
                }
            })
            .collect()
    }

    fn cases() -> Vec<Case<Self>> {
        let wide =
            |shape: [usize; 2]| Input { fill: super::Fill::Uniform { scale: 9.0, offset: 0.0 }, ..Input::f32(shape) };
        let case = |op, src| Case { op, src, nmse: 1e-9 };
        let mut all: Vec<_> =
            Act::ALL.iter().map(|act| case(Glu::Plain(*act), vec![wide([3, 385]), wide([3, 385])])).collect();
        all.push(case(Glu::Clamped { alpha: 1.702, limit: 7.0 }, vec![wide([2, 384]), wide([2, 384])]));
        all.push(case(Glu::Plain(Act::Silu), vec![wide([5, 192]).strided(384, 0), wide([5, 192]).strided(384, 192)]));
        all.push(case(Glu::Plain(Act::Silu), vec![wide([1, 1536]), wide([1, 1536])]));
        all
    }
}
