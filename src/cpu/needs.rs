//! What a segment's weights take of system memory, before they are made ready: told by the same choices as the runner's.

use super::runner::multiplied;
use crate::base::Meta;
use crate::graph::{Graph, Node, Storage};
use crate::ops::WeightLayout;
use crate::quant::{self, PANEL_ROWS};
use std::collections::HashMap;
use std::ops::Range;

/// Weights and constants in system memory, and the bytes of each.
#[derive(Debug, Clone, Default)]
pub struct SystemMemory(HashMap<(String, Form), usize>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// As in the file.
    Rows,
    /// Interleaved.
    Packed,
    /// A constant of the program with this number: programs do not share them.
    Constant(usize),
}

impl SystemMemory {
    /// Adds what `nodes` of `graph` need, as a program of their own, the one with this number.
    pub fn add(&mut self, graph: &Graph, nodes: Range<usize>, program: usize) {
        let multiplied = multiplied(&graph.nodes[nodes.clone()]);
        for Node { op, src, .. } in &graph.nodes[nodes] {
            for (n, t) in src.iter().enumerate() {
                let whole = &graph.buffers[t.buf.0 as usize];
                let wanted =
                    if t.offset == 0 && t.meta == whole.meta { op.weight_layout(n) } else { WeightLayout::Rows };
                match &whole.storage {
                    Storage::Weight(name) => {
                        let panels = (name.clone(), Form::Packed);
                        let interleaved = match wanted {
                            WeightLayout::Either => multiplied.contains(&t.buf) || self.0.contains_key(&panels),
                            WeightLayout::Packed => true,
                            WeightLayout::Rows => false,
                        };
                        match panel_bytes(&t.meta).filter(|_| interleaved) {
                            Some(bytes) => self.0.insert(panels, bytes),
                            None => self.0.insert((name.clone(), Form::Rows), whole.meta.span_bytes()),
                        };
                    }
                    Storage::Const(label, table) => {
                        self.0.insert((label.clone(), Form::Constant(program)), table.len());
                    }
                    Storage::Input(_) | Storage::Cache(_) | Storage::Temp => {}
                }
            }
        }
    }

    /// All of them.
    pub fn bytes(&self) -> usize {
        self.0.values().sum()
    }
}

/// Bytes of a tensor in panels; `None` for vectors.
fn panel_bytes(meta: &Meta) -> Option<usize> {
    let [outer @ .., n, k] = meta.shape.dims() else { return None };
    Some(outer.iter().product::<usize>() * n.div_ceil(PANEL_ROWS) * quant::panel_bytes(meta.dtype, *k))
}
