//! Weighted sum over the chosen experts: y[t] = Σ_u w[t, u] · x[t, u].
//! Shader: shaders/combine.wgsl. Source: arXiv 1701.06538.

use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Pass, Pool, WG, for_chunks, grid};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use crate::simd;

/// Sources: x `[tokens, used, n]`, weights `[tokens, used]`. Result: `[tokens, n]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Combine;

impl Op for Combine {
    const NAME: &str = "combine";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::F32)?;
        src[1].want(Self::NAME, DType::F32)?;
        let (x, w) = (src[0].shape, src[1].shape);
        if x.dims().len() != 3 || w.dims() != &x.dims()[..2] {
            return Err(Error::format(format!("combine: weights {w:?} do not fit {x:?}")));
        }
        Ok(Meta::f32([x[0], x[2]]))
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Pool) {
        let n = dst.meta.inner();
        for_chunks(pool, dst.f32(), n, |t, y| {
            y.fill(0.0);
            for (x, w) in src[0].row(t).chunks(n).zip(src[1].row(t)) {
                simd::axpy(*w, x, y);
            }
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, n) = (dst.outer(), dst.inner());
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                consts: vec![("WG", WG)],
                params: vec![
                    ("rows", rows.into()),
                    ("n", n.into()),
                    ("used", src[1].inner().into()),
                    ("x_stride", src[0].stride.into()),
                    ("w_stride", src[1].stride.into()),
                ],
                binds: vec![("x", Bind::Src(0)), ("w", Bind::Src(1)), ("y", Bind::Dst)],
                workgroups: grid(n, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let n = src[0].meta.shape.row();
        let mut y = vec![0.0; src[1].meta.outer() * n];
        for (t, y) in y.chunks_mut(n).enumerate() {
            for (x, w) in src[0].row(t).chunks(n).zip(src[1].row(t)) {
                y.iter_mut().zip(x).for_each(|(y, x)| *y += w * x);
            }
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |t, u, n| Case {
            op: Combine,
            src: vec![Input::f32([t, u, n]), Input::f32([t, u]).strided(2 * u, u)],
            nmse: 1e-10,
        };
        vec![case(1, 2, 256), case(5, 8, 300), case(40, 2, 256)]
    }
}
