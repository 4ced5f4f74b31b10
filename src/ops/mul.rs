//! Product: y = a · b. Per-channel factors, and per-token gates (Qwen2-MoE's shared expert).
//! Shader: shaders/mul.wgsl.

use super::add::{infer_pair, pair_row, pair_stride};
use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Pass, Threads, WG, Work, for_chunks, grid};
use crate::base::{Meta, Result, View, ViewMut};

/// Sources: a `[tokens, …]`; b of the same shape, or one row that all tokens share, or `[tokens, 1]`, one factor per token.
/// Result: as a, packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mul;

/// Whether b holds one factor per token.
fn per_token(a: &Meta, b: &Meta) -> bool {
    b.shape.dims() == [a.outer(), 1] && a.inner() != 1
}

impl Op for Mul {
    const NAME: &str = "mul";

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        if per_token(&src[0], &src[1]) {
            return Ok(Meta::f32(src[0].shape));
        }
        infer_pair(Self::NAME, src)
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let n = dst.meta.inner();
        let gates = per_token(&src[0].meta, &src[1].meta);
        for_chunks(pool, dst.f32(), n, |t, y| {
            let a = src[0].row(t);
            if gates {
                let b = src[1].row(t)[0];
                return y.iter_mut().zip(a).for_each(|(y, a)| *y = a * b);
            }
            let b = pair_row(&src[0].meta, &src[1], t);
            y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = a * b);
        });
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, n) = (dst.outer(), dst.inner());
        let gates = per_token(&src[0], &src[1]);
        let b_stride = if gates { src[1].stride } else { pair_stride(&src[0], &src[1]) };
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                consts: vec![("WG", WG)],
                params: vec![
                    ("rows", rows.into()),
                    ("n", n.into()),
                    ("a_stride", src[0].stride.into()),
                    ("b_stride", b_stride.into()),
                    ("b_step", usize::from(!gates).into()),
                ],
                binds: vec![("a", Bind::Src(0)), ("b", Bind::Src(1)), ("y", Bind::Dst)],
                workgroups: grid(n, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let n = src[0].meta.inner();
        let gates = per_token(&src[0].meta, &src[1].meta);
        let b = |i: usize| if gates { src[1].data[i / n] } else { src[1].data[i % src[1].data.len()] };
        src[0].data.iter().enumerate().map(|(i, a)| a * b(i)).collect()
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |src| Case { op: Mul, src, nmse: 1e-12 };
        vec![
            case(vec![Input::f32([3, 577]), Input::f32([3, 577])]),
            case(vec![Input::f32([70, 256]), Input::f32([256])]),
            case(vec![Input::f32([9, 256]), Input::f32([9, 1])]),
            case(vec![Input::f32([1, 256]), Input::f32([1, 1])]),
            case(vec![Input::f32([4, 64]).strided(192, 128), Input::f32([4, 64]).strided(96, 32)]),
        ]
    }
}
