//! Runs batches: builds the graph and plan of each batch shape once, keeps them, and executes their segments in order.

use super::{Placement, RunOptions};
use crate::arch::{self, Batch};
use crate::base::{Error, ErrorKind, Result};
use crate::cpu::{self, ThreadPool, Timing};
use crate::graph::{Graph, Input, Place, Plan, Segment, Storage};
use crate::gpu;
use crate::model::Model;
use crate::ops::SampleParams;
use std::ops::Range;
use std::sync::Arc;

/// Batch shapes whose programs are kept: decode with and without sampling, full and last prefill chunks, and a few more.
const KEPT: usize = 8;

/// One segment, ready to run.
enum Part {
    Cpu(cpu::Program),
    Gpu(gpu::Program),
}

/// A batch shape, ready to run.
struct Program {
    batch: Batch,
    graph: Graph,
    plan: Plan,
    parts: Vec<Part>,
}

/// The GPU's share: device, weights and session memory.
struct GpuSide {
    device: Arc<gpu::Device>,
    memory: gpu::Memory,
    weights: gpu::Weights,
}

/// A model on its devices, with the memory of one session.
pub struct Engine {
    model: Arc<Model>,
    placement: Placement,
    pool: ThreadPool,
    memory: cpu::Memory,
    gpu: Option<GpuSide>,
    // Most recently used last.
    programs: Vec<Program>,
    trace: Option<Trace>,
}
