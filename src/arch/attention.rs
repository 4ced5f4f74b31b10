//! The attention mixer: projections, QK norms, rotation, cache, attention over the cache, output projection.

use super::builder::Builder;
use super::row::{QkNorm, Qkv};
use super::spec::Layer;
use crate::base::{DType, Error, Meta, Result};
use crate::graph::{Cache, CachePart, Tensor};
use crate::ops::{Add, Attention, GetRows, KvStore, PAGE_CELLS, Rope, Unary};

/// Queries, keys and values, each `[tokens, heads, dim]`.
struct Projected {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Builder<'_> {
    /// Attention of `x` `[tokens, n_embd]`. After the `last` attention only the wanted rows go on: `None` if there are none.
    pub fn attention(&mut self, layer: &Layer, x: Tensor, last: bool) -> Result<Option<Tensor>> {
        let Projected { mut q, mut k, v } = self.project(layer, x)?;
        match self.row.qk_norm {
            QkNorm::AfterRope => {
                (q, k) = self.rotate(layer, q, k)?;
                (q, k) = self.qk_norms(q, k)?;
            }
            QkNorm::BeforeRope | QkNorm::QueryDecides => {
                (q, k) = self.qk_norms(q, k)?;
                (q, k) = self.rotate(layer, q, k)?;
            }
        }
        let group = self.batch.pool.group(layer.window);
        let (keys, values) = (self.cache(CachePart::Key, group, k), self.cache(CachePart::Value, group, v));
        self.g.op("cache", KvStore { group }, &[keys, values, k, v, self.places])?;
        if last && self.batch.rows == 0 {
            return Ok(None);
        }
        let q = self.attention_temperature(q)?;
        let attn = self.spec.attn;
        let op = Attention {
            scale: attn.scale,
            window: layer.window,
            softcap: attn.softcap,
            max_bias: attn.max_bias,
            role: self.batch.role,
            group,
            context: self.batch.context,
        };
        let mut src = vec![q, keys, values, self.places];
        if self.has("attn_sinks") {
            src.push(self.tensor("attn_sinks", "weight", [layer.heads])?);
        }
        let y = self.g.op("attention", op, &src)?;
        let mut y = y.reshape([self.batch.tokens, layer.heads * self.spec.value_dim]);
        if last {
            y = self.select_outputs(y)?;
        }
        self.linear("attn_output", y, self.spec.n_embd, self.biases()).map(Some)
    }

    /// Queries, keys and values from one fused projection or from three.
    fn project(&mut self, layer: &Layer, x: Tensor) -> Result<Projected> {
        let (tokens, dim, value_dim) = (self.batch.tokens, self.spec.key_dim, self.spec.value_dim);
        let (nq, nk, nv) = (layer.heads * dim, layer.kv_heads * dim, layer.kv_heads * value_dim);
        let (q, k, v);
        if self.has("attn_qkv") {
            let width = match self.row.qkv {
                Qkv::Heads => nq + nk + nv,
                Qkv::ThreeEmbd => (3 * self.spec.n_embd).max(nq + nk + nv),
            };
            let qkv = self.linear("attn_qkv", x, width, true)?;
            let qkv = self.clamp(qkv)?;
            q = self.split_bias("attn_q", qkv.columns(0, nq))?;
            k = self.split_bias("attn_k", qkv.columns(nq, nk))?;
            v = self.split_bias("attn_v", qkv.columns(nq + nk, nv))?;
        } else {
            let mut part = |label, n| self.linear(label, x, n, true).and_then(|y| self.clamp(y));
            (q, k, v) = (part("attn_q", nq)?, part("attn_k", nk)?, part("attn_v", nv)?);
        }
        Ok(Projected {
            q: q.reshape([tokens, layer.heads, dim]),
            k: k.reshape([tokens, layer.kv_heads, dim]),
            v: v.reshape([tokens, layer.kv_heads, value_dim]),
        })
    }

