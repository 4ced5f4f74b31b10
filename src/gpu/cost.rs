//! How long a node may take on a slow GPU: enough to cut long work into submissions that no watchdog minds.

use crate::base::Meta;
use crate::graph::{Graph, Node};
use crate::ops::{Caps, Pass, Work};
use std::ops::Range;

/// Seconds of `node` on a slow GPU of the kind that `caps` describes, the cache being full.
fn of_node(node: &Node, caps: &Caps) -> f64 {
    let work = work(node);
    work.operations().max(work.bytes() * Caps::PER_BYTE) / caps.speed
}

fn work(node: &Node) -> Work {
    let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
    let mut work = node.op.work(&metas, &node.dst.meta, usize::MAX);
    if let Some(ids) = node.op.expert_ids().filter(|_| work.products.is_some()) {
        // Each pair may choose another expert: what is expected is not enough for a bound. Weights stand before x, and x before the ids.
        let (pairs, experts) = (metas[ids].shape.elements(), metas[0].outer());
        let part = (pairs as f64 / experts as f64).min(1.0);
        work.sources.iter_mut().zip(&metas).take(ids - 1).for_each(|(bytes, w)| *bytes = w.span_bytes() as f64 * part);
    }
    work
}

/// The part of its weights that a node reads: of experts those that are chosen, of a table the rows.
pub(super) fn share(node: &Node) -> f64 {
    work(node).sources[0] / node.src[0].meta.span_bytes() as f64
}

/// Longest submission aimed at, in seconds.
pub const SUBMISSION: f64 = 0.1;

/// Most tokens of a batch that counts as decoding, and so is never cut into several submissions.
const DECODE: usize = 8;

/// The part of a node's work that each of the `passes` of its kernel does. Those that read weights or the cache do all of it;
/// sorting, scaling and merging are nothing beside them.
pub(super) fn shares(passes: &[Pass]) -> Vec<f64> {
    let main = |p: &Pass| p.quant.is_some() || p.binds.iter().any(|(name, _)| *name == "keys");
    let any = passes.iter().any(main);
    let size = |p: &Pass| if main(p) || !any { p.workgroups.iter().map(|n| f64::from(*n)).product() } else { 0.0 };
    let all = passes.iter().map(size).sum::<f64>().max(1.0);
    passes.iter().map(|p| size(p) / all).collect()
}

/// Estimated seconds of each of `passes`, of a kernel of `node`. 0 for a few tokens, which are never cut.
pub fn seconds(node: &Node, passes: &[Pass], caps: &Caps) -> Vec<f64> {
    let few = node.dst.meta.outer() <= DECODE;
    let seconds = if few { 0.0 } else { of_node(node, caps) };
    shares(passes).into_iter().map(|share| seconds * share).collect()
}

/// Estimated seconds of each submission of `graph`, all of it on one device, each node by the first of its kernels; nodes without one aside.
pub fn submissions(graph: &Graph, caps: &Caps) -> Vec<f64> {
    let of = |node: &Node| {
        let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
        let kernel = node.op.gpu(&metas, &node.dst.meta, caps).into_iter().next();
        kernel.map_or(Vec::new(), |kernel| seconds(node, &kernel.passes, caps))
    };
    let costs: Vec<f64> = graph.nodes.iter().flat_map(of).collect();
    cut(&costs).into_iter().map(|run| costs[run].iter().sum()).collect()
}

/// Cuts dispatches with these costs into runs of at most [`SUBMISSION`]; a single one may be longer.
pub(super) fn cut(costs: &[f64]) -> Vec<Range<usize>> {
    let mut cuts: Vec<Range<usize>> = Vec::new();
    let mut sum = 0.0;
    for (i, cost) in costs.iter().enumerate() {
        match cuts.last_mut() {
            Some(last) if sum + cost <= SUBMISSION => last.end = i + 1,
            _ => {
                cuts.push(i..i + 1);
                sum = 0.0;
            }
        }
        sum += cost;
    }
    cuts
}

/// Seconds of the longest of the runs that [`cut`] makes.
pub(super) fn longest(costs: &[f64]) -> f64 {
    cut(costs).into_iter().map(|run| costs[run].iter().sum()).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn submissions_stay_below_their_limit_and_cover_all() {
        let costs: Vec<f64> = (0..300).map(|i| [0.001, 0.03, 0.25, 0.0][i % 4]).collect();
        let cuts = cut(&costs);
        assert_eq!(cuts.iter().flat_map(|c| c.clone()).collect::<Vec<_>>(), (0..300).collect::<Vec<_>>());
        for c in &cuts {
            let sum: f64 = costs[c.clone()].iter().sum();
            assert!(sum <= SUBMISSION + 1e-9 || c.len() == 1, "{c:?} takes {sum}");
        }
        assert!(cut(&[]).is_empty());
    }
}
