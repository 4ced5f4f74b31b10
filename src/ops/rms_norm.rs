//! RMS norm: y[i] = x[i] · w[i] / sqrt(mean(x²) + eps), over the last dimension.
//! One workgroup per row. Sums in f32: x² overflows f16 at |x| = 256.
//! Shader: shaders/rms_norm.wgsl. Source: arXiv 1910.07467.

use super::{Bind, Caps, Case, Exact, Input, Kernel, Op, Pass, Threads, Work, for_chunks, line};
use crate::base::{DType, Error, Meta, Result, View, ViewMut};
use crate::simd;

/// Sources: x `[tokens, …, dim]`, optional weight `[dim]` or `[heads, dim]` (row `r` of x uses weight row `r mod heads`).
/// Result: as x, packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RmsNorm {
    /// Added to the mean square.
    pub eps: f32,
}

/// Checks a norm's sources and gives its result: as x, packed. Shared with layer norm.
pub(super) fn infer_norm(name: &str, src: &[Meta]) -> Result<Meta> {
    src[0].want(name, DType::F32)?;
    for w in &src[1..] {
        w.want(name, DType::F32)?;
        if w.shape.row() != src[0].shape.row() || !src[0].shape.rows().is_multiple_of(w.shape.rows()) {
            return Err(Error::format(format!("{name}: weight {w:?} does not fit {:?}", src[0])));
        }
    }
    Ok(Meta::f32(src[0].shape))
}

/// The rows of x `[tokens, heads…, dim]` in order, whatever its stride.
pub(super) fn norm_row<'a>(x: &View<'a>, r: usize) -> &'a [f32] {
    let dim = x.meta.shape.row();
    let per_token = (x.meta.inner() / dim).max(1);
    &x.row(r / per_token)[r % per_token * dim..][..dim]
}

/// What meets row `r`, of `dim` values, of the weights or biases of all rows of a token.
pub(super) fn part_of<'a>(all: Option<&View<'a>>, r: usize, dim: usize) -> Option<&'a [f32]> {
    all.map(|w| &w.f32()[r % w.meta.shape.rows() * dim..][..dim])
}

impl RmsNorm {
    /// Normalises one row in place.
    pub(super) fn row(&self, y: &mut [f32], weight: Option<&[f32]>) {
        let scale = 1.0 / (simd::dot(y, y) / y.len() as f32 + self.eps).sqrt();
        match weight {
            Some(w) => y.iter_mut().zip(w).for_each(|(y, w)| *y = *y * scale * w),
            None => y.iter_mut().for_each(|y| *y *= scale),
        }
    }
}

/// Values of a row that a thread keeps in registers.
const HELD: u32 = 32;

/// How a row of `n` values is shared on a GPU, as constants and flags: heads are short, and few threads meet faster.
pub(super) fn norm_threads(n: usize) -> (Vec<(&'static str, u32)>, Vec<&'static str>) {
    let threads = if n <= 512 { 64 } else { 256 };
    let trips = (n as u32).div_ceil(threads);
    (vec![("WG", threads), ("TRIPS", trips)], if trips <= HELD { vec!["HELD"] } else { vec![] })
}

impl Op for RmsNorm {
    const NAME: &str = "rms_norm";

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
            self.row(y, part_of(src.get(1), r, dim));
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
        Kernel::reductions(pass, caps)
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let dim = src[0].meta.shape.row();
        let rows = src[0].data.chunks(dim).enumerate();
        rows.flat_map(|(r, x)| {
            let mean = x.iter().map(|v| v * v).sum::<f64>() / dim as f64;
            let scale = 1.0 / (mean + self.eps as f64).sqrt();
            let w = src.get(1).map(|w| &w.data[r % w.meta.shape.rows() * dim..][..dim]);
            x.iter().enumerate().map(move |(i, v)| v * scale * w.map_or(1.0, |w| w[i]))
        })
        .collect()
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |src| Case { op: RmsNorm { eps: 1e-5 }, src, nmse: 1e-10 };
        vec![
            case(vec![Input::f32([3, 576]), Input::f32([576])]),
            case(vec![Input::f32([1, 4096]), Input::f32([4096])]),
            case(vec![Input::f32([5, 33])]),
            case(vec![Input::f32([2, 8200]), Input::f32([8200])]),
            case(vec![Input::f32([4, 3, 64]).strided(320, 64), Input::f32([64])]),
            case(vec![Input::f32([4, 4, 64]), Input::f32([4, 64])]),
        ]
    }
}
