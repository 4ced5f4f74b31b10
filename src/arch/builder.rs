//! From a [`Spec`] to a graph: embedding, layers, head. What a row leaves open is decided by which tensors the file has.

use super::row::{Biases, Norm, Norms, Row};
use super::spec::{Layer, Spec};
use crate::base::{DType, Error, Meta, Result, Role, Shape};
use crate::graph::{Graph, Input, Tensor};
use crate::ops::{
    Add, AnyOp, CacheTypes, GetRows, LayerNorm, MatMul, Mul, PAGE_CELLS, RmsNorm, Sample, Unary, places_len,
};

/// The shape of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Batch {
    /// What its rows are.
    pub role: Role,
    /// Tokens it reads.
    pub tokens: usize,
    /// Rows of logits that are wanted, their tokens listed in [`Input::Rows`]; 0 only fills the cache. Answers need no list: each
    /// has a row, or none has.
    pub rows: usize,
    /// Positions of a sequence at the most.
    pub context: usize,
    /// What the cache is.
    pub pool: Cells,
    /// Types of the cache.
    pub kv: CacheTypes,
    /// Draw the next tokens from the logits and move the positions on, as [`Sample`] says.
    pub sample: bool,
}

/// Prefixes to continue from, of layers with windows, take at most this part of what sequences may take.
const ANCHOR_SHARE: usize = 4;
/// So many of them are kept at the most.
pub const MOST_ANCHORS: usize = 32;

/// How large the caches of layers are, and the tables of all sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cells {
    /// Pages of layers that see all cells before.
    pub pages: usize,
    /// Pages of layers with a window; 0: they have the same as the others.
    pub window_pages: usize,
    /// Pages in all tables together.
    pub table: usize,
}

impl Cells {
    /// For sequences of up to `context` tokens each, `cells` in all, whose prompts are computed `batch` tokens at a time. Layers with a
    /// window keep it, for each sequence and for prefixes to continue from, if that is less than all.
    pub fn of(spec: &Spec, sequences: usize, cells: usize, context: usize, batch: usize) -> Cells {
        let pages = cells.div_ceil(PAGE_CELLS);
        let of_sequence = context.div_ceil(PAGE_CELLS);
        let Some(window) = spec.window() else {
            return Cells { pages, window_pages: 0, table: sequences * of_sequence };
        };
        // A token more than the batch is written ahead.
        let own = (window + batch).div_ceil(PAGE_CELLS) + 1;
        let heads = |windowed: bool| -> usize {
            spec.layers.iter().filter(|layer| (layer.window > 0) == windowed).map(|layer| layer.kv_heads).sum()
        };
        // Anchors may take a quarter more than the rest.
        let (all, windowed) = (pages * heads(false) + sequences * own * heads(true), heads(true).max(1));
        let anchor = window.div_ceil(PAGE_CELLS) + 1;
        let anchors = (all / windowed / ANCHOR_SHARE / anchor).min(MOST_ANCHORS) * anchor;
        let window_pages = sequences * own + anchors;
        match window_pages < pages {
            true => Cells { pages, window_pages, table: 2 * sequences * of_sequence },
            false => Cells { pages, window_pages: 0, table: sequences * of_sequence },
        }
    }

    /// For one sequence of so many tokens, of which all layers keep all.
    pub fn of_one(context: usize) -> Cells {
        let pages = context.div_ceil(PAGE_CELLS);
        Cells { pages, window_pages: 0, table: pages }
    }

    /// The same, but all layers keep all.
    pub fn without_windows(self) -> Cells {
        let table = if self.window_pages > 0 { self.table / 2 } else { self.table };
        Cells { window_pages: 0, table, ..self }
    }

    /// Groups of layers that share a numbering of pages.
    pub fn groups(&self) -> usize {
        if self.window_pages == 0 { 1 } else { 2 }
    }

    /// The group of a layer, by its window (0: none).
    pub fn group(&self, window: usize) -> usize {
        usize::from(window > 0 && self.window_pages > 0)
    }

    /// Pages of a group.
    pub fn pages_of(&self, group: usize) -> usize {
        if group == 0 { self.pages } else { self.window_pages }
    }
}

impl Batch {
    /// Of one sequence alone: a batch of several tokens is of its prompt, of one token of its answer.
    pub fn of_one(tokens: usize, rows: usize, context: usize, kv: CacheTypes, sample: bool) -> Batch {
        let role = if tokens == 1 { Role::Answer } else { Role::Prompt };
        Batch { role, tokens, rows, context, pool: Cells::of_one(context), kv, sample }
    }
}

