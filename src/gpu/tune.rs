//! Which of a product's kernels is the fastest on this device: measured once for each class of shapes, and kept in a file.
//!
//! Without a measurement the first kernel is taken, as ops list them. A kernel that gives another result than the first one is
//! never taken, however fast: so kernels for hardware that no test of ours has can be there. What was measured counts for the
//! same adapter, driver and shaders only.

use super::device::Device;
use super::memory::Memory;
use super::preprocess;
use super::runner::Program;
use super::weights::Weights;
use crate::base::{Error, ErrorKind, Meta, Result};
use crate::graph::{Graph, Node, Plan, Storage};
use crate::ops::{AnyOp, Kernel, Linear, PreNorm, Random, Then, nmse};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Runs of a kernel, of which the fastest counts.
const RUNS: usize = 5;
/// The largest difference between two ways of adding up, as normalised mean squared error; their rounding comes on top.
const SAME: f64 = 1e-6;

/// The choices for one device.
#[derive(Debug, Default)]
pub struct Tuning {
    path: PathBuf,
    /// Adapter, driver and shaders.
    device: String,
    /// For each device, for each class of shapes: the variant.
    all: BTreeMap<String, BTreeMap<String, String>>,
}

impl Tuning {
    /// The choices kept in the file at `path`, if it is there and can be read; measurements will be added to it.
    pub fn open(device: &Device, path: &Path) -> Tuning {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let info = device.info();
        let mut hasher = DefaultHasher::new();
        preprocess::names().iter().for_each(|name| (name, preprocess::source(name)).hash(&mut hasher));
        Tuning {
            path: path.to_owned(),
            device: format!("{} | {} | {} | {:016x}", info.name, info.backend, info.driver, hasher.finish()),
            all: serde_json::from_str(&text).unwrap_or_default(),
        }
    }

    /// What was found to be the fastest for a class of shapes.
    pub fn choice(&self, class: &str) -> Option<&str> {
        self.all.get(&self.device)?.get(class).map(String::as_str)
    }

    /// Notes the fastest variant for a class of shapes.
    pub fn set(&mut self, class: &str, variant: &str) {
        self.all.entry(self.device.clone()).or_default().insert(class.to_owned(), variant.to_owned());
    }

    /// Writes the file: beside its place first, so that another process never reads half of it.
    pub fn save(&self) -> Result<()> {
        let failed = |e| Error::io("can't keep what was measured of kernels", e).at(self.path.display());
        let beside = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let text = serde_json::to_string_pretty(&self.all).expect("strings are valid JSON");
        self.path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &self.path)).map_err(failed)
    }
}

/// The product that a node computes.
fn product(node: &Node) -> Option<Linear> {
    match &node.op {
        AnyOp::MatMul(_) => Some(Linear::plain(false, node.src.len() > 2)),
        AnyOp::MatMulId(_) => Some(Linear::plain(true, node.src.len() > 3)),
        AnyOp::Linear(op) => Some(*op),
        _ => None,
    }
}

/// The class of a node's shapes, if its kernels are worth measuring: `q4_0 4096x2048 1 rms store`.
fn class(node: &Node) -> Option<String> {
    let op = product(node)?;
    let w = node.src[0].meta;
    let round = |n: usize| n.next_power_of_two();
    let rows: usize = node.src[..op.parts].iter().map(|w| w.meta.shape.rows()).sum();
    let norm = match op.norm {
        None => "plain",
        Some(PreNorm::Rms { .. }) => "rms",
        Some(PreNorm::Layer { .. }) => "layer",
    };
    let then = match op.then {
        Then::Store => "store",
        Then::Unary(_) => "unary",
        Then::Glu(_) => "glu",
        Then::Add { .. } => "add",
        Then::Combine { .. } => "combine",
    };
    let (ids, tokens) = (if op.ids { " experts" } else { "" }, round(node.src[op.parts].meta.outer()));
    Some(format!("{} {}x{}{ids} {tokens} {norm} {then}", w.dtype, round(rows), round(w.shape.row())))
}

/// `kernels` of `node`, the one that was found to be the fastest first.
pub(super) fn order(device: &Device, node: &Node, mut kernels: Vec<Kernel>) -> Vec<Kernel> {
    let tuning = device.inner.tuning.lock().expect("no panic while it is held");
    let choice = tuning.as_ref().and_then(|t| t.choice(&class(node)?).map(str::to_owned));
    if let Some(at) = choice.and_then(|choice| kernels.iter().position(|k| k.variant == choice)) {
        kernels[..=at].rotate_right(1);
    }
    kernels
}

