//! Products of chosen experts times the experts' own factors: y[t, u] = scales[ids[t, u]] · x[t, u].
//! Shader: shaders/scale_id.wgsl. Source: NVFP4's second scale, one per expert.

use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Threads, WG, Work, for_chunks, grid};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};

/// Sources: x `[tokens, used, n]`, packed; scales `[experts]`; ids `[tokens, used]` as whole `f32` numbers. Result: as x.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleId;

impl Op for ScaleId {
    const NAME: &str = "scale_id";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src.iter().try_for_each(|m| m.want(Self::NAME, DType::F32))?;
        let (x, ids) = (src[0].shape, src[2].shape);
        let fits = x.dims().len() == 3 && src[0].is_packed() && ids.dims() == &x.dims()[..2];
        if !fits || src[1].shape.dims().len() != 1 {
            return Err(Error::format(format!("scale_id: {src:?} do not fit each other")));
        }
        Ok(Meta::f32(x))
    }

    fn expert_ids(&self) -> Option<usize> {
        Some(2)
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let (used, n) = (dst.meta.shape[1], dst.meta.shape[2]);
        let scales = &src[1].f32()[..src[1].meta.outer()];
        for_chunks(pool, dst.f32(), used * n, |t, y| {
            let rows = y.chunks_mut(n).zip(src[0].row(t).chunks(n)).zip(src[2].row(t));
            for ((y, x), id) in rows {
                let scale = scales[(*id as usize).min(scales.len() - 1)];
                y.iter_mut().zip(x).for_each(|(y, x)| *y = scale * x);
            }
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (used, n) = (dst.shape[1], dst.shape[2]);
        let rows = dst.outer() * used;
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                consts: vec![("WG", WG)],
                params: vec![
                    ("rows", rows.into()),
                    ("n", n.into()),
                    ("used", used.into()),
                    ("experts", src[1].outer().into()),
                    ("ids_stride", src[2].stride.into()),
                ],
                binds: vec![("x", Bind::Src(0)), ("scales", Bind::Src(1)), ("ids", Bind::Src(2)), ("y", Bind::Dst)],
                workgroups: grid(n, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let (used, n) = (src[0].meta.shape[1], src[0].meta.shape[2]);
        let scale = |i: usize| src[1].data[src[2].row(i / used)[i % used] as usize];
        src[0].data.iter().enumerate().map(|(i, x)| scale(i / n) * x).collect()
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |t, u, n, experts| {
            let ids = Input::filled(Meta::f32([t, u]), Fill::Below(experts as u32)).strided(2 * u, 0);
            Case { op: ScaleId, src: vec![Input::f32([t, u, n]), Input::f32([experts]), ids], nmse: 1e-12 }
        };
        vec![case(1, 2, 256, 8), case(7, 4, 100, 16)]
    }
}
