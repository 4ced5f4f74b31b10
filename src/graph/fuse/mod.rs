//! Fusion: a pass over a graph that puts neighbouring ops into one, by rules with names.
//!
//! A rule looks for a few nodes whose results nobody else reads, and puts one node in their place that computes the same. Every
//! fused op still is one file in `ops`, with its own oracle. What a graph went through is told at its end when it is printed.
//!
//! | rule | before | after |
//! |---|---|---|
//! | `unary` | product, function of its values | `linear` |
//! | `glu` | products of gate and up, gate | `linear` of both weights, row by row in turn |
//! | `stack` | products that read the same (q, k, v) | `linear` of all weights |
//! | `combine` | experts' products, weighted sum | `linear` that sums |
//! | `residual` | product, sum with the hidden state | `linear` that adds |
//! | `norm_add` | norm after a block, sum | `norm_add` |
//! | `rope_store` | norms and rotations of q and k, store of k and v | `rope_store` |
//! | `rows_add` | row lookup, sum | `get_rows` that adds |
//! | `norm` | norm that only products read | `linear` that normalises |

mod products;
mod rest;

use super::{BufId, Graph, Node, Storage, Tensor};
use crate::base::Meta;
use crate::ops::{AnyOp, Linear};
use crate::quant::Precision;

/// A rule: tries to put a node in place of node `i` and earlier ones. Gives the index to go on from.
type Rule = fn(&mut Graph, usize) -> Option<usize>;

/// The rules, in the order in which they are tried.
const RULES: &[(&str, Rule)] = &[
    ("unary", products::unary),
    ("glu", products::glu),
    ("stack", products::stack),
    ("combine", products::combine),
    ("residual", products::residual),
    ("norm_add", rest::norm_add),
    ("rope_store", rest::rope_store),
    ("rows_add", rest::rows_add),
    ("norm", products::norm),
];

impl Graph {
    /// Applies all rules wherever they fit. Results are the same but for rounding.
    pub fn fuse(mut self) -> Graph {
        for (name, rule) in RULES {
            let (mut i, mut count) = (0, 0);
            while i < self.nodes.len() {
                match rule(&mut self, i) {
                    Some(next) => (i, count) = (next, count + 1),
                    None => i += 1,
                }
            }
            if count > 0 {
                self.fused.push((name, count));
            }
        }
        self
    }

    /// Lets the fused products of a batch round what meets quantized weights to `precision`. Products around which nothing was fused keep
    /// 16 bits, and learn what the batch's rows are.
    pub fn round(mut self, precision: Precision) -> Graph {
        for node in &mut self.nodes {
            match &mut node.op {
                AnyOp::Linear(op) => op.precision = precision,
                AnyOp::MatMul(_) => {
                    let bias = node.src.len() > 2;
                    node.op = Linear { role: self.role, ..Linear::plain(false, bias) }.into();
                }
                AnyOp::MatMulId(_) => {
                    let bias = node.src.len() > 3;
                    node.op = Linear { role: self.role, ..Linear::plain(true, bias) }.into();
                }
                _ => {}
            }
        }
        self
    }

    /// Where a buffer is read: nodes and their sources. Only what is no more than read counts.
    fn uses(&self, buf: BufId) -> impl Iterator<Item = (usize, usize)> {
        let of = move |(i, node): (usize, &Node)| {
            let places: Vec<(usize, usize)> =
                (0..node.src.len()).filter(|s| node.src[*s].buf == buf).map(|s| (i, s)).collect();
            places
        };
        self.nodes.iter().enumerate().flat_map(of)
    }

    /// The node that makes the temporary `t`, if `t` is all of its result.
    fn maker(&self, t: &Tensor) -> Option<usize> {
        let made = |n: &Node| n.dst.buf == t.buf && n.dst.offset == t.offset;
        let i = self.nodes.iter().position(made)?;
        let whole = self.nodes[i].dst.meta.shape.elements() == t.meta.shape.elements();
        (whole && *self.storage(t) == Storage::Temp).then_some(i)
    }

    /// The node that makes `t`, if nothing else than source `by` reads it.
    fn maker_for(&self, t: &Tensor, by: (usize, usize)) -> Option<usize> {
        let alone = self.uses(t.buf).all(|place| place == by) && self.output.is_none_or(|o| o.buf != t.buf);
        if alone { self.maker(t) } else { None }
    }

    /// Whether `op` takes these sources and gives what `dst` has room for.
    fn accepts(&self, op: &AnyOp, src: &[Tensor], dst: &Tensor) -> Option<Meta> {
        let metas: Vec<Meta> = src.iter().map(|t| t.meta).collect();
        let meta = op.infer(&metas).ok()?;
        (meta.shape.elements() == dst.meta.shape.elements() && dst.meta.is_packed()).then_some(meta)
    }

    /// Puts `op` in place of node `at`, with its result, and takes away the nodes `gone`. Gives the index behind it.
    fn replace(&mut self, at: usize, gone: &[usize], op: impl Into<AnyOp>, src: Vec<Tensor>) -> Option<usize> {
        let op = op.into();
        let meta = self.accepts(&op, &src, &self.nodes[at].dst)?;
        let node = &mut self.nodes[at];
        (node.op, node.src, node.dst.meta) = (op, src, meta);
        let mut gone = gone.to_vec();
        gone.sort_unstable();
        gone.dedup();
        gone.iter().rev().for_each(|i| drop(self.nodes.remove(*i)));
        Some(at + 1 - gone.iter().filter(|i| **i < at).count())
    }
}
