//! What a node takes of a device's memory, before anything is uploaded: told by the same choices as the builder's.

use super::build::Builder;
use super::device::Device;
use super::tune;
use super::weights::{Stacked, Weights};
use crate::base::{Meta, Result};
use crate::graph::{Graph, Node, Storage};
use crate::ops::{Bind, Kernel};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What lies on the device once, however many nodes read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Fixed);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Fixed {
    Shards(Stacked),
    Vectors(Stacked),
    Plain(String),
    Constant(String, u64),
}

/// The needs of a node.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Weights and constants, and the bytes of each.
    pub fixed: Vec<(Key, u64)>,
    /// Sizes of scratch buffers.
    pub scratch: Vec<usize>,
    /// Bytes of the parameters of each dispatch.
    pub params: Vec<usize>,
}

/// Bytes that a buffer for `size` bytes takes.
pub fn buffer_bytes(size: u64) -> u64 {
    size.max(16).next_multiple_of(16)
}

/// Sizes of the scratch of `node`'s kernel; where its kernels are to be measured, room for any of them.
fn most_scratch(device: &Device, node: &Node, kernel: &Kernel) -> Vec<usize> {
    let mut most = kernel.scratch.clone();
    if tune::is_tuned(device, node) {
        let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
        for other in node.op.gpu(&metas, &node.dst.meta, device.caps()) {
            Needs::join_scratch(&mut most, &other.scratch);
        }
    }
    most
}

impl Needs {
    /// What node `i` of `graph` needs on `device`, by the first of its kernels that fits; an error if none does.
    pub fn of(device: &Device, graph: &Graph, i: usize) -> Result<Needs> {
        let plan = Default::default();
        let builder = Builder::new(device, graph, &plan);
        let (node, kernel) = (&graph.nodes[i], builder.kernel(i, &|_, kernels| kernels)?);
        let mut needs = Needs { scratch: most_scratch(device, node, &kernel), ..Needs::default() };
        for pass in kernel.passes.iter().filter(|p| !p.workgroups.contains(&0)) {
            let shader = &device.inner.pipelines.shader(pass)?.shader;
            needs.params.push(shader.params(&pass.params, &|_| Some(0))?.len());
        }
        for (_, bind) in kernel.passes.iter().flat_map(|p| &p.binds) {
            let one = match *bind {
                Bind::Shard { of, .. } => {
                    let stack = builder.stacked(node, of);
                    let bytes = Weights::shard_bytes(&stack.meta(), device.caps()).map(buffer_bytes).sum();
                    (Fixed::Shards(stack), bytes)
                }
                Bind::Stack(of) => {
                    let stack = builder.stacked(node, of);
                    let bytes = stack.parts.iter().map(|p| 4 * p.meta.shape.elements() as u64).sum();
                    (Fixed::Vectors(stack), buffer_bytes(bytes))
                }
                Bind::Src(s) => {
                    let buffer = &graph.buffers[node.src[s].buf.0 as usize];
                    let key = match &buffer.storage {
                        Storage::Weight(name) => Fixed::Plain(name.clone()),
                        Storage::Const(label, bytes) => {
                            let mut hasher = DefaultHasher::new();
                            bytes.hash(&mut hasher);
                            Fixed::Constant(label.clone(), hasher.finish())
                        }
                        Storage::Input(_) | Storage::Cache(_) | Storage::Temp => continue,
                    };
                    (key, buffer_bytes(buffer.meta.span_bytes() as u64))
                }
                Bind::Dst | Bind::Scratch(_) => continue,
            };
            if !needs.fixed.iter().any(|(key, _)| key.0 == one.0) {
                needs.fixed.push((Key(one.0), one.1));
            }
        }
        Ok(needs)
    }

    /// Makes `all` large enough for scratch of these `sizes` too.
    pub fn join_scratch(all: &mut Vec<usize>, sizes: &[usize]) {
        all.resize(all.len().max(sizes.len()), 0);
        all.iter_mut().zip(sizes).for_each(|(all, one)| *all = (*all).max(*one));
    }

    /// Sizes of the scratch buffers of node `i` of `graph` alone; none if no kernel fits.
    pub fn scratch(device: &Device, graph: &Graph, i: usize) -> Vec<usize> {
        let plan = Default::default();
        let kernel = Builder::new(device, graph, &plan).kernel(i, &|_, kernels| kernels);
        kernel.map_or(Vec::new(), |kernel| most_scratch(device, &graph.nodes[i], &kernel))
    }

    /// Bytes of the buffer with the parameters of all dispatches of `nodes`, which follow each other in one program.
    pub fn parameters<'a>(device: &Device, nodes: impl Iterator<Item = &'a Needs>) -> u64 {
        let align = device.alignment().1;
        let sizes = nodes.flat_map(|n| &n.params);
        buffer_bytes(sizes.fold(0, |at: u64, size| at.next_multiple_of(align) + *size as u64))
    }
}