/// Builds the graph of one run.
///
/// Inputs: [`Input::Tokens`] `[tokens]`, [`Input::Places`], [`Input::Rows`] `[rows]` (of prompts), and [`Input::Sampler`] if the batch
/// samples. Output: logits `[rows, vocab]`, or the drawn tokens `[rows]`, which are the first of the tokens, or nothing if no rows
/// are wanted. Fails if a tensor is missing or has another shape than the metadata say.
pub fn build(spec: &Spec, batch: &Batch) -> Result<Graph> {
    // Pieces are of many sequences, and some rows none.
    let fits = match batch.role {
        Role::Answer => [0, batch.tokens].contains(&batch.rows),
        Role::Prompt => batch.context >= batch.tokens,
        Role::Piece => true,
    };
    if batch.tokens == 0 || !fits || batch.rows > batch.tokens || batch.sample && batch.rows == 0 {
        return Err(Error::usage(format!("no graph for {batch:?}")));
    }
    let mut g = Graph::new();
    g.role = batch.role;
    let tokens = g.input(Input::Tokens, Meta::new(DType::U32, [batch.tokens]));
    let pool = &batch.pool;
    let words = places_len(batch.tokens, pool.groups(), pool.table);
    let places = g.input(Input::Places, Meta::new(DType::U32, [words]));
    let positions = places.rows(0, batch.tokens);
    let mut b = Builder { g, spec, row: spec.row, batch: *batch, layer: None, places, positions };
    let mut x = b.embed(tokens)?;
    let last = spec.layers.iter().rposition(|l| l.kv_heads > 0);
    for (i, layer) in spec.layers.iter().enumerate() {
        b.layer = Some(i);
        b.g.set_layer(Some(i as u32));
        match b.layer(layer, x, last == Some(i))? {
            Some(y) => x = y,
            None => return Ok(b.g),
        }
    }
    b.layer = None;
    b.g.set_layer(None);
    let logits = b.head(x)?;
    b.g.output = Some(if batch.sample { b.sample(tokens, logits)? } else { logits });
    Ok(b.g)
}

/// The error for a tensor that the file lacks.
pub(super) fn missing(row: &Row, name: &str) -> Error {
    Error::format(format!("the file has no tensor {name}"))
        .help(format!("it is no whole model of the architecture {}: download or convert it again", row.name))
}

/// A graph in the making.
pub(super) struct Builder<'a> {
    pub g: Graph,
    pub spec: &'a Spec,
    pub row: &'static Row,
    pub batch: Batch,
    /// The layer whose tensors are meant.
    pub layer: Option<usize>,
    /// See [`places_len`].
    pub places: Tensor,
    /// `[tokens]` `u32`
    pub positions: Tensor,
}

