//! Moves the positions past the batch: pos[0] = pos[last] + 1, so that the next token needs nothing from the host.
//! Shader: shaders/advance.wgsl.

use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Pool};
use crate::base::{DType, Meta, Result, View, ViewMut};

/// Source: positions `[tokens]` `u32`, updated in place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Advance;

impl Op for Advance {
    const NAME: &str = "advance";
    const IN_PLACE: Option<usize> = Some(0);

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::U32)?;
        Ok(src[0])
    }

    fn cpu(&self, _src: &[View], mut dst: ViewMut, _pool: &dyn Pool) {
        let pos = dst.u32();
        pos[0] = pos[pos.len() - 1] + 1;
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, _caps: &Caps) -> Vec<Kernel> {
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                params: vec![("last", (src[0].outer() - 1).into())],
                binds: vec![("pos", Bind::Dst)],
                workgroups: [1, 1, 1],
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let mut pos = src[0].data.clone();
        pos[0] = pos[pos.len() - 1] + 1.0;
        pos
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |n: usize| Case {
            op: Advance,
            src: vec![Input::filled(Meta::new(DType::U32, [n]), Fill::Count(41))],
            nmse: 0.0,
        };
        vec![case(1), case(7)]
    }
}
