//! Multiplications that a batch needs, counted from its graph. What is done once per activation (norms, rotations, softmax) is left
//! out: it is little beside what is done once per weight and per cell of the cache.

use super::roofline::Roofline;
use super::traffic::tokens;
use crate::base::DType;
use crate::graph::{Graph, Node};
use crate::ops::AnyOp;

/// Operations, a multiplication and an addition being two, by the type of what is multiplied by: weights, keys, values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Products(Vec<(DType, f64)>);

impl Products {
    /// What `graph` multiplies when `past` tokens are in the cache already.
    pub fn of(graph: &Graph, past: usize) -> Products {
        let mut all = Products::default();
        graph.nodes.iter().for_each(|node| all.add_node(graph, node, past));
        all
    }

    /// What one node of `graph` multiplies.
    pub fn of_node(graph: &Graph, node: &Node, past: usize) -> Products {
        let mut one = Products::default();
        one.add_node(graph, node, past);
        one
    }

    fn add_node(&mut self, graph: &Graph, node: &Node, past: usize) {
        let (src, dst) = (&node.src, node.dst.meta.shape.elements() as f64);
        match &node.op {
            // One product of two rows for each value of the result.
            AnyOp::MatMul(_) | AnyOp::MatMulId(_) => self.add(src[0].meta.dtype, dst * src[0].meta.shape.row() as f64),
            AnyOp::Linear(op) => {
                let at = op.places();
                // Each expert's product with each token that chose it.
                let rows = at.ids.map_or(src[at.x].meta.outer(), |ids| src[ids].meta.shape.elements()) as f64;
                for w in &src[..op.parts] {
                    let one = w.meta.shape.elements() / if op.ids { w.meta.outer() } else { 1 };
                    self.add(w.meta.dtype, rows * one as f64);
                }
            }
            AnyOp::Attention(op) => {
                let (q, cells) = (src[0].meta.shape.elements() as f64, src[1].meta.outer());
                let most = if op.window > 0 { cells.min(op.window) } else { cells };
                let tokens = tokens(graph);
                let seen: usize = (0..tokens).map(|i| (past + i + 1).min(most)).sum();
                self.add(src[1].meta.dtype, (q + dst) * seen as f64 / tokens as f64);
            }
            _ => {}
        }
    }

    fn add(&mut self, dtype: DType, multiplications: f64) {
        match self.0.iter_mut().find(|(d, _)| *d == dtype) {
            Some((_, n)) => *n += 2.0 * multiplications,
            None => self.0.push((dtype, 2.0 * multiplications)),
        }
    }

    /// All operations.
    pub fn total(&self) -> f64 {
        self.0.iter().map(|(_, n)| n).sum()
    }

    /// The type of what most is multiplied by.
    pub fn main(&self) -> Option<DType> {
        self.0.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(dtype, _)| *dtype)
    }

    /// Seconds that they take at the least on a device of these limits.
    pub fn seconds(&self, roofline: &Roofline) -> f64 {
        self.0.iter().map(|(dtype, n)| n / roofline.rate(*dtype)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{self, Batch};
    use crate::gguf::TensorInfo;
    use crate::model::{Model, synth::Synthetic};
    use crate::ops::Serial;

    fn products(name: &str, tokens: usize, past: usize) -> (Products, Model) {
        let synthetic: Synthetic = name.parse().unwrap();
        let model = Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).unwrap()).unwrap();
        let batch = Batch { tokens, rows: 1, context: 1024, kv: DType::F16.into(), sample: false };
        let graph = arch::build(model.spec(), &batch).unwrap();
        let plain = Products::of(&graph, past);
        // Fusion moves work between nodes and makes no more or less of it.
        let fused = Products::of(&graph.fuse(), past);
        assert!(plain.0.iter().all(|of| fused.0.contains(of)) && plain.0.len() == fused.0.len(), "{plain:?} {fused:?}");
        (plain, model)
    }

    #[test]
    fn a_token_is_multiplied_by_each_weight_once() {
        let (one, model) = products("llama-tiny:q8_0", 1, 0);
        let of = |p: &Products, dtype| p.0.iter().find(|(d, _)| *d == dtype).map_or(0.0, |(_, n)| *n);
        let matrices = model.gguf().tensors().iter().filter(|t| t.shape.dims().len() > 1);
        let weights: usize = matrices.map(|t| t.shape.elements()).sum();
        // The embedding is the head too, so it counts once.
        assert_eq!(of(&one, DType::Q8_0), 2.0 * weights as f64);
        // Each head's query with the key and the weight with the value of each cell, in both layers.
        let cell = of(&one, DType::F16);
        assert_eq!(of(&products("llama-tiny:q8_0", 1, 99).0, DType::F16), 100.0 * cell);
        // The first token sees one cell, the fourth four.
        assert_eq!(of(&products("llama-tiny:q8_0", 4, 0).0, DType::F16), 10.0 * cell);
        assert_eq!(one.total(), 2.0 * weights as f64 + cell);
    }

    #[test]
    fn of_experts_only_the_chosen_are_multiplied() {
        let (one, model) = products("moe-tiny:f16", 1, 0);
        // A token sees a cell more than the one before, and chooses 4 of 16 experts; its embedding is read, not multiplied by.
        let cell = 2.0 * (2 * 4 * (128 + 128)) as f64;
        let used = |t: &&TensorInfo| t.name != "token_embd.weight" && t.shape.dims().len() > 1;
        let multiplied = |t: &TensorInfo| t.shape.elements() / if t.shape.dims().len() == 3 { 4 } else { 1 };
        let weights: usize = model.gguf().tensors().iter().filter(used).map(multiplied).sum();
        assert_eq!(one.total(), 2.0 * weights as f64 + cell);
        let [two, three] = [2, 3].map(|tokens| products("moe-tiny:f16", tokens, 0).0.total());
        assert_eq!(three - two, two - one.total() + cell, "no token shares another's work");
    }

    #[test]
    fn the_fastest_unit_that_can_counts() {
        let roofline = Roofline { f32: 1.0, f16: Some(2.0), int8: Some(8.0), ..Roofline::default() };
        let each = Products(vec![(DType::F32, 8.0), (DType::F16, 8.0), (DType::BF16, 8.0), (DType::Q4_K, 8.0)]);
        assert_eq!(each.seconds(&roofline), 8.0 + 4.0 + 8.0 + 1.0);
        let matrices = Roofline { matrix: Some(16.0), ..roofline };
        assert_eq!(each.seconds(&matrices), 8.0 + 0.5 + 0.5 + 0.5);
    }
}
