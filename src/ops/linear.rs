//! A matrix product with what stands around it in a model, in one op: a norm before, several weights that read the same input,
//! and after it a bias, an activation, a gate, a sum over experts, a residual.
//!
//! y = then(W · norm(x) + b), W being `parts` weights on top of each other, or for each token those of its experts.
//! `graph::fuse` makes these from plainer ops; each part of it is one of them, and computes what that one does.
//! CPU: the parts one after the other, activations prepared once. GPU: one dispatch for a few tokens, the norm included: the
//! squares of x are summed while x is read, or its mean before; for many tokens the norm is a pass of its own.
//! Shaders: shaders/matmul_vec.wgsl, shaders/matmul_tile.wgsl; in bytes shaders/quantize.wgsl, shaders/matmul_tile_int8.wgsl. Source: arXiv 1910.07467 (RMS norm), 1607.06450 (layer norm), 2002.05202
//! (gates), 1701.06538 (experts).

use super::linear_cpu;
use super::product::Product;
use super::work::chosen;
use super::{
    Act, Caps, Case, Combine, Exact, Fill, Glu, Input, Kernel, LayerNorm, MatMul, MatMulId, Op, RmsNorm, Threads,
    Unary, WeightLayout, Work,
};
use crate::base::{DType, Error, Meta, Result, Role, View, ViewMut};
use crate::quant::{self, Precision};
use std::ops::Range;

/// Sources, in this order: `parts` weights `[n, k]` (or `[experts, n, k]`) of one type; x `[tokens, k]` (or `[tokens, used, k]`);
/// expert ids `[tokens, used]`; their factors `[tokens, used]` where `then` combines; biases, one per weight; the norm's weight and
/// bias `[k]`; the residual. Result: `[tokens, Σ n]`, `[tokens, n]` where `then` halves or sums, `[tokens, used, n]` for experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// How many weights.
    pub parts: usize,
    /// Whether tokens choose experts.
    pub ids: bool,
    /// Whether there are biases.
    pub bias: bool,
    /// What happens to x before.
    pub norm: Option<PreNorm>,
    /// What happens to the products.
    pub then: Then,
    /// To what x may be rounded where it meets quantized weights. A GPU takes 8 bits where that is faster; for a single token, an
    /// answer's, whenever it is allowed.
    pub precision: Precision,
    /// What its rows are.
    pub role: Role,
}

/// A norm over the whole of a token's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PreNorm {
    /// See [`RmsNorm`].
    Rms {
        /// Added to the mean square.
        eps: f32,
        /// 1 with a weight, else 0.
        params: usize,
    },
    /// See [`LayerNorm`].
    Layer {
        /// Added to the variance.
        eps: f32,
        /// 0, 1 with a weight, 2 with a bias too.
        params: usize,
    },
}

/// What follows a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Then {
    /// Nothing.
    Store,
    /// A function of each value.
    Unary(Unary),
    /// A gate: the first weight's values gate the second's.
    Glu(Glu),
    /// residual + scale · y
    Add {
        /// Factor on the product.
        scale: f32,
    },
    /// The sum of the experts' products by their factors; with `add`, residual + add · sum.
    Combine {
        /// Factor on the sum, where there is a residual.
        add: Option<f32>,
    },
}

/// Where each kind of source stands.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Places {
    pub x: usize,
    pub ids: Option<usize>,
    pub factors: Option<usize>,
    pub bias: Range<usize>,
    pub norm: Range<usize>,
    pub residual: Option<usize>,
}

impl Linear {
    /// The product alone.
    pub fn plain(ids: bool, bias: bool) -> Linear {
        let (norm, then) = (None, Then::Store);
        Linear { parts: 1, ids, bias, norm, then, precision: Precision::Sixteen, role: Role::Prompt }
    }

    /// The product alone, of so many tokens: a few are those of answers.
    pub fn alone(ids: bool, bias: bool, tokens: usize) -> Linear {
        Linear { role: if tokens <= 8 { Role::Answer } else { Role::Prompt }, ..Self::plain(ids, bias) }
    }

