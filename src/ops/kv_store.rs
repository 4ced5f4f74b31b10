//! Writes the batch's keys or values into the cache: cache[pos[t]] = x[t], rounded to the cache's type.
//! Shader: shaders/kv_store.wgsl.

use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Pool, WG, grid};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use half::f16;

/// Sources: cache `[cells, heads, dim]` `f16` or `f32` (updated in place), x `[tokens, heads, dim]`, positions `[tokens]` `u32`,
/// each below `cells`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KvStore;

impl Op for KvStore {
    const NAME: &str = "kv_store";
    const IN_PLACE: Option<usize> = Some(0);

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[1].want(Self::NAME, DType::F32)?;
        src[2].want(Self::NAME, DType::U32)?;
        if !matches!(src[0].dtype, DType::F16 | DType::F32) {
            return Err(Error::unsupported(format!("the KV cache cannot be {}", src[0].dtype)).help("use f16 or f32"));
        }
        if src[0].inner() != src[1].inner() || !src[0].inner().is_multiple_of(2) {
            return Err(Error::format(format!("kv_store: {:?} does not fit the cache {:?}", src[1], src[0])));
        }
        Ok(src[0])
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, _pool: &dyn Pool) {
        let n = dst.meta.inner();
        for (t, pos) in src[2].u32().iter().enumerate() {
            let cell = *pos as usize * n;
            let x = src[1].row(t);
            match dst.meta.dtype {
                DType::F32 => dst.f32()[cell..cell + n].copy_from_slice(x),
                _ => {
                    let cells: &mut [f16] = bytemuck::cast_slice_mut(dst.data);
                    cells[cell..cell + n].iter_mut().zip(x).for_each(|(y, x)| *y = f16::from_f32(*x));
                }
            }
        }
    }

    fn gpu(&self, src: &[Meta], dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let (rows, n) = (src[1].outer(), dst.inner());
        vec![Kernel::single(
            "plain",
            Pass {
                shader: Self::NAME,
                flags: if dst.dtype == DType::F16 { vec!["F16_CACHE"] } else { Vec::new() },
                consts: vec![("WG", WG)],
                params: vec![
                    ("rows", rows.into()),
                    ("n", n.into()),
                    ("cells", dst.outer().into()),
                    ("x_stride", src[1].stride.into()),
                ],
                binds: vec![("x", Bind::Src(1)), ("pos", Bind::Src(2)), ("cache", Bind::Dst)],
                workgroups: grid(n / 2, rows, caps),
                ..Pass::default()
            },
        )]
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let mut cache = src[0].data.clone();
        let n = src[0].meta.inner();
        for (t, pos) in src[2].data.iter().enumerate() {
            cache[*pos as usize * n..][..n].copy_from_slice(src[1].row(t));
        }
        cache
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |dtype, cells: usize, tokens: usize, heads: usize, dim: usize, start| Case {
            op: KvStore,
            src: vec![
                Input::uniform(Meta::new(dtype, [cells, heads, dim])),
                Input::f32([tokens, heads, dim]).strided(3 * heads * dim, heads * dim),
                Input::filled(Meta::new(DType::U32, [tokens]), Fill::Count(start)),
            ],
            nmse: if dtype == DType::F32 { 0.0 } else { 1e-6 },
        };
        vec![case(DType::F16, 40, 3, 2, 64, 7), case(DType::F32, 33, 1, 3, 64, 32), case(DType::F16, 64, 64, 1, 80, 0)]
    }
}
