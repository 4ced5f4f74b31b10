//! A model's shape: the row of its architecture with the sizes of its file and the index of its tensors.

use super::builder::Cells;
use super::factors::{read_act_factors, read_weight_scales};
use super::keys::Keys;
use super::rope::Rotation;
use super::row::*;
use super::table::ROWS;
use super::{census, known};
use crate::base::{DType, Error, Meta, Result};
use crate::gguf::Gguf;
use crate::ops::{CacheTypes, Gate, PAGE_CELLS};
use regex::Regex;
use std::collections::HashMap;

/// Everything the builder needs to know of a model file. Holds no weights, only their shapes and a few small tables.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The architecture's row.
    pub(super) row: &'static Row,
    /// Tokens the model was made for (`context_length`).
    pub context_length: usize,
    /// Tokens in the vocabulary: rows of the embedding.
    pub vocab: usize,
    /// Width of the hidden state (`embedding_length`).
    pub n_embd: usize,
    /// Width of a head's query and key.
    pub key_dim: usize,
    /// Width of a head's value.
    pub value_dim: usize,
    /// Experts per layer; 0 in dense models.
    pub experts: usize,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// Layers in the file: those, and such as predict further tokens.
    pub(super) blocks: usize,
    /// Added under the root of every norm.
    pub(super) eps: f32,
    pub(super) parallel: bool,
    pub(super) attn: Attn,
    pub(super) scales: Scales,
    pub(super) router: Option<RouterSpec>,
    pub(super) rotation: Rotation,
    pub(super) tensors: HashMap<String, Meta>,
    /// 1 / `ffn.act.scales`, by layer.
    pub(super) act_factors: HashMap<usize, Vec<f32>>,
    /// What products are multiplied by, by the name of the tensor that says so.
    pub(super) weight_scales: HashMap<String, Vec<f32>>,
    /// Metadata keys of the file that nothing is known of.
    pub unknown_keys: Vec<String>,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Query heads; 0 for a layer without attention.
    pub heads: usize,
    /// Key and value heads; 0 if attention is a plain projection.
    pub kv_heads: usize,
    /// Tokens it sees, itself included; 0 for all.
    pub window: usize,
    /// Experts chosen per token.
    pub experts_used: usize,
    /// Whether positions turn queries and keys.
    pub(super) rope: bool,
    /// Whether the metadata give it a feed-forward network.
    pub(super) ffn: bool,
}

/// What all attention layers share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Attn {
    pub scale: f32,
    pub softcap: f32,
    pub max_bias: f32,
    pub clamp: f32,
    /// How much queries grow with the logarithm of their position, in units of the original context; 0 for not at all.
    pub temperature: f32,
}

/// Factors along the hidden state's way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scales {
    pub embd: f32,
    pub residual: f32,
    pub logits: f32,
    pub final_softcap: f32,
}

/// How experts are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RouterSpec {
    pub gate: Gate,
    pub normalize: bool,
    pub scale: f32,
}

/// The names of all architectures with a row.
pub fn supported() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

fn find_row(name: &str) -> Result<&'static Row> {
    ROWS.iter().find(|row| row.name == name).ok_or_else(|| {
        let mut names: Vec<_> = supported().collect();
        names.sort_unstable();
        Error::unsupported(format!("models of the architecture '{name}' cannot be run"))
            .help(format!("these can: {}", names.join(", ")))
    })
}

impl Spec {
    /// Reads a model file's shape. Fails for an architecture without a row, for keys or tensors that are missing or do not fit, and for
    /// such as nothing here reads.
    pub fn read(gguf: &Gguf) -> Result<Spec> {
        Self::read_ignoring(gguf, None)
    }

    /// As [`read`](Self::read), but tensors whose names match `ignored` need not be read by anything.
    pub fn read_ignoring(gguf: &Gguf, ignored: Option<&Regex>) -> Result<Spec> {
        let spec = Self::read_shape(gguf)?;
        census::check(&spec, gguf, ignored)?;
        Ok(spec)
    }

