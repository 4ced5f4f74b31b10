//! The CPU code of [`Linear`]: the plainer ops' code, on memory that is kept from call to call.

use super::linear::{Linear, Places, PreNorm, Then};
use super::matmul::{ACTIVATIONS, column_block, matrix, multiply};
use super::matmul_id::multiply_chosen;
use super::{Combine, Glu, LayerNorm, Op, RmsNorm, Threads, for_chunks, for_each};
use crate::base::{Meta, View, ViewMut};
use crate::quant::{self, Activations, Matrix};
use crate::simd::{ColumnBlocks, Columns};
use std::cell::RefCell;

/// Kept so that a decoded token allocates nothing once warm.
#[derive(Default)]
struct Scratch {
    normed: Vec<f32>,
    products: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// What a thread multiplies of a gate and its partner, also while the first thread holds the other.
    static GATE: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

fn view<'a>(meta: Meta, values: &'a [f32]) -> View<'a> {
    View::new(meta, bytemuck::cast_slice(values))
}

fn view_mut<'a>(meta: Meta, values: &'a mut [f32]) -> ViewMut<'a> {
    ViewMut { meta, data: bytemuck::cast_slice_mut(values) }
}

pub(super) fn run(op: &Linear, src: &[View], dst: ViewMut, pool: &dyn Threads) {
    let at = op.places();
    if !op.ids {
        return dense(op, src, &at, dst, pool);
    }
    SCRATCH.with_borrow_mut(|Scratch { normed, products }| {
        let mut x = src[at.x];
        if op.norm.is_some() {
            let meta = Meta::f32(x.meta.shape);
            normed.resize(meta.shape.elements(), 0.0);
            for_chunks(pool, normed, x.meta.inner(), |t, y| input(op, src, &at, t, y));
            x = view(meta, normed);
        }
        experts(op, src, &at, &x, products, dst, pool);
    });
}

/// What is multiplied of token `t`: x or its norm.
fn input(op: &Linear, src: &[View], at: &Places, t: usize, y: &mut [f32]) {
    y.copy_from_slice(src[at.x].row(t));
    let mut params = src[at.norm.clone()].iter().map(|view| view.f32());
    match op.norm {
        Some(PreNorm::Rms { eps, .. }) => RmsNorm { eps }.row(y, params.next()),
        Some(PreNorm::Layer { eps, .. }) => LayerNorm { eps }.row(y, params.next(), params.next()),
        None => {}
    }
}

fn dense(op: &Linear, src: &[View], at: &Places, mut dst: ViewMut, pool: &dyn Threads) {
    let x = &src[at.x];
    let (tokens, k) = (x.meta.outer(), x.meta.inner());
    let weights = &src[..op.parts];
    let width: usize = weights.iter().map(|w| w.meta.outer()).sum();
    let y = dst.f32();
    ACTIVATIONS.with_borrow_mut(|acts| {
        // One preparation for all, which are of one type.
        let kind = (weights[0].meta.dtype, op.precision, op.role);
        match op.norm {
            Some(_) => acts.fill_made(pool, kind, &|t, y| input(op, src, at, t, y), [tokens, k]),
            None => acts.fill(pool, kind, x.f32(), [x.meta.stride, tokens, k]),
        }
        if let (Then::Glu(glu), [gate, up]) = (op.then, weights) {
            return gated(glu, [gate, up].map(|w| matrix(w, 0)), &src[at.bias.clone()], acts, y, pool);
        }
        let plain = matches!(op.then, Then::Store) && !op.bias;
        let then = |t: usize, from: usize, y: &mut [f32]| finish(op, src, at, t, from, y);
        multiply(weights, 0, acts, y, width, if plain { None } else { Some(&then) }, pool);
    });
}

/// A gate and its partner, multiplied and joined some rows at a time, while the caches hold both products.
fn gated(glu: Glu, [gate, up]: [Matrix; 2], bias: &[View], acts: &mut Activations, y: &mut [f32], pool: &dyn Threads) {
    acts.meet(gate.dtype);
    let (acts, tokens) = (&*acts, acts.columns());
    let n = y.len() / tokens;
    let blocks = ColumnBlocks::new(y, tokens, n, n, column_block(n, acts, pool));
    for_each(pool, blocks.len(), |i| {
        let mut part = blocks.take(i);
        let rows = part.range();
        let width = rows.len();
        GATE.with_borrow_mut(|products| {
            for (w, to) in [&gate, &up].into_iter().zip(&mut *products) {
                to.resize(tokens * width, 0.0);
                quant::dot_rows(w, rows.clone(), acts, &mut Columns::whole(to, tokens, width, width));
            }
            let [gate, up] = products;
            for (t, (gate, up)) in gate.chunks_mut(width).zip(up.chunks_mut(width)).enumerate() {
                if let [a, b] = bias {
                    gate.iter_mut().zip(&a.f32()[rows.clone()]).for_each(|(g, a)| *g += a);
                    up.iter_mut().zip(&b.f32()[rows.clone()]).for_each(|(u, b)| *u += b);
                }
                glu.apply(gate, up);
                part.row(t).copy_from_slice(gate);
            }
        });
    });
}

/// What follows the products `y` of token `t`, from column `from` on.
fn finish(op: &Linear, src: &[View], at: &Places, t: usize, from: usize, y: &mut [f32]) {
    let mut start = 0;
    for bias in src[at.bias.clone()].iter().map(|b| b.f32()) {
        let here = start.max(from)..(start + bias.len()).min(from + y.len());
        if !here.is_empty() {
            let values = &mut y[here.start - from..here.end - from];
            values.iter_mut().zip(&bias[here.start - start..]).for_each(|(y, b)| *y += b);
        }
        start += bias.len();
    }
    match op.then {
        Then::Unary(unary) => y.iter_mut().for_each(|y| *y = unary.eval(*y)),
        Then::Add { scale } => {
            let residual = &src[at.residual.expect("a residual")].row(t)[from..];
            y.iter_mut().zip(residual).for_each(|(y, r)| *y = r + scale * *y);
        }
        Then::Store | Then::Glu(_) | Then::Combine { .. } => {}
    }
}

fn experts(
    op: &Linear,
    src: &[View],
    at: &Places,
    x: &View,
    products: &mut Vec<f32>,
    dst: ViewMut,
    pool: &dyn Threads,
) {
    let ids = src[at.ids.expect("ids")];
    let meta = Meta::f32([x.meta.outer(), ids.meta.shape[1], src[0].meta.shape[1]]);
    let each = meta.shape.elements();
    products.resize(op.parts * each, 0.0);
    for part in 0..op.parts {
        let bias = at.bias.clone().nth(part).map(|b| src[b]);
        let sources = [src[part], *x, ids, bias.unwrap_or(ids)];
        let sources = if bias.is_some() { &sources[..] } else { &sources[..3] };
        multiply_chosen(sources, view_mut(meta, &mut products[part * each..][..each]), (op.precision, op.role), pool);
    }
    let first = view(meta, &products[..each]);
    match op.then {
        Then::Glu(glu) => glu.cpu(&[first, view(meta, &products[each..])], dst, pool),
        Then::Combine { add } => {
            let factors = src[at.factors.expect("factors")];
            let combine = Combine { scale: add.unwrap_or(1.0) };
            match at.residual {
                Some(r) => combine.cpu(&[first, factors, src[r]], dst, pool),
                None => combine.cpu(&[first, factors], dst, pool),
            }
        }
        Then::Unary(unary) => unary.cpu(&[first], dst, pool),
        Then::Store | Then::Add { .. } => dst.data[..4 * each].copy_from_slice(first.data),
    }
}
