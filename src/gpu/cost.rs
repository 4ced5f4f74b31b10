//! How long a node may take on a slow GPU: enough to cut long work into submissions that no watchdog minds.

use crate::graph::Node;
use crate::ops::AnyOp;

/// What a node moves and computes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Bytes read and written.
    pub bytes: f64,
    /// Multiplications and additions.
    pub flops: f64,
}

/// Bytes per second of a slow GPU: an integrated one with two channels of DDR4.
const SLOW_BYTES: f64 = 3e10;
/// Operations per second that kernels reach on such a GPU.
const SLOW_FLOPS: f64 = 3e11;

impl Cost {
    /// The cost of `node`.
    pub fn of(node: &Node) -> Cost {
        let (src, dst) = (&node.src, &node.dst.meta);
        let out = dst.shape.elements() as f64;
        let mut bytes: f64 = src.iter().map(|t| t.meta.span_bytes() as f64).sum::<f64>() + dst.span_bytes() as f64;
        let flops = match &node.op {
            AnyOp::MatMul(_) => 2.0 * out * src[0].meta.shape.row() as f64,
            AnyOp::MatMulId(_) => {
                bytes -= src[0].meta.span_bytes() as f64 * (1.0 - share(node));
                2.0 * out * src[0].meta.shape.row() as f64
            }
            AnyOp::Linear(op) => {
                let weights = &src[..op.parts];
                let values: f64 = weights.iter().map(|w| w.meta.shape.elements() as f64).sum();
                if !op.ids {
                    return Cost { bytes, flops: 2.0 * values * dst.outer() as f64 };
                }
                bytes -= weights.iter().map(|w| w.meta.span_bytes() as f64).sum::<f64>() * (1.0 - share(node));
                2.0 * values / weights[0].meta.outer() as f64 * src[op.parts + 1].meta.shape.elements() as f64
            }
            // As if all cells were taken: the program is the same for a full cache.
            AnyOp::Attention(_) => 4.0 * src[0].meta.shape.elements() as f64 * src[1].meta.outer() as f64,
            AnyOp::GetRows(_) => {
                bytes -= src[0].meta.span_bytes() as f64;
                out
            }
            // Of the caches only the batch's cells are written.
            AnyOp::KvStore(_) => {
                bytes = 2.0 * (src[2].meta.span_bytes() + src[3].meta.span_bytes()) as f64;
                bytes / 4.0
            }
            AnyOp::RopeStore(_) => {
                bytes = 2.0 * (src[0].meta.span_bytes() + src[1].meta.span_bytes()) as f64;
                8.0 * bytes / 4.0
            }
            _ => 8.0 * out,
        };
        Cost { bytes, flops }
    }

    /// Seconds on a slow GPU.
    pub fn seconds(&self) -> f64 {
        (self.bytes / SLOW_BYTES).max(self.flops / SLOW_FLOPS)
    }
}

/// The part of its weights that a node reads: of experts those that are chosen, of a table the rows.
pub(super) fn share(node: &Node) -> f64 {
    let ids = match &node.op {
        AnyOp::MatMulId(_) => &node.src[2],
        AnyOp::Linear(op) if op.ids => &node.src[op.parts + 1],
        AnyOp::GetRows(_) => &node.src[1],
        _ => return 1.0,
    };
    (ids.meta.shape.elements() as f64 / node.src[0].meta.outer() as f64).min(1.0)
}

/// Longest submission aimed at, in seconds.
pub(super) const SUBMISSION: f64 = 0.1;

/// Cuts nodes with these costs into runs of about [`SUBMISSION`]; a single node may be longer.
pub(super) fn cut(costs: &[f64]) -> Vec<std::ops::Range<usize>> {
    let mut cuts: Vec<std::ops::Range<usize>> = Vec::new();
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
