//! A norm of what a block gives, added to the hidden state: y = residual + scale · norm(x). One workgroup per token.
//! `graph::fuse` makes it from `rms_norm` and `add`. Shader: shaders/rms_norm.wgsl. Source: arXiv 2408.00118 (norms after blocks).

use super::{Add, Bind, Caps, Case, Exact, Input, Kernel, Op, RmsNorm, Threads, Work, for_chunks};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use crate::simd;

/// Sources: x `[tokens, n]`, residual `[tokens, n]`, the norm's weight `[n]`. Result: `[tokens, n]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormAdd {
    /// Added to the mean square.
    pub eps: f32,
    /// Factor on the norm.
    pub scale: f32,
}

impl Op for NormAdd {
    const NAME: &str = "norm_add";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        let y = RmsNorm { eps: self.eps }.infer(&[src[0], src[2]])?;
        if src[0].shape.dims().len() != 2 || src[1].dtype != DType::F32 || src[1].shape != y.shape {
            return Err(Error::format(format!("norm_add: {:?} does not fit {:?}", src[1], src[0])));
        }
        Ok(y)
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let n = dst.meta.inner();
        for_chunks(pool, dst.f32(), n, |t, y| {
            let x = src[0].row(t);
            let scale = self.scale / (simd::dot(x, x) / n as f32 + self.eps).sqrt();
            let values = x.iter().zip(src[1].row(t)).zip(src[2].f32());
            y.iter_mut().zip(values).for_each(|(y, ((x, r), w))| *y = r + scale * x * w);
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let mut kernels = RmsNorm { eps: self.eps }.gpu(&[src[0], src[2]], dst, caps);
        for kernel in &mut kernels {
            *kernel = kernel.clone().rebind(|b| if b == Bind::Src(1) { Bind::Src(2) } else { b });
            for pass in &mut kernel.passes {
                pass.flags.push("ADD");
                pass.params.extend([("residual_stride", src[1].stride.into()), ("scale", self.scale.into())]);
                pass.binds.push(("residual", Bind::Src(1)));
            }
        }
        kernels
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let normed = RmsNorm { eps: self.eps }.oracle(&[src[0].clone(), src[2].clone()]);
        let normed = Exact { meta: src[0].meta, data: normed };
        Add { scale: self.scale }.oracle(&[src[1].clone(), normed])
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |tokens: usize, n: usize, scale| Case {
            op: NormAdd { eps: 1e-6, scale },
            src: vec![Input::f32([tokens, n]), Input::f32([tokens, n]).strided(n + 32, 0), Input::f32([n])],
            nmse: 1e-10,
        };
        vec![case(1, 2304, 1.0), case(5, 640, 1.0), case(9, 100, 0.25)]
    }
}
