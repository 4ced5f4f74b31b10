//! The dense feed-forward network: act(gate · x) ⊙ (up · x), or act(up · x), then down. Source: arXiv 2002.05202.

use super::builder::Builder;
use super::row::Ffn;
use super::spec::Layer;
use crate::base::{Error, Meta, Result};
use crate::graph::Tensor;
use crate::ops::{Act, Glu, Mul, Unary};

/// Labels of the projections.
pub(super) struct Names {
    pub gate: &'static str,
    pub up: &'static str,
    pub down: &'static str,
}

/// The network every token passes.
pub(super) const DENSE: Names = Names { gate: "ffn_gate", up: "ffn_up", down: "ffn_down" };

impl Builder<'_> {
    /// Whether the layer has a network of any kind.
    pub fn has_ffn(&self) -> bool {
        self.has(DENSE.up) || self.has("ffn_gate_inp")
    }

    /// The layer's network: experts if the file has a router here, else dense.
    pub fn ffn(&mut self, layer: &Layer, x: Tensor) -> Result<Tensor> {
        match self.spec.router {
            Some(router) if self.has("ffn_gate_inp") => self.experts(layer, router, x),
            _ => self.dense(&DENSE, x),
        }
    }

    /// A dense network. Without a gate of its own, an up projection twice as wide as down reads holds the gate in its first half.
    pub fn dense(&mut self, names: &Names, x: Tensor) -> Result<Tensor> {
        let partial = self.row.ffn == Ffn::Partial;
        if partial && !self.has(names.up) && !self.has(names.down) {
            return self.activate(x);
        }
        let n = self.need(names.up)?.outer();
        let hidden = self.need(names.down)?.shape.row();
        let up = self.linear(names.up, x, n, self.biases())?;
        let y = if self.has(names.gate) {
            let gate = self.linear(names.gate, x, n, self.biases())?;
            self.g.op("ffn_glu", self.row.act, &[gate, up])?
        } else if n == 2 * hidden {
            self.g.op("ffn_glu", self.row.act, &[up.columns(0, hidden), up.columns(hidden, hidden)])?
        } else {
            let y = self.activate(up)?;
            self.scale_activation(y)?
        };
        self.linear(names.down, y, self.spec.n_embd, self.biases())
    }

    /// The row's activation, ungated.
    pub fn activate(&mut self, x: Tensor) -> Result<Tensor> {
        self.g.op("ffn_act", Unary::Act(self.activation()?), &[x])
    }

    fn activation(&self) -> Result<Act> {
        match self.row.act {
            Glu::Plain(act) => Ok(act),
            Glu::Clamped { .. } => Err(Error::format("the network has no gate").at(self.name("ffn_gate", "weight"))),
        }
    }

    /// Divides by `ffn.act.scales`, if the file has them.
    fn scale_activation(&mut self, x: Tensor) -> Result<Tensor> {
        let spec = self.spec;
        let Some(factors) = self.layer.and_then(|i| spec.act_factors.get(&i)) else { return Ok(x) };
        let label = self.name("ffn.act", "factors");
        let table = self.g.constant(&label, Meta::f32([factors.len()]), || bytemuck::cast_slice(factors).to_vec());
        self.g.op("ffn_act_scales", Mul, &[x, table])
    }
}
