//! What a row of the table says about an architecture: only what a model file does not tell by itself.
//!
//! Sizes come from the metadata, optional parts (biases, QK norms, shared experts, sinks, fused projections) from which tensors
//! are there. Every field is an enum or a default value; the builder interprets them and knows no names.

use crate::ops::{Act, Gate, Glu};

/// One architecture.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `general.architecture`, and the prefix of the metadata keys.
    pub name: &'static str,
    /// Which normalisation, everywhere.
    pub norm: Norm,
    /// Where a block is normalised.
    pub norms: Norms,
    /// The tensor that normalises the FFN's input.
    pub ffn_norm: &'static str,
    /// Whether attention and FFN follow each other.
    pub residual: Residual,
    /// What a layer may lack.
    pub layers: Layers,
    /// How wide a fused projection of queries, keys and values is.
    pub qkv: Qkv,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// Which layers turn them.
    pub rope_layers: RopeLayers,
    /// How rotation differs in layers with a window.
    pub window_rope: WindowRope,
    /// Which layers see a window only.
    pub window: Window,
    /// Linear biases on attention scores.
    pub alibi: Alibi,
    /// Factor on q·k where `attention.scale` is not given.
    pub attn_scale: AttnScale,
    /// Where the QK norms stand, if the file has them.
    pub qk_norm: QkNorm,
    /// Default of `attn_logit_softcapping`; 0 is none.
    pub attn_softcap: f32,
    /// Default of `final_logit_softcapping`; 0 is none.
    pub final_softcap: f32,
    /// The FFN's activation. Whether it is gated shows in the tensors.
    pub act: Glu,
    /// What a dense FFN's missing projection means.
    pub ffn: Ffn,
    /// How experts are chosen, where the file has any.
    pub router: Router,
    /// Which biases of the file take part.
    pub biases: Biases,
    /// Default of `embedding_scale`.
    pub embd_scale: Scale,
    /// Default of `residual_scale`, the factor on what a block adds.
    pub residual_scale: Scale,
    /// Default of `logit_scale`.
    pub logit_scale: Scale,
    /// What `logit_scale` does.
    pub logits: Logits,
    /// Beginnings of the names, within a layer, of tensors that files have and the reference loads and leaves alone.
    pub idle: &'static [&'static str],
}

/// A normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Root mean square.
    Rms,
    /// Layer norm, with a weight and perhaps a bias.
    Layer,
    /// Layer norm without parameters.
    NonParametric,
}

/// Where a block is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norms {
    /// What attention and FFN read.
    Pre,
    /// What attention and FFN give.
    Post,
    /// Both.
    Sandwich,
}

/// How attention and FFN add to the hidden state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// The FFN reads what attention has added to.
    Sequential,
    /// Both read the same hidden state; without an FFN norm of its own the FFN reads what attention reads.
    Parallel,
    /// The key `use_parallel_residual` tells.
    Key,
    /// Parallel where the FFN has no norm of its own.
    MissingNorm,
}

/// What a layer may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// Nothing.
    Whole,
    /// Parts that were pruned: no query heads is no attention, no key heads a plain projection in its place, and a network of width 0 is no
    /// layer at all. Source: arXiv 2411.19146; that a layer without a network has no attention either is the reference's reading.
    Pruned,
}

/// How wide a fused projection of queries, keys and values is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qkv {
    /// As wide as its heads.
    Heads,
    /// Three times the embedding length, however few the key heads: what lies beyond the values takes no part.
    ThreeEmbd,
}

/// How positions turn queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rope {
    /// Not at all.
    None,
    /// Neighbouring channels form pairs.
    Interleaved,
    /// Channels of the first half pair with those of the second.
    NeoX,
    /// NeoX where the file has `rope.dimension_sections` (text turns all sections alike), else interleaved.
    Sections,
}

/// Which layers turn queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayers {
    /// All.
    All,
    /// All but every n-th.
    SkipEvery(usize),
    /// Those with a window; all where no layer has one.
    Windowed,
    /// All, unless the key `rope.scaling.finetuned` says false.
    Finetuned,
    /// Those the key `attention.rope_pattern` lists; all without it.
    Pattern,
    /// All, in models of this many layers; none in others.
    Depth(usize),
}

