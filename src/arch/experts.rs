//! The mixture of experts: a router chooses a few networks per token, whose results are weighted and summed; a shared network, which
//! every token passes, may stand beside them. Source: arXiv 1701.06538, 2401.06066 (shared experts).

use super::builder::Builder;
use super::ffn::Names;
use super::spec::{Layer, RouterSpec};
use crate::base::{Error, Result};
use crate::graph::Tensor;
use crate::ops::{Act, Add, Combine, MatMulId, Router, ScaleId, Unary};

const SHARED: Names = Names { gate: "ffn_gate_shexp", up: "ffn_up_shexp", down: "ffn_down_shexp" };

impl Builder<'_> {
    /// The experts of a layer for `x` `[tokens, n_embd]`.
    pub fn experts(&mut self, layer: &Layer, router: RouterSpec, x: Tensor) -> Result<Tensor> {
        let used = layer.experts_used;
        let logits = self.linear("ffn_gate_inp", x, self.spec.experts, true)?;
        let op = Router { gate: router.gate, used, normalize: router.normalize, scale: router.scale };
        let mut src = vec![logits];
        // Some files leave the suffix out.
        let suffix = ["bias", ""].into_iter().find(|suffix| self.meta("exp_probs_b", suffix).is_some());
        if let Some(suffix) = suffix {
            src.push(self.tensor("exp_probs_b", suffix, [self.spec.experts])?);
        }
        let chosen = self.g.op("ffn_router", op, &src)?;
        let (ids, weights) = (chosen.columns(0, used), chosen.columns(used, used));
        let y = self.expert_hidden(x, ids)?;
        let y = self.expert_linear("ffn_down_exps", y, ids, self.spec.n_embd)?;
        let y = self.g.op("ffn_experts", Combine { scale: 1.0 }, &[y, weights])?;
        if !self.has(SHARED.up) {
            return Ok(y);
        }
        let mut shared = self.dense(&SHARED, x)?;
        if self.has("ffn_gate_inp_shexp") {
            let gate = self.linear("ffn_gate_inp_shexp", x, 1, true)?;
            let gate = self.g.op("ffn_gate_inp_shexp", Unary::Act(Act::Sigmoid), &[gate])?;
            shared = self.gate("ffn_gate_inp_shexp", shared, gate)?;
        }
        self.g.op("ffn_shared", Add { scale: 1.0 }, &[y, shared])
    }

    /// The chosen experts' hidden values `[tokens, used, n]`.
    fn expert_hidden(&mut self, x: Tensor, ids: Tensor) -> Result<Tensor> {
        let (tokens, used) = (ids.meta.shape[0], ids.meta.shape[1]);
        let hidden = self.need("ffn_down_exps")?.shape.row();
        if self.has("ffn_gate_up_exps") {
            let both = self.expert_linear("ffn_gate_up_exps", x, ids, 2 * hidden)?.reshape([tokens * used, 2 * hidden]);
            let y = self.g.op("ffn_glu", self.row.act, &[both.columns(0, hidden), both.columns(hidden, hidden)])?;
            return Ok(y.reshape([tokens, used, hidden]));
        }
        let up = self.expert_linear("ffn_up_exps", x, ids, hidden)?;
        if !self.has("ffn_gate_exps") {
            return self.activate(up);
        }
        let gate = self.expert_linear("ffn_gate_exps", x, ids, hidden)?;
        self.g.op("ffn_glu", self.row.act, &[gate, up])
    }

    /// y = s[ids] · W[ids] · x + b[ids] for W `[experts, n, k]`.
    fn expert_linear(&mut self, label: &'static str, x: Tensor, ids: Tensor, n: usize) -> Result<Tensor> {
        let experts = self.spec.experts;
        let mut src = vec![self.tensor(label, "weight", [experts, n, x.meta.shape.row()])?, x, ids];
        let bias = self.meta(label, "bias").is_some();
        if bias {
            src.push(self.tensor(label, "bias", [experts, n])?);
        }
        let scale = self.name(label, "scale");
        if !self.spec.weight_scales.contains_key(&scale) {
            return self.g.op(label, MatMulId, &src);
        }
        if bias {
            return Err(Error::unsupported("experts with both a scale and a bias").at(format!("tensor {scale}")));
        }
        let y = self.g.op(label, MatMulId, &src)?;
        let scales = self.tensor(label, "scale", [experts])?;
        self.g.op(label, ScaleId, &[y, scales, ids])
    }
}
