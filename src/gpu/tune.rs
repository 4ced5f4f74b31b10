//! Which of a product's kernels is the fastest on this device: measured once for each class of shapes, and kept in a file.
//!
//! Without a measurement the first kernel is taken, as ops list them. Another one has to be clearly faster, and one that gives
//! another result than the first is never taken, however fast: so kernels for hardware that no test of ours has can be there.

use super::device::Device;
use super::memory::Memory;
use super::runner::Program;
use super::tuning::Tuning;
use super::weights::Weights;
use crate::base::{ErrorKind, Meta, Result};
use crate::graph::{Graph, Node, Schedule, Storage};
use crate::ops::{Kernel, Random, nmse};
use std::ops::Range;
use std::sync::MutexGuard;

/// Runs of a kernel, of which the fastest counts.
const RUNS: usize = 5;
/// What another kernel may take of the first one's time to be taken instead: less would be noise.
const FASTER: f64 = 0.95;
/// The largest difference between two ways of adding up, as normalised mean squared error; their rounding comes on top.
const SAME: f64 = 1e-6;

fn tuning(device: &Device) -> MutexGuard<'_, Option<Tuning>> {
    device.inner.tuning.lock().expect("no panic while it is held")
}

/// The class of a node's shapes, if its kernels are worth measuring.
fn class(node: &Node) -> Option<String> {
    let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
    node.op.tuning_class(&metas)
}

/// Whether measurements decide which of `node`'s kernels is taken.
pub(super) fn is_tuned(device: &Device, node: &Node) -> bool {
    tuning(device).is_some() && class(node).is_some()
}

/// `kernels` of `node`, the one that was found to be the fastest first.
pub(super) fn order(device: &Device, node: &Node, mut kernels: Vec<Kernel>) -> Vec<Kernel> {
    let choice = tuning(device).as_ref().and_then(|t| t.choice(&class(node)?).map(str::to_owned));
    if let Some(at) = choice.and_then(|choice| kernels.iter().position(|k| k.variant == choice)) {
        kernels[..=at].rotate_right(1);
    }
    kernels
}

/// Measures the kernels of all of `nodes` whose class is not known yet, where the device is to be tuned and can time its work.
/// Fails only with the device: what cannot be measured is not, and what cannot be kept is measured again.
pub(super) async fn measure(
    device: &Device,
    graph: &Graph,
    nodes: Range<usize>,
    schedule: &Schedule,
    memory: &mut Memory,
    weights: &mut Weights,
) -> Result<()> {
    let mut found = false;
    for i in nodes.filter(|_| device.has_timestamps()) {
        let Some(class) = class(&graph.nodes[i]) else { continue };
        if tuning(device).as_ref().is_none_or(|t| t.choice(&class).is_some()) {
            continue;
        }
        let best = Trial { device, graph, i, schedule }.best(memory, weights).await?;
        if let (Some(best), Some(tuning)) = (best, &mut *tuning(device)) {
            tracing::debug!("{class}: {best}");
            tuning.set(&class, best);
            found = true;
        }
    }
    if let Some(tuning) = tuning(device).as_mut().filter(|_| found) {
        keep(tuning.save());
    }
    Ok(())
}

fn keep<T>(saved: Result<T>) -> Option<T> {
    saved.inspect_err(|e| tracing::warn!("{e}")).ok()
}

/// A node whose kernels are measured.
struct Trial<'a> {
    device: &'a Device,
    graph: &'a Graph,
    i: usize,
    schedule: &'a Schedule,
}

impl Trial<'_> {
    /// The fastest of the kernels that give what the first one gives.
    async fn best(&self, memory: &mut Memory, weights: &mut Weights) -> Result<Option<&'static str>> {
        let node = &self.graph.nodes[self.i];
        let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
        let kernels = node.op.gpu(&metas, &node.dst.meta, self.device.caps());
        // Where the first is rounded itself, an exact one is as far from it as it from that.
        let first = kernels.first().map_or(0.0, |k| k.rounding);
        let mut best: Option<(&'static str, f64)> = None;
        let mut want: Option<Vec<f64>> = None;
        for kernel in &kernels {
            let (time, got) = match self.run(kernel, memory, weights).await {
                Ok(Some(run)) => run,
                Ok(None) => continue,
                Err(e) if e.kind() == ErrorKind::DeviceLost => return Err(e),
                Err(e) => {
                    tracing::debug!("{} {} is not measured: {e}", node.op.name(), kernel.variant);
                    continue;
                }
            };
            let want = want.get_or_insert_with(|| got.iter().map(|v| f64::from(*v)).collect());
            let error = nmse(&got, want);
            if error.is_nan() || error > SAME + 2.0 * kernel.rounding.max(first) {
                tracing::warn!("{} {} is wrong by {error:.1e}: not used", node.op.name(), kernel.variant);
                continue;
            }
            // Those that come later have to be worth it.
            if best.is_none_or(|(_, least)| time < FASTER * least) {
                best = Some((kernel.variant, time));
            }
        }
        Ok(best.map(|(variant, _)| variant))
    }

    /// How long a kernel takes, and what it gives for made-up activations. Kernels that are not in plain f32 ask most of a driver:
    /// the file knows that one of them is being tried, so that one that takes the device with it is not tried again.
    async fn run(
        &self,
        kernel: &Kernel,
        memory: &mut Memory,
        weights: &mut Weights,
    ) -> Result<Option<(f64, Vec<f32>)>> {
        let risky = kernel.rounding > 0.0;
        if let Some(tuning) = tuning(self.device).as_mut().filter(|_| risky) {
            if !tuning.may_try(kernel.variant) {
                return Ok(None);
            }
            keep(tuning.begin(kernel.variant));
        }
        let run = self.time(kernel, memory, weights).await;
        let lost = run.as_ref().is_err_and(|e| e.kind() == ErrorKind::DeviceLost);
        if let Some(tuning) = tuning(self.device).as_mut().filter(|_| risky && !lost) {
            tuning.end(kernel.variant);
        }
        run.map(Some)
    }

    async fn time(&self, kernel: &Kernel, memory: &mut Memory, weights: &mut Weights) -> Result<(f64, Vec<f32>)> {
        let node = &self.graph.nodes[self.i];
        let only = |_: usize, kernels: Vec<Kernel>| -> Vec<Kernel> {
            kernels.into_iter().filter(|k| k.variant == kernel.variant).collect()
        };
        let nodes = self.i..self.i + 1;
        let mut program =
            Program::with_kernels(self.device, self.graph, nodes, self.schedule, memory, weights, &only).await?;
        let mut random = Random(1);
        let ids = node.op.expert_ids().map(|i| node.src[i].buf);
        for t in node.src.iter().filter(|t| *self.graph.storage(t) == Storage::Temp) {
            let meta = self.graph.buffers[t.buf.0 as usize].meta;
            // Where ids of experts stand, with their factors, all experts take turns.
            let value = |i: usize| match Some(t.buf) == ids {
                true => (i % node.src[0].meta.outer()) as f32,
                false => random.signed(),
            };
            let values: Vec<f32> = (0..meta.shape.elements()).map(value).collect();
            program.write_temp(t.buf, bytemuck::cast_slice(&values))?;
        }
        let mut time = f64::INFINITY;
        for _ in 0..RUNS {
            time = time.min(program.profile()?.iter().map(|t| (t.end - t.start) as f64).sum());
        }
        let bytes = program.read(&node.dst)?.wait_async().await?;
        Ok((time, bytemuck::pod_collect_to_vec(&bytes)))
    }
}
