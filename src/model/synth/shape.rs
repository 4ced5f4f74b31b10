//! Shapes of well-known models: sizes, metadata and tensors by their GGUF names, without any weights.

use crate::base::{Error, Result, Shape};
use crate::gguf::Metadata;
use crate::model::preset::Facts;

/// What the architectures here differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Dense.
    Llama,
    /// Experts without a shared one, norms of queries and keys.
    Qwen3Moe,
    /// Experts, biases everywhere, attention sinks, a window in every other layer.
    GptOss,
}

/// One model's sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelShape {
    /// The name in `SHAPE:FORMAT`.
    pub name: &'static str,
    kind: Kind,
    layers: usize,
    embd: usize,
    heads: usize,
    kv_heads: usize,
    /// Width of a head.
    dim: usize,
    /// Width of the feed-forward network, or of one expert.
    ffn: usize,
    /// Experts and how many of them a token passes; none in dense models.
    experts: [usize; 2],
    /// Tokens in the vocabulary.
    pub vocab: usize,
    tied: bool,
    base: f32,
    context: usize,
}

const LLAMA: ModelShape = ModelShape {
    name: "llama-1b",
    kind: Kind::Llama,
    layers: 16,
    embd: 2048,
    heads: 32,
    kv_heads: 8,
    dim: 64,
    ffn: 8192,
    experts: [0, 0],
    vocab: 32768,
    tied: true,
    base: 500_000.0,
    context: 131_072,
};

/// All shapes: those of real models, then small ones for tests.
#[rustfmt::skip]
const SHAPES: &[ModelShape] = &[
    LLAMA,
    ModelShape { name: "llama-8b", layers: 32, embd: 4096, dim: 128, ffn: 14336, vocab: 128_256, tied: false, ..LLAMA },
    ModelShape { name: "llama-70b", layers: 80, embd: 8192, heads: 64, kv_heads: 8, dim: 128, ffn: 28672, vocab: 128_256, tied: false, ..LLAMA },
    ModelShape { name: "qwen3-30b-a3b", kind: Kind::Qwen3Moe, layers: 48, kv_heads: 4, dim: 128, ffn: 768, experts: [128, 8], vocab: 151_936, tied: false, base: 1_000_000.0, context: 40_960, ..LLAMA },
    ModelShape { name: "gpt-oss-20b", kind: Kind::GptOss, layers: 24, embd: 2880, heads: 64, ffn: 2880, experts: [32, 4], vocab: 201_088, tied: false, base: 150_000.0, ..LLAMA },
    ModelShape { name: "llama-tiny", layers: 2, embd: 256, heads: 4, kv_heads: 2, ffn: 512, vocab: 512, context: 8192, ..LLAMA },
    ModelShape { name: "moe-tiny", kind: Kind::Qwen3Moe, layers: 2, embd: 256, heads: 4, kv_heads: 1, dim: 128, ffn: 256, experts: [16, 4], vocab: 512, tied: false, context: 8192, ..LLAMA },
    ModelShape { name: "gpt-oss-tiny", kind: Kind::GptOss, layers: 2, embd: 288, heads: 8, kv_heads: 2, ffn: 288, experts: [8, 2], vocab: 512, tied: false, context: 8192, ..LLAMA },
];

/// What a tensor's values are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Normally distributed around 0.
    Normal,
    /// Near 1: norms.
    Ones,
}

/// A tensor that a model has.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorShape {
    pub name: String,
    pub shape: Shape,
    pub values: Values,
}

impl ModelShape {
    /// The shape of this name.
    pub fn parse(name: &str) -> Result<ModelShape> {
        SHAPES.iter().find(|s| s.name == name.to_ascii_lowercase()).copied().ok_or_else(|| {
            let names: Vec<&str> = Self::names().collect();
            Error::usage(format!("there is no shape {name:?}")).help(format!("there are {}", names.join(", ")))
        })
    }