impl Builder<'_> {
    /// Whole name of a tensor of this layer, or of the model outside of layers. An empty suffix has no dot.
    pub fn name(&self, label: &str, suffix: &str) -> String {
        let block = self.layer.map_or_else(String::new, |i| format!("blk.{i}."));
        let dot = if suffix.is_empty() { "" } else { "." };
        format!("{block}{label}{dot}{suffix}")
    }

    /// What the file says of a tensor.
    pub fn meta(&self, label: &str, suffix: &str) -> Option<Meta> {
        self.spec.tensors.get(&self.name(label, suffix)).copied()
    }

    /// Whether the file has this weight.
    pub fn has(&self, label: &str) -> bool {
        self.meta(label, "weight").is_some()
    }

    /// What the file says of a weight that has to be there.
    pub fn need(&self, label: &str) -> Result<Meta> {
        self.meta(label, "weight").ok_or_else(|| missing(self.row, &self.name(label, "weight")))
    }

    /// A tensor that has to be there, in this shape (a vector may stand for a matrix of one row).
    pub fn tensor(&mut self, label: &str, suffix: &str, shape: impl Into<Shape>) -> Result<Tensor> {
        let (name, shape) = (self.name(label, suffix), shape.into());
        let meta = self.spec.tensors.get(&name).copied().ok_or_else(|| missing(self.row, &name))?;
        let trim = |s: &Shape| s.dims().iter().copied().skip_while(|n| *n == 1).collect::<Vec<_>>();
        if trim(&meta.shape) != trim(&shape) {
            return Err(Error::format(format!("its shape is {:?} where {shape:?} is wanted", meta.shape))
                .at(format!("tensor {name}")));
        }
        Ok(self.g.weight(&name, Meta::new(meta.dtype, shape)))
    }

    /// y = W · x, with the bias if the file has one and `bias` lets it take part. W is `[n, k]`, x `[tokens, k]`.
    pub fn linear(&mut self, label: &'static str, x: Tensor, n: usize, bias: bool) -> Result<Tensor> {
        let weight = self.tensor(label, "weight", [n, x.meta.inner()])?;
        let bias = match bias && self.meta(label, "bias").is_some() {
            true => Some(self.tensor(label, "bias", [n])?),
            false => None,
        };
        self.product(label, weight, x, bias)
    }

    /// y = s · W · x (+ bias), where the file has a scale s for the weight.
    fn product(&mut self, label: &'static str, weight: Tensor, x: Tensor, bias: Option<Tensor>) -> Result<Tensor> {
        let name = self.name(label, "scale");
        let Some(scale) = self.spec.weight_scales.get(&name) else {
            let src: Vec<Tensor> = [weight, x].into_iter().chain(bias).collect();
            return self.g.op(label, MatMul, &src);
        };
        let [scale] = scale[..] else {
            return Err(Error::format(format!("{} scales for one matrix", scale.len())).at(format!("tensor {name}")));
        };
        let y = self.g.op(label, MatMul, &[weight, x])?;
        let y = self.g.op(label, Unary::Scale(scale), &[y])?;
        bias.map_or(Ok(y), |bias| self.g.op(label, Add { scale: 1.0 }, &[y, bias]))
    }

    /// Whether biases of projections other than those of queries, keys and values take part.
    pub fn biases(&self) -> bool {
        self.row.biases == Biases::All
    }

    /// The row's norm over the last dimension, with weights of this shape.
    pub fn norm(&mut self, label: &'static str, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
        let (eps, shape) = (self.spec.eps, shape.into());
        let op: AnyOp = match self.row.norm {
            Norm::Rms => RmsNorm { eps }.into(),
            Norm::Layer => LayerNorm { eps }.into(),
            Norm::NonParametric => return self.g.op(label, LayerNorm { eps }, &[x]),
        };
        let mut src = vec![x, self.tensor(label, "weight", shape)?];
        if self.meta(label, "bias").is_none() {
            return self.g.op(label, op, &src);
        }
        let bias = self.tensor(label, "bias", shape)?;
        if self.row.norm == Norm::Layer {
            src.push(bias);
            return self.g.op(label, op, &src);
        }
        let y = self.g.op(label, op, &src)?;
        self.g.op(label, Add { scale: 1.0 }, &[y, bias])
    }

    /// The norm of a hidden state.
    fn hidden_norm(&mut self, label: &'static str, x: Tensor) -> Result<Tensor> {
        self.norm(label, x, [self.spec.n_embd])
    }

    fn embed(&mut self, tokens: Tensor) -> Result<Tensor> {
        let (vocab, n_embd) = (self.spec.vocab, self.spec.n_embd);
        let table = if self.has("token_embd") { "token_embd" } else { "output" };
        let table = self.tensor(table, "weight", [vocab, n_embd])?;
        let mut x = self.g.op("token_embd", GetRows { scale: self.spec.scales.embd }, &[table, tokens])?;
        if self.has("position_embd") || self.row.needs_positions() {
            let rows = self.need("position_embd")?.outer();
            if self.batch.context > rows {
                return Err(Error::usage(format!(
                    "a context of {} tokens, but the model has learned {rows} positions",
                    self.batch.context
                ))
                .help(format!("choose at most -c {rows}")));
            }
            let table = self.tensor("position_embd", "weight", [rows, n_embd])?;
            let learned = self.g.op("position_embd", GetRows { scale: 1.0 }, &[table, self.positions])?;
            x = self.g.op("position_embd", Add { scale: 1.0 }, &[x, learned])?;
        }
        if self.has("token_embd_norm") {
            x = self.hidden_norm("token_embd_norm", x)?;
        }
        Ok(x)
    }

    /// One layer. After the `last` attention only the wanted rows go on: `None` if there are none.
    fn layer(&mut self, layer: &Layer, x: Tensor, last: bool) -> Result<Option<Tensor>> {
        let pre = self.row.norms != Norms::Post;
        let (mut x, mut normed, mut mixed) = (x, x, None);
        if layer.heads > 0 {
            if pre {
                normed = self.hidden_norm("attn_norm", x)?;
            }
            let second = self.spec.parallel && self.has("attn_norm_2");
            let read = if second { self.hidden_norm("attn_norm_2", x)? } else { normed };
            let Some(mut y) = self.token_mixer(layer, read, last)? else { return Ok(None) };
            if self.row.norms != Norms::Pre {
                y = self.hidden_norm("post_attention_norm", y)?;
            }
            if last {
                x = self.select_outputs(x)?;
            }
            mixed = Some(y);
        }
        if self.spec.parallel {
            return self.parallel(x, normed, mixed, last).map(Some);
        }
        if let Some(y) = mixed {
            x = self.add("attn_residual", x, y)?;
        }
        // A pruned layer may have no network at all.
        if !layer.ffn && !self.has_ffn() {
            return Ok(Some(x));
        }
        let read = if pre { self.hidden_norm(self.row.ffn_norm, x)? } else { x };
        let mut y = self.ffn(layer, read)?;
        if self.row.norms != Norms::Pre {
            y = self.hidden_norm("post_ffw_norm", y)?;
        }
        self.add("ffn_residual", x, y).map(Some)
    }

    /// The network beside attention: both read the same hidden state and add to it.
    fn parallel(&mut self, x: Tensor, normed: Tensor, mixed: Option<Tensor>, last: bool) -> Result<Tensor> {
        let layer = self.spec.layers[self.layer.expect("inside a layer")];
        let read = if self.has(self.row.ffn_norm) {
            self.hidden_norm(self.row.ffn_norm, x)?
        } else if last {
            self.select_outputs(normed)?
        } else {
            normed
        };
        let y = self.ffn(&layer, read)?;
        let x = self.add("ffn_residual", x, y)?;
        mixed.map_or(Ok(x), |y| self.add("attn_residual", x, y))
    }

    /// x plus what a block gives, scaled as the model wants it.
    fn add(&mut self, label: &'static str, x: Tensor, y: Tensor) -> Result<Tensor> {
        self.g.op(label, Add { scale: self.spec.scales.residual }, &[x, y])
    }

    /// The mixer of a layer; `None` if nothing is wanted beyond the cache.
    fn token_mixer(&mut self, layer: &Layer, x: Tensor, last: bool) -> Result<Option<Tensor>> {
        if layer.kv_heads == 0 {
            return self.linear("attn_output", x, self.spec.n_embd, self.biases()).map(Some);
        }
        self.attention(layer, x, last)
    }

    /// The rows of a tensor `[tokens, n]` whose logits are wanted.
    pub fn select_outputs(&mut self, x: Tensor) -> Result<Tensor> {
        if self.batch.role == Role::Answer {
            return Ok(x);
        }
        let rows = self.g.input(Input::Rows, Meta::new(DType::U32, [self.batch.rows]));
        self.g.op("rows", GetRows { scale: 1.0 }, &[x, rows])
    }

    fn head(&mut self, x: Tensor) -> Result<Tensor> {
        let (vocab, scales) = (self.spec.vocab, self.spec.scales);
        let x = self.hidden_norm("output_norm", x)?;
        // Without a matrix of their own, logits come from the embedding's.
        let table = if self.has("output") { "output" } else { "token_embd" };
        let weight = self.tensor(table, "weight", [vocab, self.spec.n_embd])?;
        let bias = match self.meta("output", "bias") {
            Some(_) => Some(self.tensor("output", "bias", [vocab])?),
            None => None,
        };
        let mut logits = self.product("output", weight, x, bias)?;
        if scales.logits != 1.0 {
            logits = self.g.op("logit_scale", Unary::Scale(scales.logits), &[logits])?;
        }
        if scales.final_softcap != 0.0 {
            logits = self.g.op("logit_softcap", Unary::Softcap(scales.final_softcap), &[logits])?;
        }
        Ok(logits)
    }

    /// Draws the next tokens into the first of the tokens and moves the positions on.
    fn sample(&mut self, tokens: Tensor, logits: Tensor) -> Result<Tensor> {
        let params = self.g.input(Input::Sampler, Meta::new(DType::U32, [self.batch.rows, Sample::PARAMS]));
        let tokens = self.g.op("sample", Sample, &[tokens, logits, params, self.positions])?;
        Ok(tokens.rows(0, self.batch.rows))
    }

    /// Multiplies each token's values by a factor of its own: `[tokens, 1]`.
    pub fn gate(&mut self, label: &'static str, x: Tensor, gate: Tensor) -> Result<Tensor> {
        self.g.op(label, Mul, &[x, gate])
    }
}
