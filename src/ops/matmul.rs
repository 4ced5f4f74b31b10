//! Matrix product with quantized weights: y[t, n] = Σ_k w[n, k] · x[t, k] (+ bias[n]). Decoding is part of the kernel.
//!
//! CPU: each input row is quantized once, to 16 bits, then threads take ranges of weight rows.
//! GPU: `matmul_vec` for answers (memory-bound), `matmul_tile` for prompts (compute-bound); activations stay `f32`.
//! Weights larger than a binding are cut into shards of rows, one dispatch each.
//! Shaders: shaders/matmul_vec.wgsl, shaders/matmul_tile.wgsl, shaders/quant/*.wgsl.

use super::linear::Linear;
use super::product::Product;
use super::{Caps, Case, Exact, Input, Kernel, Op, Threads, WeightLayout, Work, for_each};
use crate::base::{DType, Error, Layout, Meta, Result, Role, View, ViewMut};
use crate::quant::{self, Activations, Matrix, Precision};
use crate::simd::ColumnBlocks;
use std::cell::RefCell;

/// Sources: w `[n, k]` of any type, x `[tokens, k]`, optional bias `[n]`. Result: `[tokens, n]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatMul;

/// The largest error against exact arithmetic: f32 rounding, and the 16 bits of activations that meet quantized weights.
pub(super) fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-10,
        _ => 1e-7,
    }
}

thread_local! {
    // Kept from call to call, so that a decoded token allocates nothing once warm.
    pub(super) static ACTIVATIONS: RefCell<Activations> = const { RefCell::new(Activations::new()) };
}

/// Matrix `i` of weights `[n, k]` or `[matrices, n, k]`.
pub(super) fn matrix<'a>(w: &View<'a>, i: usize) -> Matrix<'a> {
    let (dims, k) = (w.meta.shape.dims(), w.meta.shape.row());
    let bytes = match (dims.len(), w.layout) {
        (..=2, _) => w.data,
        (_, Layout::Packed) => &w.data[w.data.len() / dims[0] * i..][..w.data.len() / dims[0]],
        (_, Layout::Rows) => w.row_bytes(i),
    };
    Matrix { dtype: w.meta.dtype, layout: w.layout, bytes, k }
}

/// How many of `n` rows of weights go together: about an eighth of a thread's, which evens out the threads' speed; more if what is made
/// of them is to stay in the caches. Rather fewer, if then no thread has more to do than another.
pub(super) fn column_block(n: usize, acts: &Activations, pool: &dyn Threads) -> usize {
    block_of(n, if acts.want_batches() { quant::ROW_BATCH } else { n.div_ceil(pool.threads() * 8) }, pool.threads())
}

/// The same, of about `most` rows.
fn block_of(n: usize, most: usize, threads: usize) -> usize {
    let [fewest, most] = [(most / 4).min(n.div_ceil(threads)), most]
        .map(|rows| rows.max(n.div_ceil(256)).div_ceil(quant::ROW_BLOCK).max(1));
    let busiest = |rows: usize| n.div_ceil(rows).div_ceil(threads) * rows;
    let sizes = (fewest..=most).rev().map(|blocks| blocks * quant::ROW_BLOCK);
    sizes.min_by_key(|rows| busiest(*rows)).unwrap_or(quant::ROW_BLOCK)
}

/// What follows products: `then(t, from, y)` is given those of token `t` from column `from` on.
pub(super) type After<'a> = &'a (dyn Fn(usize, usize, &mut [f32]) + Sync);

/// y = activations · weightsᵀ with matrix `which` of each of `weights`, side by side in the first values of every `stride` of `y`, and what
/// follows. Their rows are shared out among the threads together: a round for each would wait for its slowest thread.
pub(super) fn multiply(
    weights: &[View],
    which: usize,
    acts: &mut Activations,
    y: &mut [f32],
    stride: usize,
    then: Option<After>,
    pool: &dyn Threads,
) {
    let rows = |w: &View| w.meta.shape.dims()[w.meta.shape.dims().len() - 2];
    let n = weights.iter().map(rows).sum();
    let block = column_block(n, acts, pool);
    let Some(block) = shared_block(block, weights.iter().map(rows)) else {
        let mut start = 0;
        for w in weights {
            let later = then.map(|then| move |t: usize, from: usize, y: &mut [f32]| then(t, start + from, y));
            let later = later.as_ref().map(|later| later as After);
            multiply(std::slice::from_ref(w), which, acts, &mut y[start..], stride, later, pool);
            start += rows(w);
        }
        return;
    };
    acts.meet(weights[0].meta.dtype);
    let acts = &*acts;
    let blocks = ColumnBlocks::new(y, acts.columns(), stride, n, block);
    for_each(pool, blocks.len(), |i| {
        let mut part = blocks.take(i);
        let mut range = part.range();
        for w in weights {
            if range.start < rows(w) {
                quant::dot_rows(&matrix(w, which), range, acts, &mut part);
                break;
            }
            range = range.start - rows(w)..range.end - rows(w);
        }
        if let Some(then) = then {
            let from = part.range().start;
            (0..part.rows()).for_each(|t| then(t, from, part.row(t)));
        }
    });
}

