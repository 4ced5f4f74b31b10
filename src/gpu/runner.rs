//! Runs a segment of a graph on a GPU: pipelines, parameters and bind groups are made once, a run only encodes and submits.
//!
//! For each node the first of its kernels is taken whose bindings fit the tensors at hand. Runs of one token are one
//! submission; long ones are cut, so that each takes about a tenth of a second on a slow GPU.

use super::build::Builder;
use super::device::{Buffer, Device};
use super::memory::Memory;
use super::pipeline::Entry;
use super::profile::Queries;
use super::readback::{Pending, Ring};
use super::tune;
use super::weights::Weights;
use crate::base::Result;
use crate::graph::{BufId, Graph, Schedule, Tensor};
use crate::ops::Kernel;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Which of a node's kernels may be used: gets the node's index and the kernels, best first.
pub type Choose<'a> = &'a dyn Fn(usize, Vec<Kernel>) -> Vec<Kernel>;

/// One dispatch, ready to be encoded.
pub(super) struct Step {
    pub node: usize,
    pub entry: Arc<Entry>,
    pub group: wgpu::BindGroup,
    pub workgroups: [u32; 3],
    /// The part of the node's work that it does.
    pub share: f64,
}

/// A segment ready to run.
pub struct Program {
    pub(super) device: Device,
    pub(super) steps: Vec<Step>,
    /// Ranges of `steps`, one per submission.
    pub(super) cuts: Vec<Range<usize>>,
    /// Estimated seconds of the longest submission on a slow GPU.
    pub(super) longest: f64,
    /// The kernel taken for each node: its op and variant.
    pub(super) kernels: Vec<(usize, &'static str, &'static str)>,
    /// Buffers of temporaries, inputs and caches, for reading and writing.
    pub(super) homes: HashMap<BufId, Arc<Buffer>>,
    /// Bytes of weights that a run reads.
    pub(super) weight_bytes: u64,
    pub(super) ring: Ring,
    /// Made when the program is timed for the first time.
    pub(super) queries: Option<Queries>,
    /// What bind groups point at, kept so that it counts against the budget.
    pub(super) bound: Vec<BoundBuffers>,
}

/// A buffer or several that make one tensor.
#[derive(Clone)]
pub(super) enum BoundBuffers {
    Whole(Arc<Buffer>),
    Shards(Arc<[Buffer]>),
}

impl Program {
    /// Prepares `nodes` of `graph` for running in memory planned by `schedule`; uploads the weights they need. Blocks; see
    /// [`new_async`](Self::new_async).
    ///
    /// Fails with `OutOfMemory`, `DeviceLost`, or `Unsupported` where a kernel cannot be used on this device.
    pub fn new(
        device: &Device,
        graph: &Graph,
        nodes: Range<usize>,
        schedule: &Schedule,
        memory: &mut Memory,
        weights: &mut Weights,
    ) -> Result<Program> {
        pollster::block_on(Self::new_async(device, graph, nodes, schedule, memory, weights))
    }

    /// As [`new`](Self::new): of each node's kernels the one that was measured to be the fastest is taken.
    pub async fn new_async(
        device: &Device,
        graph: &Graph,
        nodes: Range<usize>,
        schedule: &Schedule,
        memory: &mut Memory,
        weights: &mut Weights,
    ) -> Result<Program> {
        tune::measure(device, graph, nodes.clone(), schedule, memory, weights).await?;
        let choose = |i: usize, kernels| tune::order(device, &graph.nodes[i], kernels);
        Self::with_kernels(device, graph, nodes, schedule, memory, weights, &choose).await
    }

    /// As [`new_async`](Self::new_async); `choose` narrows down the kernels of each node.
    pub async fn with_kernels(
        device: &Device,
        graph: &Graph,
        nodes: Range<usize>,
        schedule: &Schedule,
        memory: &mut Memory,
        weights: &mut Weights,
        choose: Choose<'_>,
    ) -> Result<Program> {
        let scope = device.scope();
        let built = Builder::new(device, graph, schedule).build(nodes, memory, weights, choose).await;
        // What the device says comes first: it explains what fails after it.
        scope.finish().await?;
        built
    }

