//! How long each node takes on the device, by timestamps around a pass of its own. Only for traces: passes cost time.

use super::device::Device;
use super::readback::Ring;
use super::runner::{Program, Step};
use crate::base::{Error, Result};
use std::sync::atomic::Ordering;

/// When a node ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Index of the node in its graph.
    pub node: usize,
    /// When it began, in nanoseconds from the first node's beginning.
    pub start: u64,
    /// When it was done.
    pub end: u64,
}

/// Most timestamps in one query set, as WebGPU has it.
const MAX_QUERIES: usize = 4096;

impl Program {
    /// Runs once, node by node, and tells how long each took. Fails with `Unsupported` where the device has no timestamps.
    pub fn profile(&mut self) -> Result<Vec<Timing>> {
        let device = self.device.clone();
        if !device.has_timestamps() {
            let what = format!("{} cannot time its work", device.info().name);
            return Err(Error::unsupported(what).help("trace on another device"));
        }
        device.check()?;
        let nodes: Vec<&[Step]> = self.steps.chunk_by(|a, b| a.node == b.node).collect();
        let mut times = Vec::with_capacity(nodes.len());
        let mut ring = Ring::default();
        for nodes in nodes.chunks(MAX_QUERIES / 2) {
            let stamps = stamps(&device, nodes, &mut ring)?;
            times.extend(nodes.iter().zip(stamps.chunks_exact(2)).map(|(n, t)| (n[0].node, t[0], t[1])));
        }
        let first = times.first().map_or(0, |t| t.1);
        let period = device.inner.queue.get_timestamp_period() as f64;
        let nanoseconds = |ticks: u64| (ticks.saturating_sub(first) as f64 * period) as u64;
        Ok(times
            .into_iter()
            .map(|(node, start, end)| Timing { node, start: nanoseconds(start), end: nanoseconds(end) })
            .collect())
    }
}

/// Ticks that `dispatches` of one step take together, in one pass.
pub(super) fn ticks(device: &Device, step: &Step, dispatches: usize) -> Result<u64> {
    device.check()?;
    let steps: Vec<&Step> = vec![step; dispatches];
    let stamps = stamps(device, &[&steps], &mut Ring::default())?;
    Ok(stamps[1].saturating_sub(stamps[0]))
}

/// Runs `nodes`, a pass each; gives the ticks at which each began and ended.
fn stamps<S: std::borrow::Borrow<Step>>(device: &Device, nodes: &[&[S]], ring: &mut Ring) -> Result<Vec<u64>> {
    let count = 2 * nodes.len() as u32;
    let set = device.inner.raw.create_query_set(&wgpu::QuerySetDescriptor {
        label: Some("profile"),
        ty: wgpu::QueryType::Timestamp,
        count: count.max(1),
    });
    let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
    let resolved = device.buffer("profile", count as u64 * 8, usage)?;
    let mut encoder = device.encoder();
    for (i, steps) in nodes.iter().enumerate() {
        let timestamp_writes = wgpu::ComputePassTimestampWrites {
            query_set: &set,
            beginning_of_pass_write_index: Some(2 * i as u32),
            end_of_pass_write_index: Some(2 * i as u32 + 1),
        };
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(timestamp_writes) });
        steps.iter().for_each(|step| step.borrow().encode(&mut pass));
        device.inner.tally.dispatches.fetch_add(steps.len() as u64, Ordering::Relaxed);
    }
    encoder.resolve_query_set(&set, 0..count, &resolved.raw, 0);
    let bytes = ring.submit(device, encoder, &resolved, 0, count as usize * 8)?.wait()?;
    Ok(bytes.chunks_exact(8).map(|b| u64::from_ne_bytes(b.try_into().expect("eight bytes"))).collect())
}