    fn read_shape(gguf: &Gguf) -> Result<Spec> {
        let metadata = gguf.metadata();
        let name = metadata.str("general.architecture")?.ok_or_else(|| {
            Error::format("the file has no key general.architecture").help("it holds no model, or is damaged")
        })?;
        let row = find_row(name)?;
        let keys = Keys::new(metadata, name);
        let tensors: HashMap<String, Meta> =
            gguf.tensors().iter().map(|t| (t.name.clone(), Meta::new(t.dtype, t.shape))).collect();
        let n_embd = keys.need_size("embedding_length")?;
        let layers = read_layers(&keys, row, tensors.len())?;
        let heads = layers.iter().map(|l| l.heads).max().unwrap_or(0);
        if heads == 0 {
            return Err(
                Error::format("no layer has attention heads").at(format!("key {}", keys.name("attention.head_count")))
            );
        }
        let key_dim = keys.size("attention.key_length")?.unwrap_or(n_embd / heads);
        let value_dim = keys.size("attention.value_length")?.unwrap_or(n_embd / heads);
        check_heads(&keys, row, &layers, key_dim.max(value_dim))?;
        let embd = tensors.get("token_embd.weight").or_else(|| tensors.get("output.weight"));
        let embd = embd.ok_or_else(|| super::builder::missing(row, "token_embd.weight"))?;
        let experts = keys.size("expert_count")?.unwrap_or(0);
        Ok(Spec {
            row,
            context_length: keys.need_size("context_length")?,
            vocab: embd.outer(),
            n_embd,
            key_dim,
            value_dim,
            experts,
            eps: keys.need_factor(match row.norm {
                Norm::Rms => "attention.layer_norm_rms_epsilon",
                Norm::Layer | Norm::NonParametric => "attention.layer_norm_epsilon",
            })?,
            parallel: read_parallel(&keys, row, &tensors)?,
            attn: read_attn(&keys, row, n_embd, key_dim, heads, layers.len())?,
            scales: read_scales(&keys, row, n_embd, layers.len())?,
            router: read_router(&keys, row)?,
            rotation: Rotation::read(&keys, row, gguf, key_dim)?,
            act_factors: read_act_factors(gguf, layers.len())?,
            weight_scales: read_weight_scales(gguf)?,
            unknown_keys: known::check(metadata, &keys)?,
            layers,
            blocks: keys.need_size("block_count")?,
            tensors,
        })
    }

    /// `general.architecture`.
    pub fn architecture(&self) -> &'static str {
        self.row.name
    }

    /// What the table says about the architecture.
    pub fn row(&self) -> &'static Row {
        self.row
    }

    /// The largest window of a layer with its own cache, if there is one.
    pub fn window(&self) -> Option<usize> {
        self.layers.iter().filter(|layer| layer.kv_heads > 0).map(|layer| layer.window).max().filter(|n| *n > 0)
    }

    /// Bytes of keys and values in caches like these.
    pub fn cache_bytes(&self, cells: &Cells, kv: CacheTypes) -> usize {
        self.cache_parts(cells, kv).flatten().sum()
    }

    /// Bytes of the largest part of the cache: of a layer's keys, or of its values.
    pub fn largest_cache(&self, cells: &Cells, kv: CacheTypes) -> usize {
        self.cache_parts(cells, kv).flatten().max().unwrap_or(0)
    }

    /// Bytes of each layer's keys and values.
    fn cache_parts(&self, cells: &Cells, kv: CacheTypes) -> impl Iterator<Item = [usize; 2]> {
        self.layers.iter().map(move |layer| {
            let heads = layer.kv_heads * cells.pages_of(cells.group(layer.window)) * PAGE_CELLS;
            let bytes = |dim: usize, of: DType| heads * dim * of.block_bytes() / of.block();
            [bytes(self.key_dim, kv.keys), bytes(self.value_dim, kv.values)]
        })
    }
}

