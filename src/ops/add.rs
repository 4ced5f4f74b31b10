//! Sum: y = a + scale · b. Residuals (Granite and MiniCPM scale the branch), biases and position embeddings.
//! Shader: shaders/add.wgsl.

use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Pass, Threads, WG, Work, for_chunks, grid};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};

/// Sources: a `[tokens, …]`, b of the same shape, or one row that all tokens share. Result: as a, packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Add {
    /// Factor on b.
    pub scale: f32,
}

/// Checks the sources of an elementwise pair: equal shapes, or b is `[inner]` (shared by all tokens).
pub(super) fn infer_pair(name: &str, src: &[Meta]) -> Result<Meta> {
    src[0].want(name, DType::F32)?;
    src[1].want(name, DType::F32)?;
    if src[0].shape.elements() != src[1].shape.elements() && src[1].shape.elements() != src[0].inner() {
        return Err(Error::format(format!("{name}: {:?} does not fit {:?}", src[1], src[0])));
    }
    Ok(Meta::f32(src[0].shape))
}

/// Row `t` of b, or the one row that all share.
pub(super) fn pair_row<'a>(a: &Meta, b: &View<'a>, t: usize) -> &'a [f32] {
    if b.meta.shape.elements() == a.inner() { &b.f32()[..a.inner()] } else { b.row(t) }
}

/// Elements from one row of b to the next: none if all share one.
pub(super) fn pair_stride(a: &Meta, b: &Meta) -> usize {
    if b.shape.elements() == a.inner() { 0 } else { b.stride }
}

impl Op for Add {
    const NAME: &str = "add";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        infer_pair(Self::NAME, src)
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let n = dst.meta.inner();
        for_chunks(pool, dst.f32(), n, |t, y| {
            let (a, b) = (src[0].row(t), pair_row(&src[0].meta, &src[1], t));
            y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = a + self.scale * b);
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
                    ("a_stride", src[0].stride.into()),
                    ("b_stride", pair_stride(&src[0], &src[1]).into()),
                    ("scale", self.scale.into()),
                ],
                binds: vec![("a", Bind::Src(0)), ("b", Bind::Src(1)), ("y", Bind::Dst)],
                workgroups: grid(n, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let b = src[1].data.iter().cycle();
        src[0].data.iter().zip(b).map(|(a, b)| a + self.scale as f64 * b).collect()
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |scale, src| Case { op: Add { scale }, src, nmse: 1e-12 };
        vec![
            case(1.0, vec![Input::f32([3, 577]), Input::f32([3, 577])]),
            case(0.25, vec![Input::f32([70, 256]), Input::f32([256])]),
            case(1.0, vec![Input::f32([4, 64]).strided(192, 128), Input::f32([4, 64]).strided(96, 32)]),
        ]
    }
}