/// Measures the kernels of all of `nodes` whose class is not known yet, where the device is to be tuned and can time its work.
pub(super) async fn measure(
    device: &Device,
    graph: &Graph,
    nodes: Range<usize>,
    plan: &Plan,
    memory: &mut Memory,
    weights: &mut Weights,
) -> Result<()> {
    let known = |class: &str| match &*device.inner.tuning.lock().expect("no panic while it is held") {
        Some(tuning) => tuning.choice(class).is_some(),
        None => true,
    };
    let mut found = false;
    for i in nodes {
        let Some(class) = class(&graph.nodes[i]).filter(|c| !known(c)) else { continue };
        if !device.has_timestamps() {
            return Ok(());
        }
        let best = Trial { device, graph, i, plan }.best(memory, weights).await?;
        if let (Some(best), Some(tuning)) = (best, &mut *device.inner.tuning.lock().expect("no panic while it is held"))
        {
            tracing::debug!("{class}: {best}");
            tuning.set(&class, best);
            found = true;
        }
    }
    match &*device.inner.tuning.lock().expect("no panic while it is held") {
        Some(tuning) if found => tuning.save().or_else(|e| {
            tracing::warn!("{e}");
            Ok(())
        }),
        _ => Ok(()),
    }
}

/// A node whose kernels are measured.
struct Trial<'a> {
    device: &'a Device,
    graph: &'a Graph,
    i: usize,
    plan: &'a Plan,
}

impl Trial<'_> {
    /// The fastest of the kernels that give what the first one gives.
    async fn best(&self, memory: &mut Memory, weights: &mut Weights) -> Result<Option<&'static str>> {
        let node = &self.graph.nodes[self.i];
        let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
        let kernels = node.op.gpu(&metas, &node.dst.meta, self.device.caps());
        let mut times: Vec<(&'static str, u64)> = Vec::new();
        let mut want: Option<Vec<f64>> = None;
        for kernel in &kernels {
            let (time, got) = match self.run(kernel, memory, weights).await {
                Ok(run) => run,
                Err(e) if e.kind() == ErrorKind::Unsupported => continue,
                Err(e) => return Err(e),
            };
            let want = want.get_or_insert_with(|| got.iter().map(|v| f64::from(*v)).collect());
            let error = nmse(&got, want);
            if error <= SAME + 2.0 * kernel.rounding {
                times.push((kernel.variant, time));
            } else {
                tracing::warn!("{} {} is wrong by {error:.1e}: not used", node.op.name(), kernel.variant);
            }
        }
        Ok(times.into_iter().min_by_key(|(_, time)| *time).map(|(variant, _)| variant))
    }

    /// How long a kernel takes, in nanoseconds, and what it gives for made-up activations.
    async fn run(&self, kernel: &Kernel, memory: &mut Memory, weights: &mut Weights) -> Result<(u64, Vec<f32>)> {
        let node = &self.graph.nodes[self.i];
        let only = |_: usize, kernels: Vec<Kernel>| -> Vec<Kernel> {
            kernels.into_iter().filter(|k| k.variant == kernel.variant).collect()
        };
        let nodes = self.i..self.i + 1;
        let mut program = Program::new_async(self.device, self.graph, nodes, self.plan, memory, weights, &only).await?;
        let mut random = Random(1);
        let ids = product(node).and_then(|op| op.places().ids).map(|i| node.src[i].buf);
        for t in node.src.iter().filter(|t| *self.graph.storage(t) == Storage::Temp) {
            let meta = self.graph.buffers[t.buf.0 as usize].meta;
            // Expert ids and factors: all choose the second expert.
            let value = |_| if Some(t.buf) == ids { 1.0 } else { random.signed() };
            let values: Vec<f32> = (0..meta.shape.elements()).map(value).collect();
            program.write_temp(t.buf, bytemuck::cast_slice(&values))?;
        }
        let mut times = Vec::new();
        for _ in 0..RUNS {
            times.extend(program.profile()?.iter().map(|t| t.end - t.start));
        }
        let bytes = program.read(&node.dst)?.wait_async().await?;
        let got: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        Ok((times.into_iter().min().unwrap_or(u64::MAX), got))
    }
}