/// The layers by count, heads, windows and rotation. `tensors`, the number of tensors in the file, bounds what is believed.
fn read_layers(keys: &Keys, row: &Row, tensors: usize) -> Result<Vec<Layer>> {
    let all = keys.need_size("block_count")?;
    if all > tensors {
        return Err(Error::format(format!("{all} layers in a file of {tensors} tensors"))
            .at(format!("key {}", keys.name("block_count")))
            .help("the file is damaged or holds only a vocabulary: use another"));
    }
    // Layers that predict further tokens stand after the others and take no part in plain decoding.
    let n = all.saturating_sub(keys.size("nextn_predict_layers")?.unwrap_or(0));
    let heads = keys.per_layer("attention.head_count", all)?.ok_or_else(|| keys.missing("attention.head_count"))?;
    let kv_heads = keys.per_layer("attention.head_count_kv", all)?.unwrap_or_else(|| heads.clone());
    let used = keys.per_layer("expert_used_count", all)?.unwrap_or_else(|| vec![0; all]);
    let ffn = keys.per_layer("feed_forward_length", all)?;
    let windows = read_windows(keys, row, n)?;
    let rope = rotated_layers(keys, row, &windows)?;
    let layer = |i: usize| {
        let network = ffn.as_ref().is_none_or(|n| n[i] > 0);
        let skipped = row.layers == Layers::Pruned && !network;
        Layer {
            heads: if skipped { 0 } else { heads[i] },
            kv_heads: if skipped { 0 } else { kv_heads[i] },
            window: windows[i],
            experts_used: used[i],
            rope: rope[i],
            ffn: network,
        }
    };
    Ok((0..n).map(layer).collect())
}

fn check_heads(keys: &Keys, row: &Row, layers: &[Layer], dim: usize) -> Result<()> {
    let wrong = |what: String| Err(Error::format(what).at(format!("key {}", keys.name("attention.head_count"))));
    for (i, l) in layers.iter().enumerate() {
        if row.layers == Layers::Whole && (l.heads == 0 || l.kv_heads == 0) {
            let key = if l.heads == 0 { "attention.head_count" } else { "attention.head_count_kv" };
            let what = format!("layer {i} has {} query heads and {} key heads", l.heads, l.kv_heads);
            return Err(Error::format(what)
                .at(format!("key {}", keys.name(key)))
                .help("layers of this architecture have attention: download or convert the model again"));
        }
        if l.kv_heads > 0 && !l.heads.is_multiple_of(l.kv_heads) {
            return wrong(format!("layer {i} has {} query heads for {} key heads", l.heads, l.kv_heads));
        }
        if l.heads.checked_add(2 * l.kv_heads).and_then(|n| n.checked_mul(dim)).is_none_or(|n| n > u32::MAX as usize) {
            return wrong(format!("layer {i} has {} heads of {dim}", l.heads));
        }
    }
    Ok(())
}

/// Each layer's window, 0 for none.
fn read_windows(keys: &Keys, row: &Row, layers: usize) -> Result<Vec<usize>> {
    let (period, tokens) = match row.window {
        Window::Every { period, tokens } => (period, tokens),
        Window::Depth { layers: depth, period, tokens } if depth == layers => (period, tokens),
        Window::None | Window::Depth { .. } => return Ok(vec![0; layers]),
    };
    let tokens = keys.size("attention.sliding_window")?.unwrap_or(tokens);
    let pattern = "attention.sliding_window_pattern";
    if let Some(marks) = keys.marked_layers(pattern, layers)? {
        return Ok(marks.into_iter().map(|mark| if mark { tokens } else { 0 }).collect());
    }
    let array = keys.name(pattern);
    let period = keys.size(pattern).map_err(|e| e.at(array))?.unwrap_or(period);
    Ok((0..layers).map(|i| if i % period + 1 < period { tokens } else { 0 }).collect())
}

/// Which layers turn their queries and keys.
fn rotated_layers(keys: &Keys, row: &Row, windows: &[usize]) -> Result<Vec<bool>> {
    let n = windows.len();
    let all = |yes: bool| Ok(vec![yes; n]);
    if row.rope == Rope::None {
        return all(false);
    }
    match row.rope_layers {
        RopeLayers::All => all(true),
        RopeLayers::SkipEvery(step) => Ok((1..=n).map(|i| !i.is_multiple_of(step)).collect()),
        RopeLayers::Windowed if windows.iter().all(|w| *w == 0) => all(true),
        RopeLayers::Windowed => Ok(windows.iter().map(|w| *w > 0).collect()),
        RopeLayers::Finetuned => all(keys.flag("rope.scaling.finetuned")?.unwrap_or(true)),
        RopeLayers::Pattern => Ok(keys.marked_layers("attention.rope_pattern", n)?.unwrap_or_else(|| vec![true; n])),
        RopeLayers::Depth(depth) => all(n == depth),
    }
}