/// The largest block, up to `block`, of which only the last matrix of some with so many rows has a part; `None` if there is none.
fn shared_block(block: usize, rows: impl ExactSizeIterator<Item = usize> + Clone) -> Option<usize> {
    let whole = |block: &usize| rows.clone().take(rows.len() - 1).all(|n| n.is_multiple_of(*block));
    (1..=block / quant::ROW_BLOCK).rev().map(|n| n * quant::ROW_BLOCK).find(whole)
}

impl Op for MatMul {
    const NAME: &str = "matmul";

    fn weight_layout(&self, src: usize) -> WeightLayout {
        if src == 0 { WeightLayout::Packed } else { WeightLayout::Rows }
    }

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        let (w, x) = (&src[0], &src[1]);
        x.want(Self::NAME, DType::F32)?;
        if w.shape.dims().len() != 2 || w.shape.row() != x.inner() {
            return Err(Error::format(format!("matmul: weights {w:?} do not fit activations {x:?}")));
        }
        if !quant::is_supported(w.dtype) {
            return Err(quant::unsupported(w.dtype));
        }
        if src.get(2).is_some_and(|b| b.dtype != DType::F32 || b.shape.elements() != w.outer()) {
            return Err(Error::format(format!("matmul: bias {:?} does not fit weights {w:?}", src[2])));
        }
        Ok(Meta::f32([x.outer(), w.outer()]))
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        // One product of two rows for each value of the result.
        let operations = 2.0 * (dst.shape.elements() * src[0].shape.row()) as f64;
        Work::of_products(src, dst, src[0].dtype, operations)
    }

    fn tuning_class(&self, src: &[Meta]) -> Option<String> {
        Linear::alone(false, src.len() > 2, src[1].outer()).tuning_class(src)
    }

    fn cpu(&self, src: &[View], mut dst: ViewMut, pool: &dyn Threads) {
        let (w, x) = (&src[0], &src[1]);
        let (tokens, n) = (x.meta.outer(), w.meta.outer());
        ACTIVATIONS.with_borrow_mut(|acts| {
            let kind = (w.meta.dtype, Precision::Sixteen, Role::Prompt);
            acts.fill(pool, kind, x.f32(), [x.meta.stride, tokens, w.meta.inner()]);
            let bias = src.get(2).map(|b| b.f32());
            let bias = bias
                .map(|b| move |_, from: usize, y: &mut [f32]| y.iter_mut().zip(&b[from..]).for_each(|(y, b)| *y += b));
            multiply(&src[..1], 0, acts, dst.f32(), n, bias.as_ref().map(|add| add as After), pool);
        });
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        Product::new(&Linear::alone(false, src.len() > 2, src[1].outer()), src, caps).kernels()
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let (w, x) = (&src[0], &src[1]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut y = Vec::with_capacity(x.meta.outer() * w.meta.outer());
        for t in 0..x.meta.outer() {
            y.extend((0..w.meta.outer()).map(|n| dot(w.row(n), x.row(t)) + src.get(2).map_or(0.0, |b| b.data[n])));
        }
        y
    }

    fn cases() -> Vec<Case<Self>> {
        let case = |dtype, n, k, tokens, bias: bool| {
            let mut src = vec![Input::uniform(Meta::new(dtype, [n, k])), Input::f32([tokens, k])];
            src.extend(bias.then(|| Input::f32([n])));
            Case { op: MatMul, src, nmse: tolerance(dtype) }
        };
        let mut all = Vec::new();
        for dtype in quant::SUPPORTED {
            // Decode, a few tokens, and prefill with ragged tiles.
            all.extend([(48, 512, 1), (33, 256, 3), (67, 512, 37)].map(|(n, k, t)| case(*dtype, n, k, t, false)));
        }
        all.push(case(DType::F32, 5, 33, 2, true));
        all.push(case(DType::F16, 130, 100, 9, true));
        all.push(case(DType::Q4_0, 96, 576, 130, true));
        // Tiles in slices: an odd number of steps, rows of all lengths, many rows.
        all.push(case(DType::Q4_0, 70, 288, 12, false));
        all.push(case(DType::Q8_0, 33, 96, 20, true));
        all.push(case(DType::F32, 40, 33, 31, false));
        all.push(case(DType::Q4_0, 8200, 64, 10, false));
        // Big tiles.
        all.push(case(DType::Q4_0, 150, 96, 140, true));
        all.push(case(DType::Q6_K, 256, 256, 129, false));
        let strided = Input::f32([4, 256]).strided(1024, 512);
        all.push(Case { op: MatMul, src: vec![Input::f32([40, 256]), strided], nmse: 1e-10 });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_thread_gets_more_rows_than_it_must() {
        // Rows of small models' matrices and of experts.
        for n in [128_usize, 256, 512, 576, 768, 960, 1024, 1536, 2048, 3072, 8192] {
            for threads in [1, 2, 4, 8, 16, 32] {
                for most in [n.div_ceil(8 * threads), quant::ROW_BATCH] {
                    let block = block_of(n, most, threads);
                    assert!(block.is_multiple_of(quant::ROW_BLOCK), "blocks are whole panels");
                    let busiest = n.div_ceil(block).div_ceil(threads) * block;
                    let fair = n.div_ceil(threads).next_multiple_of(quant::ROW_BLOCK);
                    assert!(busiest <= fair, "{n} rows, {threads} threads, at most {most}: blocks of {block}");
                }
            }
        }
    }
}
