//! Which layers run where.

use crate::graph::{Graph, Place};

/// How many layers go to the GPU, counted from the last, as `-ngl` counts: the output counts as one more layer.
///
/// Layers in system memory come first and stay contiguous, so that a token crosses between the devices at most twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Layers of the model.
    pub layers: usize,
    /// Of these, and the output, on the GPU.
    pub gpu_layers: usize,
}

impl Placement {
    /// Everything on the CPU.
    pub fn cpu(layers: usize) -> Self {
        Placement { layers, gpu_layers: 0 }
    }

    /// Everything on the GPU.
    pub fn gpu(layers: usize) -> Self {
        Placement { layers, gpu_layers: layers + 1 }
    }

    /// Whether all nodes run in one place, and which.
    pub fn single(&self) -> Option<Place> {
        match self.gpu_layers {
            0 => Some(Place::Cpu),
            n if n > self.layers => Some(Place::Gpu),
            _ => None,
        }
    }

    /// Where each node of `graph` runs. Nodes before the first layer go with it, those after the last with the output.
    pub fn places(&self, graph: &Graph) -> Vec<Place> {
        let last = graph.nodes.iter().rposition(|n| n.layer.is_some()).unwrap_or(0);
        let on_gpu = |layer: usize| layer + self.gpu_layers > self.layers;
        let place = |i: usize| match graph.nodes[i].layer {
            Some(layer) => on_gpu(layer as usize),
            None if i > last => self.gpu_layers > 0,
            None => self.gpu_layers > self.layers,
        };
        (0..graph.nodes.len()).map(|i| if place(i) { Place::Gpu } else { Place::Cpu }).collect()
    }
}