    /// Where its sources stand.
    pub fn places(&self) -> Places {
        let mut next = self.parts;
        let mut take = |n: usize| {
            next += n;
            next - n..next
        };
        let x = take(1).start;
        let combine = matches!(self.then, Then::Combine { .. });
        let residual = matches!(self.then, Then::Add { .. } | Then::Combine { add: Some(_) });
        let mut one = |there: bool| take(there as usize).next();
        let (ids, factors) = (one(self.ids), one(combine));
        let bias = take(if self.bias { self.parts } else { 0 });
        let norm = take(match self.norm {
            Some(PreNorm::Rms { params, .. } | PreNorm::Layer { params, .. }) => params,
            None => 0,
        });
        Places { x, ids, factors, bias, norm, residual: take(residual as usize).next() }
    }

    /// Whether a gate's and its partner's rows lie in turn.
    pub(super) fn interleaved(&self) -> bool {
        matches!(self.then, Then::Glu(_))
    }

    fn wrong(&self, src: &[Meta]) -> Error {
        Error::format(format!("linear: {self:?} of {src:?}"))
    }

    /// The norm's result.
    fn infer_norm(&self, x: &Meta, params: &[Meta]) -> Result<Meta> {
        let src = [&[*x][..], params].concat();
        match self.norm {
            None => Ok(*x),
            Some(PreNorm::Rms { eps, .. }) => RmsNorm { eps }.infer(&src),
            Some(PreNorm::Layer { eps, .. }) => LayerNorm { eps }.infer(&src),
        }
    }
}

impl Op for Linear {
    const NAME: &str = "linear";

