//! The rules around matrix products: all of them make [`Linear`]s.

use super::super::{Graph, Storage, Tensor};
use crate::base::Meta;
use crate::ops::{Add, AnyOp, Combine, LayerNorm, Linear, PreNorm, RmsNorm, Then};

/// Most weights of one product that are no gate: queries, keys, values.
const MAX_PARTS: usize = 3;

/// A product with its sources by kind.
struct ProductNode {
    op: Linear,
    weights: Vec<Tensor>,
    x: Tensor,
    /// Expert ids, their factors.
    experts: Vec<Tensor>,
    bias: Vec<Tensor>,
    norm: Vec<Tensor>,
    residual: Vec<Tensor>,
}

impl ProductNode {
    /// Node `i`, if it is a product of any kind.
    fn of(g: &Graph, i: usize) -> Option<ProductNode> {
        let src = &g.nodes[i].src;
        let op = match &g.nodes[i].op {
            AnyOp::MatMul(_) => Linear { role: g.role, ..Linear::plain(false, src.len() > 2) },
            AnyOp::MatMulId(_) => Linear { role: g.role, ..Linear::plain(true, src.len() > 3) },
            AnyOp::Linear(op) => *op,
            _ => return None,
        };
        let at = op.places();
        Some(ProductNode {
            op,
            weights: src[..op.parts].to_vec(),
            x: src[at.x],
            experts: src[at.x + 1..at.bias.start].to_vec(),
            bias: src[at.bias].to_vec(),
            norm: src[at.norm.clone()].to_vec(),
            residual: src[at.norm.end..].to_vec(),
        })
    }

    /// The product that makes `t` for source `by` alone, with nothing behind it yet.
    fn bare(g: &Graph, t: &Tensor, by: (usize, usize)) -> Option<(usize, ProductNode)> {
        let i = g.maker_for(t, by)?;
        let product = ProductNode::of(g, i)?;
        (product.op.then == Then::Store).then_some((i, product))
    }

    fn sources(&self) -> Vec<Tensor> {
        [&self.weights[..], &[self.x], &self.experts, &self.bias, &self.norm, &self.residual].concat()
    }

    /// Puts the product, with `then` behind it, in place of node `at`.
    fn then(mut self, g: &mut Graph, at: usize, gone: &[usize], then: Then) -> Option<usize> {
        self.op = Linear { then, parts: self.weights.len(), bias: !self.bias.is_empty(), ..self.op };
        let label = g.nodes[gone[0]].label;
        let next = g.replace(at, gone, self.op, self.sources())?;
        g.nodes[next - 1].label = label;
        Some(next)
    }
}

/// A function of a product's values.
pub fn unary(g: &mut Graph, i: usize) -> Option<usize> {
    let AnyOp::Unary(op) = g.nodes[i].op else { return None };
    let (p, product) = ProductNode::bare(g, &g.nodes[i].src[0], (i, 0))?;
    product.then(g, i, &[p], Then::Unary(op))
}

/// A gate and what it gates: two products, or the halves of one.
pub fn glu(g: &mut Graph, i: usize) -> Option<usize> {
    let AnyOp::Glu(op) = g.nodes[i].op else { return None };
    let (gate, up) = (g.nodes[i].src[0], g.nodes[i].src[1]);
    if gate.buf == up.buf {
        let (p, product) = halves(g, i, &gate, &up)?;
        return product.then(g, i, &[p], Then::Glu(op));
    }
    let (p, mut product) = ProductNode::bare(g, &gate, (i, 0))?;
    let (q, other) = ProductNode::bare(g, &up, (i, 1))?;
    let alike = product.x == other.x && product.experts == other.experts && product.bias.len() == other.bias.len();
    if !alike || product.op.norm.is_some() || other.op.norm.is_some() {
        return None;
    }
    product.weights.extend(other.weights);
    product.bias.extend(other.bias);
    product.then(g, i, &[p, q], Then::Glu(op))
}

/// The product whose row's halves `gate` and `up` are, with its weight and bias cut in two.
fn halves(g: &Graph, i: usize, gate: &Tensor, up: &Tensor) -> Option<(usize, ProductNode)> {
    let n = gate.meta.inner();
    let p = g.nodes.iter().position(|node| node.dst.buf == gate.buf)?;
    let dst = g.nodes[p].dst;
    let half = |t: &Tensor, offset| t.meta.stride == 2 * n && t.offset == offset && t.meta.inner() == n;
    let only = g.uses(gate.buf).all(|(node, _)| node == i) && g.output.is_none_or(|o| o.buf != gate.buf);
    if !only || dst.meta.shape.row() != 2 * n || dst.offset != 0 || !half(gate, 0) || !half(up, n) {
        return None;
    }
    let mut product = ProductNode::of(g, p).filter(|p| p.op.then == Then::Store && p.weights.len() == 1)?;
    product.weights = cut(&product.weights[0], n);
    product.bias = product.bias.first().map_or(Vec::new(), |b| match b.meta.shape.dims() {
        [_] => vec![b.rows(0, n), b.rows(n, n)],
        _ => vec![b.columns(0, n), b.columns(n, n)],
    });
    Some((p, product))
}

/// Rows `0 .. n` and `n .. 2n` of a weight, or of every expert's.
fn cut(w: &Tensor, n: usize) -> Vec<Tensor> {
    match w.meta.shape.dims() {
        [experts, _, k] => {
            let meta = Meta { shape: [*experts, n, *k].into(), ..w.meta };
            vec![Tensor { meta, ..*w }, Tensor { meta, offset: w.offset + n * k, ..*w }]
        }
        _ => vec![w.rows(0, n), w.rows(n, n)],
    }
}

