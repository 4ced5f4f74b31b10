//! The rules that do not end in a product.

use super::super::{Graph, Tensor};
use crate::base::Meta;
use crate::ops::{Add, AnyOp, GetRows, HeadNorm, KvStore, LayerNorm, NormAdd, RmsNorm, Rope, RopeStore};

/// A norm of what a block gives, and the sum with the hidden state.
pub fn norm_add(g: &mut Graph, i: usize) -> Option<usize> {
    let AnyOp::Add(Add { scale }) = g.nodes[i].op else { return None };
    let [residual, y] = g.nodes[i].src[..] else { return None };
    let p = g.maker_for(&y, (i, 1))?;
    let AnyOp::RmsNorm(RmsNorm { eps }) = g.nodes[p].op else { return None };
    let [x, weight] = g.nodes[p].src[..] else { return None };
    let label = g.nodes[p].label;
    let next = g.replace(i, &[p], NormAdd { eps, scale }, vec![x, residual, weight])?;
    g.nodes[next - 1].label = label;
    Some(next)
}

/// Rows of a table, and the sum with something of their shape: learned positions.
pub fn rows_add(g: &mut Graph, i: usize) -> Option<usize> {
    let AnyOp::Add(Add { scale }) = g.nodes[i].op else { return None };
    let [beside, y] = g.nodes[i].src[..] else { return None };
    let p = g.maker_for(&y, (i, 1))?;
    let AnyOp::GetRows(rows) = g.nodes[p].op else { return None };
    let [table, ids] = g.nodes[p].src[..] else { return None };
    g.replace(i, &[p], GetRows { scale: rows.scale * scale }, vec![table, ids, beside])
}

/// How queries or keys come from a projection.
struct Chain {
    rope: Rope,
    positions: Tensor,
    table: Tensor,
    /// The norm and its weight, flat.
    norm: Option<(HeadNorm, Tensor)>,
    /// What the projection gave, `[tokens, heads, dim]`.
    base: Tensor,
    /// The nodes in between.
    nodes: Vec<usize>,
}

/// The way of `t` `[tokens, heads, dim]` from its projection: a rotation, and perhaps a norm before or after it.
fn chain(g: &Graph, t: &Tensor) -> Option<Chain> {
    let [tokens, heads, dim] = t.meta.shape.dims()[..] else { return None };
    let (mut at, mut turn, mut norm, mut nodes) = (*t, None, None, Vec::new());
    while let Some(i) = g.maker(&at) {
        match &g.nodes[i].op {
            AnyOp::Rope(rope) if turn.is_none() => turn = Some((*rope, g.nodes[i].src[1], g.nodes[i].src[2])),
            op @ (AnyOp::RmsNorm(RmsNorm { eps }) | AnyOp::LayerNorm(LayerNorm { eps }))
                if norm.is_none() && g.nodes[i].src.len() == 2 =>
            {
                let layer = matches!(op, AnyOp::LayerNorm(_));
                let [x, weight] = [0, 1].map(|s| g.nodes[i].src[s]);
                let wide = x.meta.shape.dims().len() == 2 && heads > 1;
                let flat = Tensor { meta: Meta::f32([weight.meta.shape.elements()]), ..weight };
                norm = Some((HeadNorm { eps: *eps, wide, after: turn.is_none(), layer }, flat));
            }
            _ => break,
        }
        // Within the chain nobody else reads.
        if let Some(last) = nodes.last() {
            g.maker_for(&at, (*last, 0))?;
        }
        nodes.push(i);
        at = g.nodes[i].src[0];
    }
    let (rope, positions, table) = turn?;
    let meta = Meta { shape: [tokens, heads, dim].into(), ..at.meta };
    (at.meta.shape.elements() == tokens * heads * dim && at.meta.outer() == tokens).then_some(Chain {
        rope,
        positions,
        table,
        norm,
        base: Tensor { meta, ..at },
        nodes,
    })
}

/// Norms and rotations of queries and keys, and the store of keys and values.
pub fn rope_store(g: &mut Graph, i: usize) -> Option<usize> {
    let AnyOp::KvStore(KvStore { group }) = g.nodes[i].op else { return None };
    let [keys, values, k, v, places] = g.nodes[i].src[..] else { return None };
    let of_k = chain(g, &k)?;
    // The keys' way ends here.
    g.maker_for(&k, (i, 2))?;
    let (q, of_q) = queries(g, i, &of_k)?;
    let [tokens, heads, dim] = of_q.base.meta.shape.dims()[..] else { return None };
    let beside = of_q.base.offset + heads * dim == of_k.base.offset && of_q.base.meta.stride == of_k.base.meta.stride;
    let alike = of_q.rope == of_k.rope && of_q.table == of_k.table && of_q.positions == of_k.positions;
    let norms = of_q.norm.map(|n| n.0) == of_k.norm.map(|n| n.0);
    let later = g.uses(g.nodes[q].dst.buf).all(|(node, _)| node > i);
    if !beside
        || !alike
        || !norms
        || !later
        || of_k.positions.buf != places.buf
        || of_k.positions.offset != 0
        || of_k.base.meta.shape[2] != dim
    {
        return None;
    }
    let shape = [tokens, heads + of_k.base.meta.shape[1], dim];
    let qk = Tensor { meta: Meta { shape: shape.into(), ..of_q.base.meta }, ..of_q.base };
    let mut src = vec![qk, v, places, of_k.table, keys, values];
    src.extend([of_q.norm, of_k.norm].into_iter().flatten().map(|(_, weight)| weight));
    let op = RopeStore { rope: of_k.rope, norm: of_k.norm.map(|n| n.0), group };
    let dst = g.nodes[q].dst;
    g.accepts(&op.into(), &src, &dst)?;
    let gone = [of_q.nodes, of_k.nodes].concat();
    g.nodes[i].dst = dst;
    g.nodes[i].label = "rope_store";
    g.replace(i, &gone, op, src)
}

/// The node that makes the queries which go with these keys: the end of the longest chain from the same projection.
fn queries(g: &Graph, store: usize, keys: &Chain) -> Option<(usize, Chain)> {
    let other = |n: &usize| !keys.nodes.contains(n);
    let ends = (0..store).filter(other).filter_map(|n| Some((n, chain(g, &g.nodes[n].dst)?)));
    let same = ends.filter(|(_, c)| c.base.buf == keys.base.buf && c.nodes.len() == keys.nodes.len());
    same.max_by_key(|(n, _)| *n)
}
