//! What a batch moves and computes at the least, added up over its graph by what lies where: each weight once, and what it needs of the cache.
//!
//! Activations count apart: they stay in caches, and if they do not, a kernel could do better.

use super::roofline::Roofline;
use crate::base::{DType, Meta};
use crate::graph::{Graph, Node, Storage};
use crate::ops;

/// The work of a node or of a graph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Work {
    /// Bytes of weights that are read, as they lie in the file. Of experts, as many as random choices are expected to hit.
    pub weights: f64,
    /// Bytes of keys and values that are read and written.
    pub cache: f64,
    /// Bytes of everything else.
    pub activations: f64,
    /// Operations of products, a multiplication and an addition being two, by the type of what is multiplied by: weights, keys, values.
    products: Vec<(DType, f64)>,
    /// Operations done once per activation (norms, rotations, softmax), roughly.
    other: f64,
}

/// What `node`'s op counts, with `depth` tokens in the cache.
fn of_op(node: &Node, depth: usize) -> ops::Work {
    let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
    node.op.work(&metas, &node.dst.meta, depth)
}

/// Whether `node` has more to do the more tokens are in the cache.
pub fn grows(node: &Node) -> bool {
    of_op(node, 0) != of_op(node, 1)
}

impl Work {
    /// What `graph` takes when `depth` tokens are in the cache already.
    pub fn of(graph: &Graph, depth: usize) -> Work {
        let mut all = Work::default();
        graph.nodes.iter().for_each(|node| all.add_node(graph, node, depth));
        all
    }

    /// What one node of `graph` takes.
    pub fn of_node(graph: &Graph, node: &Node, depth: usize) -> Work {
        let mut one = Work::default();
        one.add_node(graph, node, depth);
        one
    }

    fn add_node(&mut self, graph: &Graph, node: &Node, depth: usize) {
        let op = of_op(node, depth);
        for (source, bytes) in node.src.iter().zip(&op.sources) {
            *match graph.storage(source) {
                Storage::Weight(_) => &mut self.weights,
                Storage::Cache(_) => &mut self.cache,
                _ => &mut self.activations,
            } += bytes;
        }
        self.activations += op.result;
        self.other += op.other;
        if let Some((dtype, operations)) = op.products {
            match self.products.iter_mut().find(|(d, _)| *d == dtype) {
                Some((_, n)) => *n += operations,
                None => self.products.push((dtype, operations)),
            }
        }
    }

    /// Bytes of weights and cache.
    pub fn bytes(&self) -> f64 {
        self.weights + self.cache
    }

    /// Operations of products: what is done beside them is little.
    pub fn operations(&self) -> f64 {
        self.products.iter().map(|(_, n)| n).sum()
    }

    /// Operations of products, or the others if there are none.
    pub fn flops(&self) -> f64 {
        let products = self.operations();
        if products > 0.0 { products } else { self.other }
    }