    fn weight_layout(&self, src: usize) -> WeightLayout {
        if src < self.parts { WeightLayout::Packed } else { WeightLayout::Rows }
    }

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        let at = self.places();
        let pair = self.interleaved();
        let wanted = at.residual.map_or(at.norm.end, |r| r + 1);
        let weights = &src[..self.parts.min(src.len())];
        let alike = weights.iter().all(|w| w.dtype == weights[0].dtype && (!pair || w.shape == weights[0].shape));
        if src.len() != wanted || !alike || pair != (pair && self.parts == 2) || (self.ids && !pair && self.parts > 1) {
            return Err(self.wrong(src));
        }
        let x = self.infer_norm(&src[at.x], &src[at.norm.clone()])?;
        let mut shape = None;
        for (i, w) in weights.iter().enumerate() {
            let mut one = vec![*w, x];
            one.extend(at.ids.map(|ids| src[ids]));
            one.extend(at.bias.clone().nth(i).map(|b| src[b]));
            let y = if self.ids { MatMulId.infer(&one)? } else { MatMul.infer(&one)? };
            shape = Some(match shape {
                None => y,
                Some(before) if pair => before,
                Some(before) => Meta::f32([y.shape[0], before.shape[1] + y.shape[1]]),
            });
        }
        let mut y = shape.ok_or_else(|| self.wrong(src))?;
        if let Some(factors) = at.factors {
            y = Combine { scale: 1.0 }.infer(&[y, src[factors]])?;
        }
        match at.residual {
            Some(r) if src[r].dtype != DType::F32 || src[r].shape != y.shape => Err(self.wrong(src)),
            _ => Ok(y),
        }
    }

    fn expert_ids(&self) -> Option<usize> {
        self.places().ids
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        let at = self.places();
        // Each expert's product with each token that chose it.
        let rows = at.ids.map_or(src[at.x].outer(), |ids| src[ids].shape.elements());
        let of_one = |w: &Meta| w.shape.elements() / if self.ids { w.outer() } else { 1 };
        let weights: usize = src[..self.parts].iter().map(of_one).sum();
        let mut work = Work::of_products(src, dst, src[0].dtype, 2.0 * (rows * weights) as f64);
        if let Some(ids) = at.ids {
            (0..self.parts).chain(at.bias).for_each(|i| work.sources[i] *= chosen(&src[i], &src[ids]));
        }
        work
    }

    fn tuning_class(&self, src: &[Meta]) -> Option<String> {
        let w = src[0];
        let round = |n: usize| n.next_power_of_two();
        let rows: usize = src[..self.parts].iter().map(|w| w.shape.rows()).sum();
        let norm = match self.norm {
            None => "plain",
            Some(PreNorm::Rms { .. }) => "rms",
            Some(PreNorm::Layer { .. }) => "layer",
        };
        let then = match self.then {
            Then::Store => "store",
            Then::Unary(_) => "unary",
            Then::Glu(_) => "glu",
            Then::Add { .. } => "add",
            Then::Combine { .. } => "combine",
        };
        let tokens = match self.role {
            Role::Prompt => round(src[self.parts].outer()),
            // These are computed in one way, whatever their number.
            Role::Piece | Role::Answer => 1,
        };
        let pieces = if self.role == Role::Piece { " pieces" } else { "" };
        let ids = if self.ids { " experts" } else { "" };
        // Kernels in bytes are there only if activations may be rounded.
        let bits = if self.precision == Precision::Eight { " 8 bits" } else { "" };
        Some(format!("{} {}x{}{ids} {tokens} {norm} {then}{bits}{pieces}", w.dtype, round(rows), round(w.shape.row())))
    }

    fn cpu(&self, src: &[View], dst: ViewMut, pool: &dyn Threads) {
        linear_cpu::run(self, src, dst, pool);
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        Product::new(self, src, caps).kernels()
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let at = self.places();
        let mut x = src[at.x].clone();
        let normed: Vec<Exact> = [at.x].into_iter().chain(at.norm.clone()).map(|i| src[i].clone()).collect();
        match self.norm {
            None => {}
            Some(PreNorm::Rms { eps, .. }) => x.data = RmsNorm { eps }.oracle(&normed),
            Some(PreNorm::Layer { eps, .. }) => x.data = LayerNorm { eps }.oracle(&normed),
        }
        let product = |i: usize| {
            let mut one = vec![src[i].clone(), x.clone()];
            one.extend(at.ids.map(|ids| src[ids].clone()));
            one.extend(at.bias.clone().nth(i).map(|b| src[b].clone()));
            if self.ids { MatMulId.oracle(&one) } else { MatMul.oracle(&one) }
        };
        let products: Vec<Vec<f64>> = (0..self.parts).map(product).collect();
        let exact = |shape: &[usize], data: &[f64]| Exact {
            meta: Meta::f32(crate::base::Shape::new(shape)),
            data: data.to_vec(),
        };
        let tokens = x.meta.outer();
        let residual = |y: Vec<f64>, scale: f32| -> Vec<f64> {
            let r = &src[at.residual.expect("a residual")].data;
            r.iter().zip(y).map(|(r, y)| r + scale as f64 * y).collect()
        };
        match self.then {
            Then::Glu(glu) => {
                let [gate, up] = [0, 1].map(|i| exact(&[products[i].len()], &products[i]));
                glu.oracle(&[gate, up])
            }
            Then::Unary(unary) => unary.oracle(&[exact(&[tokens], &side_by_side(&products, tokens))]),
            Then::Store => side_by_side(&products, tokens),
            Then::Add { scale } => residual(side_by_side(&products, tokens), scale),
            Then::Combine { add } => {
                let (used, factors) = (src[at.ids.expect("ids")].meta.shape[1], at.factors.expect("factors"));
                let x = exact(&[tokens, used, products[0].len() / tokens / used], &products[0]);
                let y = Combine { scale: 1.0 }.oracle(&[x, src[factors].clone()]);
                add.map_or(y.clone(), |scale| residual(y, scale))
            }
        }
    }

    fn cases() -> Vec<Case<Self>> {
        [cases::all(), cases::rounded()].concat()
    }
}

/// The parts' values, token by token.
fn side_by_side(products: &[Vec<f64>], tokens: usize) -> Vec<f64> {
    let row = |p: &Vec<f64>, t: usize| p[t * (p.len() / tokens)..][..p.len() / tokens].to_vec();
    (0..tokens).flat_map(|t| products.iter().flat_map(move |p| row(p, t))).collect()
}

/// What tests run.
mod cases {
    use super::*;
    use crate::ops::matmul::tolerance;

    /// What so many rows are, if a case does not say.
    fn role(tokens: usize) -> Role {
        Linear::alone(false, false, tokens).role
    }

