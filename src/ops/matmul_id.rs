//! Matrix product with chosen experts: y[t, u] = w[ids[t, u]] · x[t, u] (+ bias[ids[t, u]]).
//! CPU: tokens are grouped by expert, so that each expert's weights are read once per batch.
//! GPU: for a few tokens each (token, used) pair on its own, for many the pairs sorted by expert, in tiles.
//! Shaders: shaders/matmul_vec.wgsl, shaders/matmul_tile.wgsl, shaders/matmul_id_sort.wgsl, shaders/quant/*.wgsl. Source: arXiv 1701.06538.

use super::linear::Linear;
use super::matmul::{ACTIVATIONS, multiply, tolerance};
use super::product::Product;
use super::work::chosen;
use super::{Caps, Case, Exact, Fill, Input, Kernel, Op, Threads, WeightLayout, Work};
use crate::base::{DType, Error, Meta, Result, Role, View, ViewMut};
use crate::quant::{self, Precision};

/// Sources: w `[experts, n, k]`, x `[tokens, k]` (all experts see the same) or `[tokens, used, k]`, ids `[tokens, used]` as whole
/// `f32` numbers, optional bias `[experts, n]`. Result: `[tokens, used, n]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatMulId;

/// The CPU code, with activations rounded to `precision` where weights are quantized.
pub(super) fn multiply_chosen(
    src: &[View],
    mut dst: ViewMut,
    (precision, role): (Precision, Role),
    pool: &dyn Threads,
) {
    let (w, x, ids) = (&src[0], &src[1], &src[2]);
    let (experts, n, k) = (w.meta.shape[0], w.meta.shape[1], w.meta.shape[2]);
    let used = ids.meta.shape[1];
    let shared = x.meta.shape.dims().len() == 2;
    let input = |i: usize| if shared { x.row(i / used) } else { &x.row(i / used)[i % used * k..][..k] };
    let y = dst.f32();
    let scratch = &mut (Vec::new(), Vec::new(), Vec::new());
    let (chosen, gathered, product): &mut (Vec<usize>, Vec<f32>, Vec<f32>) = scratch;
    for expert in 0..experts {
        chosen.clear();
        chosen.extend((0..ids.meta.outer() * used).filter(|i| ids.row(i / used)[i % used] as usize == expert));
        if chosen.is_empty() {
            continue;
        }
        gathered.clear();
        chosen.iter().for_each(|i| gathered.extend_from_slice(input(*i)));
        product.resize(chosen.len() * n, 0.0);
        ACTIVATIONS.with_borrow_mut(|acts| {
            acts.fill(pool, (w.meta.dtype, precision, role), gathered, [k, chosen.len(), k]);
            multiply(std::slice::from_ref(w), expert, acts, product, n, None, pool);
        });
        let bias = src.get(3).map(|b| b.row(expert));
        for (i, product) in chosen.iter().zip(product.chunks(n)) {
            let y = &mut y[i * n..][..n];
            y.copy_from_slice(product);
            y.iter_mut().zip(bias.into_iter().flatten()).for_each(|(y, b)| *y += b);
        }
    }
}

impl Op for MatMulId {
    const NAME: &str = "matmul_id";

    fn weight_layout(&self, src: usize) -> WeightLayout {
        if src == 0 { WeightLayout::Packed } else { WeightLayout::Rows }
    }

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        let (w, x, ids) = (&src[0], &src[1], &src[2]);
        x.want(Self::NAME, DType::F32)?;
        ids.want(Self::NAME, DType::F32)?;
        let shared = x.shape.dims().len() == 2;
        let fits = w.shape.dims().len() == 3
            && w.shape.row() == x.shape.row()
            && x.outer() == ids.outer()
            && (shared || x.shape[1] == ids.shape[1]);
        if !fits {
            return Err(Error::format(format!(
                "matmul_id: experts {w:?} do not fit activations {x:?} and ids {ids:?}"
            )));
        }
        if !quant::is_supported(w.dtype) {
            return Err(quant::unsupported(w.dtype));
        }
        Ok(Meta::f32([x.outer(), ids.shape[1], w.shape[1]]))
    }

    fn expert_ids(&self) -> Option<usize> {
        Some(2)
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        let operations = 2.0 * (dst.shape.elements() * src[0].shape.row()) as f64;
        let mut work = Work::of_products(src, dst, src[0].dtype, operations);
        let part = chosen(&src[0], &src[2]);
        work.sources[0] *= part;
        work.sources.iter_mut().skip(3).for_each(|bias| *bias *= part);
        work
    }

    fn tuning_class(&self, src: &[Meta]) -> Option<String> {
        Linear::alone(true, src.len() > 3, src[1].outer()).tuning_class(src)
    }

    fn cpu(&self, src: &[View], dst: ViewMut, pool: &dyn Threads) {
        multiply_chosen(src, dst, (Precision::Sixteen, Role::Prompt), pool);
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        Product::new(&Linear::alone(true, src.len() > 3, src[1].outer()), src, caps).kernels()
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let (w, x, ids) = (&src[0], &src[1], &src[2]);
        let (n, k, used) = (w.meta.shape[1], w.meta.shape[2], ids.meta.shape[1]);
        let shared = x.meta.shape.dims().len() == 2;
        let mut y = Vec::new();
        for (i, id) in ids.data.iter().enumerate() {
            let x = if shared { x.row(i / used) } else { &x.data[i * k..(i + 1) * k] };
            for r in 0..n {
                let row = &w.data[(*id as usize * n + r) * k..][..k];
                let bias = src.get(3).map_or(0.0, |b| b.data[*id as usize * n + r]);
                y.push(row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>() + bias);
            }
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |dtype, [experts, n, k, tokens, used]: [usize; 5], shared: bool, bias: bool| {
            let x = if shared { Input::f32([tokens, k]) } else { Input::f32([tokens, used, k]) };
            let ids = Input::filled(Meta::f32([tokens, used]), Fill::Below(experts as u32)).strided(2 * used, 0);
            let mut src = vec![Input::uniform(Meta::new(dtype, [experts, n, k])), x, ids];
            src.extend(bias.then(|| Input::f32([experts, n])));
            Case { op: MatMulId, src, nmse: tolerance(dtype) }
        };
        let mut all = Vec::new();
        for dtype in quant::SUPPORTED {
            all.push(case(*dtype, [4, 40, 256, 1, 2], true, false));
            all.push(case(*dtype, [4, 33, 256, 19, 2], false, true));
        }
        all.push(case(DType::F32, [8, 20, 33, 40, 3], true, true));
        all
    }
}