    /// The type of what most is multiplied by.
    pub fn main(&self) -> Option<DType> {
        self.products.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(dtype, _)| *dtype)
    }

    /// Seconds that products take at the least on a device of these limits.
    pub fn seconds(&self, roofline: &Roofline) -> f64 {
        self.products.iter().map(|(dtype, n)| n / roofline.rate(*dtype)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{self, Batch};
    use crate::gguf::TensorInfo;
    use crate::model::{Model, synth::Synthetic};
    use crate::ops::Serial;

    fn graph(name: &str, tokens: usize) -> (Graph, Model) {
        let synthetic: Synthetic = name.parse().unwrap();
        let model = Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).unwrap()).unwrap();
        let batch = Batch::of_one(tokens, 1, 1024, DType::F16.into(), false);
        (arch::build(model.spec(), &batch).unwrap(), model)
    }

    fn work(name: &str, tokens: usize, depth: usize) -> (Work, Model) {
        let (graph, model) = graph(name, tokens);
        let plain = Work::of(&graph, depth);
        // Fusion moves products between nodes and makes no more or less of them.
        let fused = Work::of(&graph.fuse(), depth).products;
        assert!(plain.products.iter().all(|of| fused.contains(of)) && plain.products.len() == fused.len(), "{fused:?}");
        (plain, model)
    }

    #[test]
    fn a_token_reads_each_weight_once() {
        let (graph, model) = graph("llama-tiny:q8_0", 1);
        let embedding = model.gguf().tensor("token_embd.weight").unwrap().bytes() as f64;
        for graph in [graph.clone(), graph.fuse()] {
            let work = Work::of(&graph, 0);
            // The embedding is the head too; of itself one row is read.
            assert_eq!(work.weights, model.weight_bytes() as f64 + embedding / 512.0);
            // Two layers, keys and values, two heads of 64 in f16: one cell is written and read.
            let cell = 2.0 * 2.0 * 2.0 * 64.0 * 2.0;
            assert_eq!(work.cache, 2.0 * cell);
            assert_eq!(Work::of(&graph, 99).cache, 101.0 * cell);
            assert_eq!(Work::of(&graph, usize::MAX).cache, 1025.0 * cell);
            assert_eq!(graph.nodes.iter().filter(|n| grows(n)).count(), 2, "the attention of both layers");
        }
    }

    #[test]
    fn of_experts_only_the_chosen_are_read() {
        let name = "blk.0.ffn_up_exps.weight";
        let read = |tokens: usize| {
            let (graph, model) = graph("moe-tiny:f16", tokens);
            let uses_it = |n: &&Node| n.src.iter().any(|t| graph.storage(t) == &Storage::Weight(name.into()));
            let node = graph.nodes.iter().find(uses_it).unwrap();
            let plain = Work::of_node(&graph, node, 0).weights / model.gguf().tensor(name).unwrap().bytes() as f64;
            let fused = Work::of(&graph.clone().fuse(), 0).weights;
            let more = fused / Work::of(&graph, 0).weights - 1.0;
            assert!((0.0..0.01).contains(&more), "fused, router and experts read their norm's weights each: {more}");
            plain
        };
        assert_eq!(read(1), 0.25);
        assert_eq!(read(2), 1.0 - 0.75 * 0.75);
        assert!(read(64) > 0.99);
    }

    #[test]
    fn a_token_is_multiplied_by_each_weight_once() {
        let (one, model) = work("llama-tiny:q8_0", 1, 0);
        let of = |w: &Work, dtype| w.products.iter().find(|(d, _)| *d == dtype).map_or(0.0, |(_, n)| *n);
        let matrices = model.gguf().tensors().iter().filter(|t| t.shape.dims().len() > 1);
        let weights: usize = matrices.map(|t| t.shape.elements()).sum();
        // The embedding is the head too, so it counts once.
        assert_eq!(of(&one, DType::Q8_0), 2.0 * weights as f64);
        // Each head's query with the key and the weight with the value of each cell, in both layers.
        let cell = of(&one, DType::F16);
        assert_eq!(of(&work("llama-tiny:q8_0", 1, 99).0, DType::F16), 100.0 * cell);
        // The first token sees one cell, the fourth four.
        assert_eq!(of(&work("llama-tiny:q8_0", 4, 0).0, DType::F16), 10.0 * cell);
        assert_eq!(one.operations(), 2.0 * weights as f64 + cell);
    }

    #[test]
    fn of_experts_only_the_chosen_are_multiplied() {
        let (one, model) = work("moe-tiny:f16", 1, 0);
        // A token sees a cell more than the one before, and chooses 4 of 16 experts; its embedding is read, not multiplied by.
        let cell = 2.0 * (2 * 4 * (128 + 128)) as f64;
        let used = |t: &&TensorInfo| t.name != "token_embd.weight" && t.shape.dims().len() > 1;
        let multiplied = |t: &TensorInfo| t.shape.elements() / if t.shape.dims().len() == 3 { 4 } else { 1 };
        let weights: usize = model.gguf().tensors().iter().filter(used).map(multiplied).sum();
        assert_eq!(one.operations(), 2.0 * weights as f64 + cell);
        let [two, three] = [2, 3].map(|tokens| work("moe-tiny:f16", tokens, 0).0.operations());
        assert_eq!(three - two, two - one.operations() + cell, "no token shares another's work");
    }

    #[test]
    fn the_fastest_unit_that_can_counts() {
        let roofline = Roofline { f32: 1.0, f16: Some(2.0), int8: Some(8.0), ..Roofline::default() };
        let products = vec![(DType::F32, 8.0), (DType::F16, 8.0), (DType::BF16, 8.0), (DType::Q4_K, 8.0)];
        let each = Work { products, ..Work::default() };
        assert_eq!(each.seconds(&roofline), 8.0 + 4.0 + 8.0 + 1.0);
        let matrices = Roofline { matrix: Some(16.0), ..roofline };
        assert_eq!(each.seconds(&matrices), 8.0 + 0.5 + 0.5 + 0.5);
    }
}