    /// The bias of one part of a fused projection, where the file has it apart.
    fn split_bias(&mut self, label: &'static str, x: Tensor) -> Result<Tensor> {
        if self.meta(label, "bias").is_none() {
            return Ok(x);
        }
        if self.spec.attn.clamp != 0.0 {
            return Err(Error::unsupported("a clamp between fused projections and separate biases")
                .at(format!("tensor {}", self.name(label, "bias"))));
        }
        let bias = self.tensor(label, "bias", [x.meta.inner()])?;
        self.g.op(label, Add { scale: 1.0 }, &[x, bias])
    }

    fn clamp(&mut self, x: Tensor) -> Result<Tensor> {
        match self.spec.attn.clamp {
            0.0 => Ok(x),
            limit => self.g.op("clamp_kqv", Unary::Clamp(-limit, limit), &[x]),
        }
    }

    /// Norms of queries and keys, if the file has them: over each head, or over all heads' channels together.
    fn qk_norms(&mut self, q: Tensor, k: Tensor) -> Result<(Tensor, Tensor)> {
        let (has_q, has_k) = (self.has("attn_q_norm"), self.has("attn_k_norm"));
        if !has_q && (!has_k || self.row.qk_norm == QkNorm::QueryDecides) {
            return Ok((q, k));
        }
        Ok((self.qk_norm("attn_q_norm", q)?, self.qk_norm("attn_k_norm", k)?))
    }

    fn qk_norm(&mut self, label: &'static str, x: Tensor) -> Result<Tensor> {
        let [tokens, heads, dim] = [x.meta.shape[0], x.meta.shape[1], x.meta.shape[2]];
        let weight = self.need(label)?.shape;
        match weight.dims() {
            [n] if *n == heads * dim && heads > 1 => {
                let y = self.norm(label, x.reshape([tokens, heads * dim]), [heads * dim])?;
                Ok(y.reshape([tokens, heads, dim]))
            }
            [_] => self.norm(label, x, [dim]),
            _ => self.norm(label, x, [heads, dim]),
        }
    }

    /// Turns queries and keys by their positions.
    fn rotate(&mut self, layer: &Layer, q: Tensor, k: Tensor) -> Result<(Tensor, Tensor)> {
        if !layer.rope {
            return Ok((q, k));
        }
        let windowed = layer.window > 0;
        let (turns, mscale) = self.spec.rotation.turns(windowed, self.batch.context);
        let label = if windowed { "rope_frequencies_window" } else { "rope_frequencies" };
        let meta = Meta::new(DType::U32, [turns.len()]);
        let table = self.g.constant(label, meta, || bytemuck::cast_slice(&turns).to_vec());
        let op = Rope { pairs: self.spec.rotation.pairs, mscale };
        let positions = self.positions;
        Ok((self.g.op("rope_q", op, &[q, positions, table])?, self.g.op("rope_k", op, &[k, positions, table])?))
    }

    /// Queries beyond the original context grow: q · (1 + s · ln(1 + ⌊pos / original⌋)). Source: Llama 4's and Mistral's attention
    /// temperature.
    fn attention_temperature(&mut self, q: Tensor) -> Result<Tensor> {
        let (s, original) = (self.spec.attn.temperature, self.spec.rotation.original_context);
        if s == 0.0 || self.batch.context <= original {
            return Ok(q);
        }
        let cells = self.batch.context;
        let factor = |pos: usize| 1.0 + s * ((pos / original + 1) as f32).ln();
        let table = self.g.constant("attn_temperature", Meta::f32([cells, 1]), || {
            let factors: Vec<f32> = (0..cells).map(factor).collect();
            bytemuck::cast_slice(&factors).to_vec()
        });
        let factors = self.g.op("attn_temperature", GetRows { scale: 1.0 }, &[table, self.positions])?;
        self.gate("attn_temperature", q, factors)
    }

    /// The cache for keys or values like `x` `[tokens, heads, dim]`, in pages of `group`.
    fn cache(&mut self, part: CachePart, group: usize, x: Tensor) -> Tensor {
        let layer = self.layer.expect("attention stands in a layer") as u32;
        let dtype = match part {
            CachePart::Key => self.batch.kv.keys,
            CachePart::Value => self.batch.kv.values,
        };
        let meta = Meta::new(dtype, [self.batch.pool.pages_of(group) * PAGE_CELLS, x.meta.shape[1], x.meta.shape[2]]);
        self.g.cache(Cache { layer, part }, meta)
    }
}