/// How rotation differs in layers with a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WindowRope {
    /// Not, but for a `rope.freq_base_swa`.
    Same,
    /// Context-length scaling does not reach them.
    Unscaled,
    /// Unscaled, and `rope.freq_base_swa` has this default.
    Base(f64),
}

/// Which layers see only the last tokens. The keys `attention.sliding_window` and `attention.sliding_window_pattern` come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// None.
    None,
    /// All but the last of every `period` layers; `tokens` is the default size, 0 for no window.
    Every {
        /// Layers from one full layer to the next.
        period: usize,
        /// Default window.
        tokens: usize,
    },
    /// As `Every`, in models of `layers` layers; none in others.
    Depth {
        /// Layers of the model.
        layers: usize,
        /// Layers from one full layer to the next.
        period: usize,
        /// Default window.
        tokens: usize,
    },
}

/// Linear biases on attention scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Alibi {
    /// None.
    None,
    /// The key `attention.max_alibi_bias`, or this default.
    Key(f32),
    /// This largest bias in models of this many layers; none in others.
    Depth(usize, f32),
}

/// Factor on q·k.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttnScale {
    /// 1/√dim of a head.
    Head,
    /// 1/dim of a head.
    Inverse,
    /// 1/√(embedding length / heads) in models of this many layers, else as `Head`.
    EmbdAt(usize),
}

/// Where queries and keys are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Before they are turned.
    BeforeRope,
    /// After.
    AfterRope,
    /// Before, and only if the file has a norm for the queries: one for the keys alone takes no part.
    QueryDecides,
}

/// What a dense FFN's missing projection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ffn {
    /// An error.
    Whole,
    /// The identity.
    Partial,
}

/// How experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Router {
    /// With this gate; true normalises the chosen weights.
    Fixed(Gate, bool),
    /// The same as defaults for what `expert_gating_func` and `expert_weights_norm` tell.
    Keys(Gate, bool),
    /// The architecture has no experts: their tensors take no part.
    None,
}

/// Which biases of the file take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Biases {
    /// All.
    All,
    /// Those of queries, keys and values, and those of norms.
    Inputs,
}

/// A default factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scale {
    /// This.
    Is(f32),
    /// √(embedding length).
    SqrtEmbd,
    /// This, over the square root of the number of layers.
    OverSqrtLayers(f32),
    /// This, over the embedding length.
    OverEmbd(f32),
}

/// What `logit_scale` does to logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logits {
    /// Multiplies.
    Times,
    /// Divides.
    Over,
}

impl Row {
    /// Llama, and what most architectures share: the row that others are written as differences from.
    pub const LLAMA: Row = Row {
        name: "llama",
        norm: Norm::Rms,
        norms: Norms::Pre,
        ffn_norm: "ffn_norm",
        residual: Residual::Sequential,
        layers: Layers::Whole,
        qkv: Qkv::Heads,
        rope: Rope::Interleaved,
        rope_layers: RopeLayers::All,
        window_rope: WindowRope::Same,
        window: Window::None,
        alibi: Alibi::None,
        attn_scale: AttnScale::Head,
        qk_norm: QkNorm::BeforeRope,
        attn_softcap: 0.0,
        final_softcap: 0.0,
        act: Glu::Plain(Act::Silu),
        ffn: Ffn::Whole,
        router: Router::Fixed(Gate::Softmax, true),
        biases: Biases::All,
        embd_scale: Scale::Is(1.0),
        residual_scale: Scale::Is(1.0),
        logit_scale: Scale::Is(1.0),
        logits: Logits::Times,
        idle: &[],
    };

    /// GPT-2, and what the classic LayerNorm models share.
    pub const GPT2: Row =
        Row { name: "gpt2", norm: Norm::Layer, rope: Rope::None, act: Glu::Plain(Act::Gelu), ..Row::LLAMA };
}

impl Row {
    /// Whether positions reach the model only through a learned table.
    pub fn needs_positions(&self) -> bool {
        self.rope == Rope::None && self.alibi == Alibi::None
    }
}