    /// Encodes one run as one compute pass.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        self.encode_steps(encoder, &self.steps);
    }

    pub(super) fn encode_steps(&self, encoder: &mut wgpu::CommandEncoder, steps: &[Step]) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for step in steps {
            step.encode(&mut pass);
        }
        self.device.inner.tally.dispatches.fetch_add(steps.len() as u64, Ordering::Relaxed);
    }

    /// Submits one run; does not wait.
    pub fn run(&mut self) -> Result<()> {
        let encoder = self.run_but_last()?;
        self.device.submit(encoder);
        Ok(())
    }

    /// Submits one run and a copy of `tensor`'s values; does not wait for them.
    pub fn run_read(&mut self, tensor: &Tensor) -> Result<Pending> {
        let encoder = self.run_but_last()?;
        let (buffer, at, size) = self.span(tensor);
        self.ring.submit(&self.device, encoder, &buffer, at, size)
    }

    /// Encodes one run and submits all of its parts but the last.
    fn run_but_last(&self) -> Result<wgpu::CommandEncoder> {
        self.device.check()?;
        let mut encoder = self.device.encoder();
        for (i, cut) in self.cuts.iter().enumerate() {
            if i > 0 {
                self.device.submit(std::mem::replace(&mut encoder, self.device.encoder()));
            }
            self.encode_steps(&mut encoder, &self.steps[cut.clone()]);
        }
        Ok(encoder)
    }

    /// Reads a temporary, an input or a cache, as the runs submitted so far leave it.
    pub fn read(&mut self, tensor: &Tensor) -> Result<Pending> {
        self.device.check()?;
        let (buffer, at, size) = self.span(tensor);
        self.ring.submit(&self.device, self.device.encoder(), &buffer, at, size)
    }

    /// The whole of a temporary, to carry it to another device.
    pub fn read_temp(&mut self, graph: &Graph, buf: BufId) -> Result<Pending> {
        let meta = graph.buffers[buf.0 as usize].meta;
        self.read(&Tensor { meta, buf, offset: 0 })
    }

    /// Fills a temporary with what another device computed, ahead of the next run.
    pub fn write_temp(&mut self, buf: BufId, bytes: &[u8]) -> Result<()> {
        self.device.check()?;
        self.device.write(&self.homes[&buf], 0, bytes);
        Ok(())
    }

    /// Bytes of the buffers that this program uses, shared ones included.
    pub fn bytes(&self) -> u64 {
        let bound = self.bound.iter().map(|bound| match bound {
            BoundBuffers::Whole(buffer) => buffer.size,
            BoundBuffers::Shards(shards) => shards.iter().map(|b| b.size).sum(),
        });
        bound.sum::<u64>() + self.homes.values().map(|b| b.size).sum::<u64>()
    }

    /// Submissions per run.
    pub fn submissions(&self) -> usize {
        self.cuts.len().max(1)
    }

    /// Bytes of the weights of products and lookups that a run reads, each once: of experts those that are chosen, of tables the
    /// rows. Kernels for many tokens may read them more often.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Seconds that the longest submission of a run is estimated to take on a slow GPU; 0 for a few tokens, which are never cut.
    pub fn longest_submission(&self) -> f64 {
        self.longest
    }

    /// Dispatches per run.
    pub fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// The kernel that each node runs: index of the node, name of the op, variant.
    pub fn kernels(&self) -> &[(usize, &'static str, &'static str)] {
        &self.kernels
    }

    /// The bytes of `tensor`, from its first to its last value, widened to whole words.
    pub(super) fn span(&self, tensor: &Tensor) -> (Arc<Buffer>, u64, usize) {
        let buffer = self.homes.get(&tensor.buf).expect("only what this program uses can be read");
        let at = byte_offset(tensor);
        assert!(at.is_multiple_of(4), "reading begins at a whole word");
        (buffer.clone(), at, tensor.meta.span_bytes().next_multiple_of(4))
    }
}

impl Step {
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.entry.compiled().raw);
        pass.set_bind_group(0, &self.group, &[]);
        let [x, y, z] = self.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Where a tensor's first value lies in its buffer.
pub(super) fn byte_offset(t: &Tensor) -> u64 {
    t.meta.dtype.row_bytes(t.offset).expect("views begin at whole blocks") as u64
}
