//! Weighted sum over the chosen experts: y[t] = scale · Σ_u w[t, u] · x[t, u] (+ residual[t]).
//! Shader: shaders/combine.wgsl. Source: arXiv 1701.06538.

use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Pass, Threads, WG, Work, for_chunks, grid};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use crate::simd;

/// Sources: x `[tokens, used, n]`, weights `[tokens, used]`, optional residual `[tokens, n]`. Result: `[tokens, n]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Combine {
    /// Factor on the sum.
    pub scale: f32,
}

impl Op for Combine {
    const NAME: &str = "combine";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::F32)?;
        src[1].want(Self::NAME, DType::F32)?;
        let (x, w) = (src[0].shape, src[1].shape);
        let beside = src.get(2).is_none_or(|r| r.dtype == DType::F32 && r.shape.dims() == [x[0], x[2]]);
        if x.dims().len() != 3 || w.dims() != &x.dims()[..2] || !beside {
            return Err(Error::format(format!("combine: weights {w:?} do not fit {x:?}")));
        }
        Ok(Meta::f32([x[0], x[2]]))
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let n = dst.meta.inner();
        for_chunks(pool, dst.f32(), n, |t, y| {
            match src.get(2) {
                Some(residual) => y.copy_from_slice(residual.row(t)),
                None => y.fill(0.0),
            }
            for (x, w) in src[0].row(t).chunks(n).zip(src[1].row(t)) {
                simd::axpy(self.scale * w, x, y);
            }
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, n) = (dst.outer(), dst.inner());
        let mut pass = Pass {
            shader: Self::NAME,
            consts: vec![("WG", WG)],
            params: vec![
                ("rows", rows.into()),
                ("n", n.into()),
                ("used", src[1].inner().into()),
                ("x_stride", src[0].stride.into()),
                ("w_stride", src[1].stride.into()),
                ("scale", self.scale.into()),
            ],
            binds: vec![("x", Bind::Src(0)), ("w", Bind::Src(1)), ("y", Bind::Dst)],
            workgroups: grid(n, rows, caps),
            ..Pass::default()
        };
        if let Some(residual) = src.get(2) {
            pass.flags.push("ADD");
            pass.params.push(("residual_stride", residual.stride.into()));
            pass.binds.push(("residual", Bind::Src(2)));
        }
        vec![Kernel::single("plain", pass)]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let n = src[0].meta.shape.row();
        let mut y = vec![0.0; src[1].meta.outer() * n];
        for (t, y) in y.chunks_mut(n).enumerate() {
            for (x, w) in src[0].row(t).chunks(n).zip(src[1].row(t)) {
                y.iter_mut().zip(x).for_each(|(y, x)| *y += self.scale as f64 * w * x);
            }
            if let Some(residual) = src.get(2) {
                y.iter_mut().zip(residual.row(t)).for_each(|(y, r)| *y += r);
            }
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |t, u, n, residual: bool| {
            let mut src = vec![Input::f32([t, u, n]), Input::f32([t, u]).strided(2 * u, u)];
            src.extend(residual.then(|| Input::f32([t, n])));
            Case { op: Combine { scale: if residual { 0.5 } else { 1.0 } }, src, nmse: 1e-10 }
        };
        vec![case(1, 2, 256, false), case(5, 8, 300, false), case(40, 2, 256, false), case(3, 4, 128, true)]
    }
}