    /// The names of all shapes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|s| s.name)
    }

    /// Leaves at most so many layers and tokens.
    pub fn cut(&mut self, layers: usize, vocab: usize) {
        (self.layers, self.vocab) = (self.layers.min(layers), self.vocab.min(vocab));
    }

    /// The preset that the original is published in.
    pub fn usual_preset(&self) -> &'static str {
        if self.kind == Kind::GptOss { "mxfp4" } else { "q4_k_m" }
    }

    /// What presets ask.
    pub fn facts(&self) -> Facts {
        Facts { layers: self.layers, group: self.heads / self.kv_heads, experts: self.experts[0], tied: self.tied }
    }

    fn arch(&self) -> &'static str {
        match self.kind {
            Kind::Llama => "llama",
            Kind::Qwen3Moe => "qwen3moe",
            Kind::GptOss => "gpt-oss",
        }
    }

    /// The sizes as metadata.
    pub fn metadata(&self) -> Metadata {
        let arch = self.arch();
        let mut m = Metadata::new();
        m.set("general.architecture", arch);
        m.set("general.type", "model");
        m.set("general.name", format!("{} shape, random weights", self.name));
        let [experts, used] = self.experts;
        let mut size = |key: &str, n: usize| drop(m.set(format!("{arch}.{key}"), n as u32));
        size("block_count", self.layers);
        size("context_length", self.context);
        size("embedding_length", self.embd);
        size("feed_forward_length", self.ffn);
        size("attention.head_count", self.heads);
        size("attention.head_count_kv", self.kv_heads);
        size("attention.key_length", self.dim);
        size("attention.value_length", self.dim);
        size("rope.dimension_count", self.dim);
        size("vocab_size", self.vocab);
        if experts > 0 {
            size("expert_count", experts);
            size("expert_used_count", used);
            size("expert_feed_forward_length", self.ffn);
        }
        if self.kind == Kind::GptOss {
            size("attention.sliding_window", 128);
            size("rope.scaling.original_context_length", 4096);
            m.set(format!("{arch}.rope.scaling.type"), "yarn");
            m.set(format!("{arch}.rope.scaling.factor"), 32f32);
        }
        m.set(format!("{arch}.rope.freq_base"), self.base);
        m.set(format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5f32);
        m
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> Vec<TensorShape> {
        let mut list = List(Vec::new());
        list.add("token_embd.weight".into(), [self.vocab, self.embd]);
        list.add("output_norm.weight".into(), [self.embd]);
        if !self.tied {
            list.add("output.weight".into(), [self.vocab, self.embd]);
        }
        for i in 0..self.layers {
            self.attention(i, &mut list);
            self.network(i, &mut list);
        }
        list.0
    }

    fn attention(&self, i: usize, list: &mut List) {
        let biased = self.kind == Kind::GptOss;
        let (q, kv) = (self.heads * self.dim, self.kv_heads * self.dim);
        list.add(format!("blk.{i}.attn_norm.weight"), [self.embd]);
        list.linear(i, "attn_q", [q, self.embd], biased);
        list.linear(i, "attn_k", [kv, self.embd], biased);
        list.linear(i, "attn_v", [kv, self.embd], biased);
        list.linear(i, "attn_output", [self.embd, q], biased);
        match self.kind {
            Kind::Llama => {}
            Kind::Qwen3Moe => {
                list.add(format!("blk.{i}.attn_q_norm.weight"), [self.dim]);
                list.add(format!("blk.{i}.attn_k_norm.weight"), [self.dim]);
            }
            Kind::GptOss => list.add(format!("blk.{i}.attn_sinks.weight"), [self.heads]),
        }
    }

    fn network(&self, i: usize, list: &mut List) {
        let biased = self.kind == Kind::GptOss;
        let norm = if biased { "post_attention_norm" } else { "ffn_norm" };
        list.add(format!("blk.{i}.{norm}.weight"), [self.embd]);
        let [experts, _] = self.experts;
        if experts == 0 {
            list.linear(i, "ffn_gate", [self.ffn, self.embd], biased);
            list.linear(i, "ffn_up", [self.ffn, self.embd], biased);
            return list.linear(i, "ffn_down", [self.embd, self.ffn], biased);
        }
        list.linear(i, "ffn_gate_inp", [experts, self.embd], biased);
        for (label, [n, k]) in [
            ("ffn_gate_exps", [self.ffn, self.embd]),
            ("ffn_up_exps", [self.ffn, self.embd]),
            ("ffn_down_exps", [self.embd, self.ffn]),
        ] {
            list.add(format!("blk.{i}.{label}.weight"), [experts, n, k]);
            if biased {
                list.add(format!("blk.{i}.{label}.bias"), [experts, n]);
            }
        }
    }
}

/// Tensors so far.
struct List(Vec<TensorShape>);

impl List {
    fn add(&mut self, name: String, shape: impl Into<Shape>) {
        let values = if name.ends_with("_norm.weight") { Values::Ones } else { Values::Normal };
        self.0.push(TensorShape { name, shape: shape.into(), values });
    }

    fn linear(&mut self, layer: usize, label: &str, [n, k]: [usize; 2], biased: bool) {
        self.add(format!("blk.{layer}.{label}.weight"), [n, k]);
        if biased {
            self.add(format!("blk.{layer}.{label}.bias"), [n]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_shapes_have_the_originals_weights() {
        let weights = |name| {
            let tensors = ModelShape::parse(name).unwrap().tensors();
            tensors.iter().map(|t| t.shape.elements()).sum::<usize>() as f64 / 1e9
        };
        for (name, billions) in [
            ("llama-1b", 1.04),
            ("llama-8b", 8.03),
            ("llama-70b", 70.55),
            ("qwen3-30b-a3b", 30.53),
            ("gpt-oss-20b", 20.91),
        ] {
            assert!((weights(name) - billions).abs() < 0.01, "{name}: {} B", weights(name));
        }
        assert!(ModelShape::parse("llama-9b").unwrap_err().to_string().contains("llama-8b"));
    }
}