    /// A product with weights of `rows` rows each.
    fn dense(op: Linear, dtype: DType, rows: &[usize], k: usize, tokens: usize) -> Case<Linear> {
        let op = Linear { parts: rows.len(), role: role(tokens), ..op };
        let mut src: Vec<Input> = rows.iter().map(|n| Input::uniform(Meta::new(dtype, [*n, k]))).collect();
        src.push(Input { fill: Fill::Uniform { scale: 2.0, offset: 0.3 }, ..Input::f32([tokens, k]) });
        if op.bias {
            src.extend(rows.iter().map(|n| Input::f32([*n])));
        }
        src.extend(op.places().norm.map(|_| Input::f32([k])));
        src.extend(op.places().residual.map(|_| Input::f32([tokens, rows[0]])));
        Case { op, src, nmse: tolerance(dtype).max(1e-9) }
    }

    /// A product with chosen experts; all see the same x unless it combines.
    fn experts(op: Linear, dtype: DType, [experts, n, k]: [usize; 3], [tokens, used]: [usize; 2]) -> Case<Linear> {
        let op = Linear { ids: true, parts: if op.interleaved() { 2 } else { 1 }, role: role(tokens), ..op };
        let combine = op.places().factors.is_some();
        let mut src = vec![Input::uniform(Meta::new(dtype, [experts, n, k])); op.parts];
        src.push(if combine { Input::f32([tokens, used, k]) } else { Input::f32([tokens, k]) });
        src.push(Input::filled(Meta::f32([tokens, used]), Fill::Below(experts as u32)).strided(2 * used, 0));
        src.extend(combine.then(|| Input::f32([tokens, used]).strided(2 * used, used)));
        if op.bias {
            src.extend(vec![Input::f32([experts, n]); op.parts]);
        }
        src.extend(op.places().norm.map(|_| Input::f32([k])));
        src.extend(op.places().residual.map(|_| Input::f32([tokens, n])));
        Case { op, src, nmse: tolerance(dtype).max(1e-9) }
    }

    /// The case with activations that products in 8 bits are exact for, outliers being kept.
    fn exact_in_bytes(mut case: Case<Linear>) -> Case<Linear> {
        let x = case.op.places().x;
        case.src[x].fill = Fill::Outliers(200);
        case.op.precision = Precision::Eight;
        case
    }

    /// The case with activations rounded to 8 bits.
    fn in_bytes(case: Case<Linear>) -> Case<Linear> {
        Case { op: Linear { precision: Precision::Eight, ..case.op }, nmse: quant::EIGHT_BITS, ..case }
    }

    /// Where x may be rounded to 8 bits.
    pub fn rounded() -> Vec<Case<Linear>> {
        let plain = Linear::plain(false, false);
        let biased = Linear::plain(false, true);
        let then = |op, then| Linear { then, ..op };
        let swiglu = Then::Glu(Glu::Plain(Act::Silu));
        let mut all = Vec::new();
        for dtype in quant::SUPPORTED.iter().copied().filter(|t| t.is_quantized()) {
            all.push(exact_in_bytes(dense(plain, dtype, &[33], 512, 1)));
            all.push(exact_in_bytes(dense(plain, dtype, &[130], 512, 37)));
        }
        // Rows of an odd number of blocks; tiles of any size; whatever stands around.
        all.push(exact_in_bytes(dense(plain, DType::Q4_1, &[20, 33], 608, 130)));
        all.push(exact_in_bytes(dense(then(biased, swiglu), DType::Q4_0, &[39, 39], 416, 20)));
        all.push(exact_in_bytes(dense(then(biased, Then::Add { scale: 0.5 }), DType::Q6_K, &[50], 512, 5)));
        let norms = [PreNorm::Rms { eps: 1e-5, params: 1 }, PreNorm::Layer { eps: 1e-5, params: 2 }];
        for (norm, tokens) in norms.into_iter().flat_map(|norm| [(Some(norm), 1), (Some(norm), 70)]) {
            all.push(in_bytes(dense(Linear { norm, ..then(biased, swiglu) }, DType::Q4_K, &[39, 39], 512, tokens)));
        }
        for tokens in [1, 2, 19] {
            all.push(exact_in_bytes(experts(then(plain, swiglu), DType::Q4_K, [4, 40, 256], [tokens, 2])));
            let combine = then(Linear::plain(true, true), Then::Combine { add: Some(0.7) });
            all.push(exact_in_bytes(experts(combine, DType::MXFP4, [5, 40, 320], [tokens, 3])));
        }
        all
    }