/// Products that read the same: their results become columns of one.
pub fn stack(g: &mut Graph, i: usize) -> Option<usize> {
    let mut first = ProductNode::of(g, i).filter(|p| stackable(g, i, p))?;
    let mut others = Vec::new();
    for j in i + 1..g.nodes.len() {
        if g.nodes[j].layer != g.nodes[i].layer || first.weights.len() == MAX_PARTS {
            break;
        }
        let Some(p) = ProductNode::of(g, j).filter(|p| stackable(g, j, p)) else { continue };
        let alike = p.x == first.x && p.op == Linear { parts: 1, ..first.op };
        if alike && p.weights[0].meta.dtype == first.weights[0].meta.dtype {
            first.weights.extend(p.weights);
            first.bias.extend(p.bias);
            others.push(j);
        }
    }
    if others.is_empty() {
        return None;
    }
    let widths: Vec<usize> = first.weights.iter().map(|w| w.meta.outer()).collect();
    let (tokens, width) = (first.x.meta.outer(), widths.iter().sum());
    let op = Linear { parts: first.weights.len(), ..first.op };
    let dst = g.buffer(Storage::Temp, Meta::f32([tokens, width]));
    let mut start = 0;
    for (node, n) in [i].iter().chain(&others).zip(&widths) {
        let old = g.nodes[*node].dst.buf;
        for t in g.nodes.iter_mut().flat_map(|n| &mut n.src).filter(|t| t.buf == old) {
            t.offset = t.offset / n * width + t.offset % n + start;
            (t.buf, t.meta.stride) = (dst.buf, width);
        }
        start += n;
    }
    g.nodes[i].dst = dst;
    let next = g.replace(i, &others, op, first.sources());
    assert!(next.is_some(), "a stack of products is a product");
    next
}

/// Whether the result of product `i` can be columns of a wider one: each token's values are used as such.
fn stackable(g: &Graph, i: usize, p: &ProductNode) -> bool {
    let dst = g.nodes[i].dst;
    let (tokens, n) = (dst.meta.outer(), dst.meta.inner());
    let row = |(node, s): (usize, usize)| {
        let t = &g.nodes[node].src[s];
        t.meta.outer() == tokens && (tokens == 1 || t.meta.stride == n)
    };
    let plain = matches!(p.op.then, Then::Store | Then::Unary(_)) && !p.op.ids && p.op.norm.is_none();
    plain && p.op.parts == 1 && g.output.is_none_or(|o| o.buf != dst.buf) && g.uses(dst.buf).all(row)
}

/// The weighted sum of experts' products.
pub fn combine(g: &mut Graph, i: usize) -> Option<usize> {
    let AnyOp::Combine(Combine { scale: 1.0 }) = g.nodes[i].op else { return None };
    let [x, factors] = g.nodes[i].src[..] else { return None };
    let (p, mut product) = ProductNode::bare(g, &x, (i, 0)).filter(|(_, p)| p.op.ids && p.op.norm.is_none())?;
    product.experts.push(factors);
    product.then(g, i, &[p], Then::Combine { add: None })
}

/// A product, or a sum of experts' products, that is added to something of its shape.
pub fn residual(g: &mut Graph, i: usize) -> Option<usize> {
    let AnyOp::Add(Add { scale }) = g.nodes[i].op else { return None };
    let [a, b] = g.nodes[i].src[..] else { return None };
    if a.meta.shape != b.meta.shape || a.meta.shape.dims().len() != 2 {
        return None;
    }
    let swapped = (scale == 1.0).then_some((b, a, 0));
    [Some((a, b, 1)), swapped].into_iter().flatten().find_map(|(residual, y, place)| {
        let p = g.maker_for(&y, (i, place))?;
        let mut product = ProductNode::of(g, p).filter(|p| p.op.parts == 1)?;
        let then = match product.op.then {
            Then::Store if !product.op.ids => Then::Add { scale },
            Then::Combine { add: None } => Then::Combine { add: Some(scale) },
            _ => return None,
        };
        product.residual = vec![residual];
        product.then(g, i, &[p], then)
    })
}

/// A norm whose result only products read: each of them normalises what it reads.
pub fn norm(g: &mut Graph, i: usize) -> Option<usize> {
    let (dst, src) = (g.nodes[i].dst, g.nodes[i].src.clone());
    let params = src.len() - 1;
    let norm = match g.nodes[i].op {
        AnyOp::RmsNorm(RmsNorm { eps }) => PreNorm::Rms { eps, params },
        AnyOp::LayerNorm(LayerNorm { eps }) => PreNorm::Layer { eps, params },
        _ => return None,
    };
    let of_rows = dst.meta.shape.dims().len() == 2 && src[1..].iter().all(|w| w.meta.shape.rows() == 1);
    let uses: Vec<(usize, usize)> = g.uses(dst.buf).collect();
    if !of_rows || uses.is_empty() || g.output.is_some_and(|o| o.buf == dst.buf) {
        return None;
    }
    let mut fused = Vec::new();
    for (j, place) in uses {
        let mut p = ProductNode::of(g, j).filter(|p| p.op.norm.is_none())?;
        if place != p.op.places().x || p.x != dst {
            return None;
        }
        (p.x, p.norm, p.op.norm) = (src[0], src[1..].to_vec(), Some(norm));
        g.accepts(&p.op.into(), &p.sources(), &g.nodes[j].dst)?;
        fused.push((j, p));
    }
    for (j, p) in fused {
        g.replace(j, &[], p.op, p.sources())?;
    }
    g.nodes.remove(i);
    Some(i)
}
