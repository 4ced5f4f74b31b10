//! Layer norm: y = (x − mean(x)) / sqrt(var(x) + eps) · w + b, over the last dimension.
//! The variance is taken around the mean in a second pass: E[x²] − E[x]² cancels in f32.
//! Shader: shaders/layer_norm.wgsl. Source: arXiv 1607.06450.

use super::rms_norm::{infer_norm, norm_row, norm_threads, part_of};
use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Pass, Threads, Work, for_chunks, line};
use crate::base::{Meta, Result, View, ViewMut};

/// Sources: x `[tokens, …, dim]`, optional weight and bias, each `[dim]` or `[heads, dim]`. Result: as x, packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm {
    /// Normalises one row in place.
    pub(super) fn row(&self, y: &mut [f32], weight: Option<&[f32]>, bias: Option<&[f32]>) {
        let mean = y.iter().sum::<f32>() / y.len() as f32;
        let var = y.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / y.len() as f32;
        let scale = 1.0 / (var + self.eps).sqrt();
        y.iter_mut().for_each(|y| *y = (*y - mean) * scale);
        if let Some(w) = weight {
            y.iter_mut().zip(w).for_each(|(y, w)| *y *= w);
        }
        if let Some(b) = bias {
            y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
        }
    }
}

impl Op for LayerNorm {
    const NAME: &str = "layer_norm";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        infer_norm(Self::NAME, src)
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let dim = dst.meta.shape.row();
        for_chunks(pool, dst.f32(), dim, |r, y| {
            y.copy_from_slice(norm_row(&src[0], r));
            self.row(y, part_of(src.get(1), r, dim), part_of(src.get(2), r, dim));
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, n) = (dst.shape.rows(), dst.shape.row());
        let (consts, flags) = norm_threads(n);
        let mut pass = Pass {
            shader: Self::NAME,
            flags,
            consts,
            params: vec![
                ("rows", rows.into()),
                ("n", n.into()),
                ("heads", (dst.inner() / n).max(1).into()),
                ("x_stride", src[0].stride.into()),
                ("eps", self.eps.into()),
            ],
            binds: vec![("x", Bind::Src(0)), ("y", Bind::Dst)],
            workgroups: line(rows, caps),
            ..Pass::default()
        };
        if let Some(w) = src.get(1) {
            pass.flags.push("WEIGHT");
            pass.params.push(("w_rows", w.shape.rows().into()));
            pass.binds.push(("w", Bind::Src(1)));
        }
        if let Some(b) = src.get(2) {
            pass.flags.push("BIAS");
            pass.params.push(("b_rows", b.shape.rows().into()));
            pass.binds.push(("b", Bind::Src(2)));
        }
        Kernel::reductions(pass, caps)
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let dim = src[0].meta.shape.row();
        let at = |i: usize, r: usize, c: usize, default: f64| {
            src.get(i).map_or(default, |w| w.data[r % w.meta.shape.rows() * dim + c])
        };
        let mut y = Vec::new();
        for (r, x) in src[0].data.chunks(dim).enumerate() {
            let mean = x.iter().sum::<f64>() / dim as f64;
            let var = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / dim as f64;
            let scale = 1.0 / (var + self.eps as f64).sqrt();
            y.extend(x.iter().enumerate().map(|(c, v)| (v - mean) * scale * at(1, r, c, 1.0) + at(2, r, c, 0.0)));
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |src| Case { op: LayerNorm { eps: 1e-5 }, src, nmse: 1e-9 };
        vec![
            case(vec![Input::f32([3, 256]), Input::f32([256]), Input::f32([256])]),
            case(vec![Input::f32([2, 2048]), Input::f32([2048])]),
            case(vec![Input::f32([5, 33])]),
            case(vec![Input::f32([4, 4, 64]).strided(512, 64), Input::f32([4, 64])]),
            case(vec![
                Input::filled(Meta::f32([2, 300]), super::Fill::Uniform { scale: 1.0, offset: 30.0 }),
                Input::f32([300]),
                Input::f32([300]),
            ]),
        ]
    }
}