    pub fn all() -> Vec<Case<Linear>> {
        let plain = Linear::plain(false, false);
        let biased = Linear::plain(false, true);
        let rms = |op| Linear { norm: Some(PreNorm::Rms { eps: 1e-5, params: 1 }), ..op };
        let layer = |op, params| Linear { norm: Some(PreNorm::Layer { eps: 1e-5, params }), ..op };
        let then = |op, then| Linear { then, ..op };
        let swiglu = Then::Glu(Glu::Plain(Act::Silu));
        let add = Then::Add { scale: 0.5 };
        let mut all = Vec::new();
        for (dtype, k) in [(DType::Q4_0, 320), (DType::Q6_K, 256), (DType::F16, 100)] {
            for tokens in [1, 3, 37] {
                all.push(dense(rms(plain), dtype, &[48, 17, 33], k, tokens));
                all.push(dense(rms(then(biased, swiglu)), dtype, &[39, 39], k, tokens));
                all.push(dense(then(plain, add), dtype, &[50], k, tokens));
                all.push(dense(layer(biased, 2), dtype, &[24, 30], k, tokens));
            }
        }
        all.push(dense(rms(then(biased, swiglu)), DType::Q4_0, &[70, 70], 64, 130));
        all.push(dense(then(plain, add), DType::F16, &[130], 104, 70));
        all.push(dense(then(layer(biased, 1), Then::Unary(Unary::Act(Act::Gelu))), DType::Q8_0, &[40], 96, 1));
        all.push(dense(layer(then(plain, add), 0), DType::F32, &[40], 96, 2));
        all.push(dense(then(plain, Then::Unary(Unary::Softcap(3.0))), DType::F32, &[33], 64, 20));
        all.push(dense(then(plain, Then::Unary(Unary::Clamp(-1.0, 2.0))), DType::F32, &[33, 20], 64, 1));
        let clamped = Then::Glu(Glu::Clamped { alpha: 1.702, limit: 7.0 });
        all.push(experts(rms(then(biased, clamped)), DType::MXFP4, [4, 34, 64], [1, 2]));
        for (dtype, k) in [(DType::Q4_K, 256), (DType::F32, 33)] {
            for tokens in [1, 19] {
                all.push(experts(rms(then(plain, swiglu)), dtype, [4, 40, k], [tokens, 2]));
                all.push(experts(then(plain, Then::Combine { add: None }), dtype, [4, 33, k], [tokens, 3]));
                all.push(experts(then(biased, Then::Combine { add: Some(0.7) }), dtype, [5, 40, k], [tokens, 2]));
            }
        }
        // Few rows of prompts, and many answers.
        for (role, tokens) in
            [(Role::Prompt, 1), (Role::Piece, 5), (Role::Piece, 90), (Role::Answer, 16), (Role::Answer, 22)]
        {
            let mut more = |mut case: Case<Linear>| {
                case.op.role = role;
                all.push(case);
            };
            more(dense(rms(then(biased, swiglu)), DType::Q4_0, &[70, 70], 320, tokens));
            more(dense(layer(then(plain, add), 2), DType::F16, &[50], 100, tokens));
            more(exact_in_bytes(dense(plain, DType::Q4_K, &[33], 512, tokens)));
            more(experts(then(biased, Then::Combine { add: Some(0.7) }), DType::Q4_K, [5, 40, 256], [tokens, 2]));
        }
        all.push(experts(layer(plain, 2), DType::Q4_0, [3, 10, 64], [2, 2]));
        // A gate and its partner as halves of one weight, as some files have them.
        let mut halves = experts(then(plain, swiglu), DType::Q4_0, [3, 12, 64], [1, 2]);
        halves.src[0] = halves.src[0].clone().strided(2 * 12 * 64, 0);
        halves.src[1] = halves.src[1].clone().strided(2 * 12 * 64, 12 * 64);
        all.push(halves);
        all
    }
}
