//! Bytes that a batch has to move, counted from its graph: each weight once, and what it needs of the cache.
//!
//! Activations are left out: they stay in caches, and where they do not, a kernel could do better.

use crate::graph::{Graph, Input, Node, Storage, Tensor};
use crate::ops::AnyOp;

/// Bytes to be moved at the least.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Traffic {
    /// Read of weights, as they lie in the file. Of experts, as many as random choices are expected to hit.
    pub weights: f64,
    /// Read and written of keys and values.
    pub cache: f64,
}

impl Traffic {
    /// What `graph` moves when `past` tokens are in the cache already.
    pub fn of(graph: &Graph, past: usize) -> Traffic {
        let mut all = Traffic::default();
        for node in &graph.nodes {
            let one = Self::of_node(graph, node, past);
            all.weights += one.weights;
            all.cache += one.cache;
        }
        all
    }

    /// What one node of `graph` moves.
    pub fn of_node(graph: &Graph, node: &Node, past: usize) -> Traffic {
        let src = &node.src;
        let is_weight = |t: &Tensor| matches!(graph.storage(t), Storage::Weight(_));
        let weights = src.iter().enumerate().filter(|(_, t)| is_weight(t)).map(|(i, t)| {
            let bytes = t.meta.span_bytes() as f64;
            match &node.op {
                AnyOp::GetRows(_) => bytes / t.meta.outer() as f64 * node.dst.meta.outer() as f64,
                AnyOp::MatMulId(_) if i != 1 => bytes * chosen(t, &src[2]),
                AnyOp::Linear(op) => match op.places() {
                    at if i < op.parts || at.bias.contains(&i) => {
                        bytes * at.ids.map_or(1.0, |ids| chosen(t, &src[ids]))
                    }
                    _ => bytes,
                },
                _ => bytes,
            }
        });
        let row = |t: &Tensor| t.meta.span_bytes() as f64 / t.meta.outer() as f64;
        let is_cache = |t: &&Tensor| matches!(graph.storage(t), Storage::Cache(_));
        let tokens = tokens(graph);
        let cache = match &node.op {
            AnyOp::Attention(op) => {
                let seen = if op.window > 0 { past.min(op.window) } else { past } + tokens;
                src.iter().filter(is_cache).map(|t| row(t) * seen.min(t.meta.outer()) as f64).sum()
            }
            // Whatever else has to do with a cache writes to it.
            _ => src.iter().filter(is_cache).map(|t| row(t) * tokens as f64).sum(),
        };
        Traffic { weights: weights.sum(), cache }
    }

    /// Both together.
    pub fn bytes(&self) -> f64 {
        self.weights + self.cache
    }
}

/// Tokens of the batch that `graph` is for.
pub fn tokens(graph: &Graph) -> usize {
    let positions = graph.buffers.iter().find(|b| b.storage == Storage::Input(Input::Positions));
    positions.map_or(1, |b| b.meta.outer())
}

/// The part of the experts of `weights` that random `ids` `[tokens, used]` are expected to hit.
fn chosen(weights: &Tensor, ids: &Tensor) -> f64 {
    let (experts, tokens) = (weights.meta.outer() as f64, ids.meta.outer() as f64);
    let used = ids.meta.inner() as f64;
    1.0 - (1.0 - used / experts).max(0.0).powf(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{self, Batch};
    use crate::base::DType;
    use crate::model::{Model, synth::Synthetic};
    use crate::ops::Serial;

    fn graph(name: &str, tokens: usize) -> (Graph, Model) {
        let synthetic: Synthetic = name.parse().unwrap();
        let model = Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).unwrap()).unwrap();
        let batch = Batch { tokens, rows: 1, context: 1024, kv: DType::F16.into(), sample: false };
        (arch::build(model.spec(), &batch).unwrap(), model)
    }

    #[test]
    fn a_token_reads_each_weight_once() {
        let (graph, model) = graph("llama-tiny:q8_0", 1);
        let embedding = model.gguf().tensor("token_embd.weight").unwrap().bytes() as f64;
        for graph in [graph.clone(), graph.fuse()] {
            let traffic = Traffic::of(&graph, 0);
            // The embedding is the head too; of itself one row is read.
            assert_eq!(traffic.weights, model.weight_bytes() as f64 + embedding / 512.0);
            // Two layers, keys and values, two heads of 64 in f16: one cell is written and read.
            let cell = 2.0 * 2.0 * 2.0 * 64.0 * 2.0;
            assert_eq!(traffic.cache, 2.0 * cell);
            assert_eq!(Traffic::of(&graph, 99).cache, 101.0 * cell);
        }
    }

    #[test]
    fn of_experts_only_the_chosen_are_read() {
        let name = "blk.0.ffn_up_exps.weight";
        let read = |tokens: usize| {
            let (graph, model) = graph("moe-tiny:f16", tokens);
            let uses_it = |n: &&Node| n.src.iter().any(|t| graph.storage(t) == &Storage::Weight(name.into()));
            let node = graph.nodes.iter().find(uses_it).unwrap();
            let plain = Traffic::of_node(&graph, node, 0).weights / model.gguf().tensor(name).unwrap().bytes() as f64;
            let fused = Traffic::of(&graph.clone().fuse(), 0).weights;
            let more = fused / Traffic::of(&graph, 0).weights - 1.0;
            assert!((0.0..0.01).contains(&more), "fused, router and experts read their norm's weights each: {more}");
            plain
        };
        assert_eq!(read(1), 0.25);
        assert_eq!(read(2), 1.0 - 0.75 * 0.75);
        assert!(read(64) > 0.99);
    }
}
