//! The table: one row per architecture, each the difference from its nearest kin.

use super::row::*;
use crate::ops::{Act, Gate, Glu};

const NEOX: Row = Row { rope: Rope::NeoX, ..Row::LLAMA };

const GRANITE: Row = Row { name: "granite", logits: Logits::Over, ..Row::LLAMA };

const GEMMA: Row = Row { name: "gemma", act: Glu::Plain(Act::Gelu), embd_scale: Scale::SqrtEmbd, ..NEOX };

const COHERE: Row = Row { name: "command-r", norm: Norm::Layer, residual: Residual::Parallel, ..Row::LLAMA };

/// Every architecture that is built here.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    // Llama-like.
    Row { name: "llama", ..Row::LLAMA },
    Row { name: "mistral3", ..Row::LLAMA },
    Row { name: "internlm2", ..Row::LLAMA },
    Row { name: "xverse", ..Row::LLAMA },
    Row { name: "deci", layers: Layers::Pruned, ..Row::LLAMA },
    Row { name: "arcee", act: Glu::Plain(Act::ReluSquared), ..Row::LLAMA },
    Row { name: "smollm3", rope_layers: RopeLayers::SkipEvery(4), ..Row::LLAMA },
    Row { name: "ernie4_5-moe", biases: Biases::Inputs, idle: &["attn_output.bias"], ..Row::LLAMA },
    Row { name: "ernie4_5", biases: Biases::Inputs, idle: &["attn_output.bias"], ..Row::LLAMA },
    Row { name: "maincoder", qk_norm: QkNorm::AfterRope, ..Row::LLAMA },
    Row { name: "deepseek", router: Router::Fixed(Gate::Softmax, false), ..Row::LLAMA },
    Row { name: "bailingmoe", router: Router::Keys(Gate::Softmax, false), ..Row::LLAMA },
    Row { name: "chatglm", ..Row::LLAMA },
    Row { name: "glm4", rope: Rope::Sections, norms: Norms::Sandwich, ..Row::LLAMA },
    // 7B (32 layers) turns, 13B (40 layers) has linear biases; the file does not say which it is.
    Row { name: "baichuan", rope_layers: RopeLayers::Depth(32), alibi: Alibi::Depth(40, 8.0), ..Row::LLAMA },
    Row { name: "refact", rope: Rope::None, alibi: Alibi::Key(8.0), router: Router::None, ffn: Ffn::Partial, biases: Biases::Inputs, idle: &["ffn_", "attn_output.bias"], ..Row::LLAMA },
    Row { name: "granite", rope_layers: RopeLayers::Finetuned, ..GRANITE },
    Row { name: "granitemoe", ..GRANITE },
    Row { name: "granite_swa", rope_layers: RopeLayers::Pattern, window: Window::Every { period: 1, tokens: 0 }, ..GRANITE },
    Row { name: "minicpm", embd_scale: Scale::Is(12.0), residual_scale: Scale::OverSqrtLayers(1.4), logit_scale: Scale::OverEmbd(256.0), ..GRANITE },
    Row { name: "qwen", qkv: Qkv::ThreeEmbd, ..NEOX },
    Row { name: "qwen2", ..NEOX },
    Row { name: "qwen3", ..NEOX },
    Row { name: "qwen2moe", router: Router::Fixed(Gate::Softmax, false), ..NEOX },
    Row { name: "qwen3moe", ..NEOX },
    Row { name: "phi3", ..NEOX },
    Row { name: "phimoe", ..NEOX },
    Row { name: "exaone", ..NEOX },
    Row { name: "exaone4", norms: Norms::Post, window: Window::Depth { layers: 64, period: 4, tokens: 4096 }, rope_layers: RopeLayers::Windowed, ..NEOX },
    Row { name: "seed_oss", ffn_norm: "post_attention_norm", ..NEOX },
    Row { name: "hunyuan-dense", qk_norm: QkNorm::AfterRope, ..NEOX },
    Row { name: "hunyuan-moe", qk_norm: QkNorm::AfterRope, ..NEOX },
    Row { name: "hunyuan_vl", qk_norm: QkNorm::AfterRope, ..NEOX },
    Row { name: "olmo2", norms: Norms::Post, window: Window::Every { period: 4, tokens: 0 }, window_rope: WindowRope::Unscaled, ..NEOX },
    Row { name: "olmoe", router: Router::Fixed(Gate::Softmax, false), ..NEOX },
    Row { name: "plamo", residual: Residual::Parallel, ..NEOX },
    Row { name: "openelm", ..NEOX },
    Row { name: "mellum", window: Window::Every { period: 4, tokens: 0 }, window_rope: WindowRope::Unscaled, ..NEOX },
    Row { name: "dots1", router: Router::Keys(Gate::Softmax, false), ..NEOX },
    Row { name: "glm4moe", ffn_norm: "post_attention_norm", router: Router::Keys(Gate::Sigmoid, false), ..NEOX },
    Row { name: "minimax-m2", router: Router::Keys(Gate::Sigmoid, true), ..NEOX },
    Row { name: "hy_v3", idle: &["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"], router: Router::Keys(Gate::Sigmoid, false), ..NEOX },
    Row { name: "exaone-moe", window: Window::Every { period: 4, tokens: 128 }, rope_layers: RopeLayers::Windowed, router: Router::Keys(Gate::Sigmoid, false), ..NEOX },
    Row { name: "gpt-oss", ffn_norm: "post_attention_norm", act: Glu::Clamped { alpha: 1.702, limit: 7.0 }, router: Router::Fixed(Gate::SoftmaxOfChosen, false), window: Window::Every { period: 2, tokens: 0 }, ..NEOX },
    // Gemma: the 27B models scale scores by the embedding length.
    Row { name: "gemma", ..GEMMA },
    Row { name: "gemma2", norms: Norms::Sandwich, attn_scale: AttnScale::EmbdAt(46), attn_softcap: 50.0, final_softcap: 30.0, window: Window::Every { period: 2, tokens: 4096 }, ..GEMMA },
    Row { name: "gemma3", norms: Norms::Sandwich, attn_scale: AttnScale::EmbdAt(62), window: Window::Every { period: 6, tokens: 0 }, window_rope: WindowRope::Base(10000.0), ..GEMMA },
    // Classic, with layer norm.
    Row { name: "olmo", norm: Norm::NonParametric, ..Row::LLAMA },
    Row { name: "orion", norm: Norm::Layer, ..NEOX },
    Row { name: "stablelm", norm: Norm::Layer, residual: Residual::MissingNorm, ..NEOX },
    Row { name: "command-r", ..COHERE },
    Row { name: "cohere2", rope_layers: RopeLayers::Windowed, window: Window::Every { period: 4, tokens: 0 }, ..COHERE },
    Row { name: "gpt2", ..Row::GPT2 },
    Row { name: "starcoder", ..Row::GPT2 },
    Row { name: "starcoder2", rope: Rope::NeoX, ..Row::GPT2 },
    Row { name: "gptneox", rope: Rope::NeoX, residual: Residual::Key, ..Row::GPT2 },
    Row { name: "falcon", rope: Rope::NeoX, residual: Residual::Parallel, ..Row::GPT2 },
    Row { name: "phi2", rope: Rope::NeoX, residual: Residual::Parallel, ..Row::GPT2 },
    Row { name: "bloom", alibi: Alibi::Key(8.0), ..Row::GPT2 },
    Row { name: "mpt", alibi: Alibi::Key(0.0), qk_norm: QkNorm::QueryDecides, idle: &["attn_k_norm"], ..Row::GPT2 },
    Row { name: "jais", act: Glu::Plain(Act::Silu), alibi: Alibi::Key(0.0), attn_scale: AttnScale::Inverse, ..Row::GPT2 },
    Row { name: "jais2", rope: Rope::NeoX, act: Glu::Plain(Act::ReluSquared), ..Row::GPT2 },
    Row { name: "codeshell", rope: Rope::NeoX, ..Row::GPT2 },
    Row { name: "nemotron", rope: Rope::NeoX, act: Glu::Plain(Act::ReluSquared), ..Row::GPT2 },
    Row { name: "dbrx", norm: Norm::Layer, ffn_norm: "attn_output_norm", ..NEOX },
];