fn read_parallel(keys: &Keys, row: &Row, tensors: &HashMap<String, Meta>) -> Result<bool> {
    Ok(match row.residual {
        Residual::Sequential => false,
        Residual::Parallel => true,
        Residual::Key => keys.flag("use_parallel_residual")?.unwrap_or(false),
        Residual::MissingNorm => !tensors.contains_key(&format!("blk.0.{}.weight", row.ffn_norm)),
    })
}

fn read_attn(keys: &Keys, row: &Row, n_embd: usize, dim: usize, heads: usize, layers: usize) -> Result<Attn> {
    let scale = match row.attn_scale {
        AttnScale::Inverse => 1.0 / dim as f32,
        AttnScale::EmbdAt(depth) if depth == layers => 1.0 / ((n_embd / heads) as f32).sqrt(),
        AttnScale::Head | AttnScale::EmbdAt(_) => 1.0 / (dim as f32).sqrt(),
    };
    Ok(Attn {
        scale: keys.factor("attention.scale")?.unwrap_or(scale),
        softcap: keys.factor("attn_logit_softcapping")?.unwrap_or(row.attn_softcap),
        max_bias: match row.alibi {
            Alibi::None => 0.0,
            Alibi::Key(default) => keys.factor("attention.max_alibi_bias")?.unwrap_or(default),
            Alibi::Depth(depth, bias) => {
                if depth == layers {
                    bias
                } else {
                    0.0
                }
            }
        },
        clamp: keys.factor("attention.clamp_kqv")?.unwrap_or(0.0),
        temperature: keys.factor("attention.temperature_scale")?.unwrap_or(0.0),
    })
}

fn read_scales(keys: &Keys, row: &Row, n_embd: usize, layers: usize) -> Result<Scales> {
    let default = |scale| match scale {
        Scale::Is(x) => x,
        Scale::SqrtEmbd => (n_embd as f32).sqrt(),
        Scale::OverSqrtLayers(x) => x / (layers as f32).sqrt(),
        Scale::OverEmbd(x) => x / n_embd as f32,
    };
    let logits = keys.factor("logit_scale")?.unwrap_or(default(row.logit_scale));
    Ok(Scales {
        embd: keys.factor("embedding_scale")?.unwrap_or(default(row.embd_scale)),
        residual: keys.factor("residual_scale")?.unwrap_or(default(row.residual_scale)),
        logits: match row.logits {
            Logits::Times => logits,
            Logits::Over => 1.0 / logits,
        },
        final_softcap: keys.factor("final_logit_softcapping")?.unwrap_or(row.final_softcap),
    })
}

fn read_router(keys: &Keys, row: &Row) -> Result<Option<RouterSpec>> {
    let (gate, normalize) = match row.router {
        Router::None => return Ok(None),
        Router::Fixed(gate, normalize) => (gate, normalize),
        Router::Keys(gate, normalize) => {
            let gate = match keys.size("expert_gating_func")? {
                None => gate,
                Some(1) => Gate::Softmax,
                Some(2) => Gate::Sigmoid,
                Some(3) => Gate::SoftmaxOfChosen,
                Some(n) => {
                    let at = format!("key {}", keys.name("expert_gating_func"));
                    return Err(Error::unsupported(format!("router {n} is unknown")).at(at));
                }
            };
            (gate, keys.flag("expert_weights_norm")?.unwrap_or(normalize))
        }
    };
    if keys.size("expert_group_count")?.is_some_and(|n| n > 1) {
        return Err(
            Error::unsupported("experts chosen by groups").at(format!("key {}", keys.name("expert_group_count")))
        );
    }
    Ok(Some(RouterSpec { gate, normalize, scale: keys.factor("expert_weights_scale")?.unwrap_or(1.0) }))
}
