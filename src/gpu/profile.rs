//! How long dispatches take on the device, by timestamps in the command stream.
//!
//! Where the device writes timestamps within a pass, one stands between any two dispatches; elsewhere each node gets a pass of its
//! own, with a timestamp at either end. They come to the host beside the run's result: nothing waits for them. A program that was
//! never timed has no query set, and a run that is not timed has no query in its commands. Where there are no timestamps at all,
//! whole submissions are timed by the host's clock.

use super::device::{Buffer, Device};
use super::readback::{Copied, Pending, Ring};
use super::runner::{Program, Step};
use super::signal::Signal;
use crate::base::{Error, Result};
use crate::graph::Tensor;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use web_time::Instant;

/// What tells how long a device's work takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// The host's: whole submissions are timed.
    Host,
    /// The device's, at either end of a pass: all dispatches of a node are timed together.
    Passes,
    /// The device's, between any two dispatches.
    Dispatches,
}

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

/// What is timed by itself: a dispatch, all those of a node, or all of a submission.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Indices of the nodes in their graph, and the part of each one's work that is done: several of a submission.
    pub nodes: Vec<(usize, f64)>,
    /// Which of the first op's kernels runs.
    pub variant: &'static str,
    /// Files of the shaders, in running order.
    pub shader: String,
    /// Dispatches.
    pub dispatches: usize,
}

/// Most timestamps in one query set, as WebGPU has it.
const MAX_QUERIES: u32 = 4096;

/// Timestamps of one program's runs. Runs follow each other on the device, so they share them.
pub(super) struct Queries {
    sets: Vec<wgpu::QuerySet>,
    resolved: Buffer,
    count: u32,
    /// The steps that are timed together, and the indices of the timestamps before and after them.
    parts: Vec<(Range<usize>, u32, u32)>,
    ring: Ring,
}

/// Times of a run on their way from the device.
pub struct Stamps(Source);

enum Source {
    /// Timestamps, and the indices of those before and after each part.
    Device { pending: Pending, period: f64, parts: Vec<(u32, u32)> },
    /// Submissions that are done, and the last one's beginning and end.
    Host { done: Vec<(u64, u64)>, start: u64, end: Signal<u64>, after: wgpu::SubmissionIndex, device: Device },
}

impl Stamps {
    /// Whether they are there.
    pub fn is_ready(&self) -> bool {
        match &self.0 {
            Source::Device { pending, .. } => pending.is_ready(),
            Source::Host { end, .. } => end.is_ready(),
        }
    }

    /// Whether they are the host's: a submission then begins when it is handed over, though the device may still be busy with others.
    pub fn are_the_hosts(&self) -> bool {
        matches!(self.0, Source::Host { .. })
    }

    /// Waits for them: when each part of the program ([`Program::timed`]) began and ended, in nanoseconds of one clock.
    pub fn wait(self) -> Result<Vec<(u64, u64)>> {
        pollster::block_on(self.wait_async())
    }

    /// As [`wait`](Self::wait).
    pub async fn wait_async(self) -> Result<Vec<(u64, u64)>> {
        match self.0 {
            Source::Device { pending, period, parts } => {
                let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&pending.wait_async().await?);
                // In integers: clocks count more ticks than an f64 can tell apart.
                let period = (period * f64::from(1 << 20)) as u128;
                let at = |i: u32| ((u128::from(ticks[i as usize]) * period) >> 20) as u64;
                Ok(parts.iter().map(|(start, end)| (at(*start), at(*end).max(at(*start)))).collect())
            }
            Source::Host { mut done, start, end, after, device } => {
                device.drive(&end, Some(after))?;
                done.push((start, end.await));
                Ok(done)
            }
        }
    }
}

/// The host's nanoseconds.
fn now() -> u64 {
    static ZERO: OnceLock<Instant> = OnceLock::new();
    ZERO.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Comes when everything that was submitted is done, and says when that was.
fn end(device: &Device) -> Signal<u64> {
    let signal = Signal::default();
    let sender = signal.clone();
    device.inner.queue.on_submitted_work_done(move || sender.send(now()));
    signal
}

impl Program {
    /// Runs once, and tells how long each node took. Fails with `Unsupported` where the device has no timestamps.
    pub fn profile(&mut self) -> Result<Vec<Timing>> {
        if !self.device.has_timestamps() {
            let what = format!("{} cannot time its work", self.device.info().name);
            return Err(Error::unsupported(what).help("use another device"));
        }
        let times = pollster::block_on(self.run_timed(None))?.1.wait()?;
        let first = times.first().map_or(0, |t| t.0);
        let mut nodes: Vec<Timing> = Vec::new();
        for (step, (start, end)) in self.parts().into_iter().zip(times) {
            let (node, end) = (self.steps[step.start].node, end.saturating_sub(first));
            match nodes.last_mut() {
                Some(last) if last.node == node => last.end = end,
                _ => nodes.push(Timing { node, start: start.saturating_sub(first), end }),
            }
        }
        Ok(nodes)
    }

    /// Submits one run and a copy of `output`'s values, as [`run_read`](Self::run_read) does, with timestamps; does not wait. Where
    /// the device has none, each submission but the last is waited for, to know when it was done.
    pub async fn run_timed(&mut self, output: Option<&Tensor>) -> Result<(Option<Pending>, Stamps)> {
        let device = self.device.clone();
        device.check()?;
        if !device.has_timestamps() {
            return self.run_by_host(output).await;
        }
        let mut queries = match self.queries.take() {
            Some(queries) => queries,
            None => self.make_queries()?,
        };
        let mut encoder = device.encoder();
        for (i, cut) in self.cuts.iter().enumerate() {
            if i > 0 {
                device.submit(std::mem::replace(&mut encoder, device.encoder()));
            }
            queries.encode(&device, &mut encoder, &self.steps, cut);
        }
        queries.resolve(&mut encoder);
        let bytes = queries.count.max(1) as usize * 8;
        let stamps = queries.ring.copy(&device, &mut encoder, &queries.resolved, 0, bytes)?;
        let copied = self.copy_output(&mut encoder, output)?;
        let after = device.submit(encoder);
        let period = f64::from(device.inner.queue.get_timestamp_period());
        let parts = queries.parts.iter().map(|(_, start, end)| (*start, *end)).collect();
        let stamps = Source::Device { pending: stamps.submitted(&device, after.clone()), period, parts };
        self.queries = Some(queries);
        Ok((copied.map(|c| c.submitted(&device, after)), Stamps(stamps)))
    }

    async fn run_by_host(&mut self, output: Option<&Tensor>) -> Result<(Option<Pending>, Stamps)> {
        let device = self.device.clone();
        let (mut encoder, mut done) = (device.encoder(), Vec::new());
        for (i, cut) in self.cuts.iter().enumerate() {
            if i > 0 {
                let start = now();
                let after = device.submit(std::mem::replace(&mut encoder, device.encoder()));
                done.push((start, device.wait(end(&device), Some(after)).await?));
            }
            self.encode_steps(&mut encoder, &self.steps[cut.clone()]);
        }
        let copied = self.copy_output(&mut encoder, output)?;
        let start = now();
        let after = device.submit(encoder);
        let stamps = Source::Host { done, start, end: end(&device), after: after.clone(), device: device.clone() };
        Ok((copied.map(|c| c.submitted(&device, after)), Stamps(stamps)))
    }

    fn copy_output(&mut self, encoder: &mut wgpu::CommandEncoder, output: Option<&Tensor>) -> Result<Option<Copied>> {
        let Some((buffer, at, size)) = output.map(|t| self.span(t)) else { return Ok(None) };
        self.ring.copy(&self.device, encoder, &buffer, at, size).map(Some)
    }

    /// What [`Stamps::wait`] gives the times of, in its order.
    pub fn timed(&self) -> Vec<Timed> {
        let one = |part: Range<usize>| {
            let steps = &self.steps[part];
            let mut nodes: Vec<(usize, f64)> = Vec::new();
            for step in steps {
                match nodes.last_mut() {
                    Some((node, share)) if *node == step.node => *share += step.share,
                    _ => nodes.push((step.node, step.share)),
                }
            }
            let first = nodes.first().map_or(0, |(node, _)| *node);
            let variant = self.kernels.iter().find(|(n, ..)| *n == first).map_or("", |(.., variant)| *variant);
            let mut shaders: Vec<&str> = steps.iter().map(|s| s.entry.shader.name).collect();
            shaders.dedup();
            Timed { nodes, variant, shader: shaders.join(" + "), dispatches: steps.len() }
        };
        self.parts().into_iter().map(one).collect()
    }

    /// The steps that are timed together.
    fn parts(&self) -> Vec<Range<usize>> {
        if !self.device.has_timestamps() {
            // A segment of no steps is a submission, too.
            let none = self.cuts.is_empty().then_some(0..0);
            return self.cuts.iter().cloned().chain(none).collect();
        }
        let each = self.device.times_dispatches();
        let mut parts: Vec<Range<usize>> = Vec::new();
        for cut in &self.cuts {
            let mut start = cut.start;
            for part in self.steps[cut.clone()].chunk_by(|a, b| !each && a.node == b.node) {
                parts.push(start..start + part.len());
                start += part.len();
            }
        }
        parts
    }

    fn make_queries(&self) -> Result<Queries> {
        let mut next = 0;
        let mut parts: Vec<(Range<usize>, u32, u32)> = Vec::new();
        let within = self.device.times_dispatches();
        for part in self.parts() {
            // Within a pass the end of one part is the beginning of the next.
            let first = !within || self.cuts.iter().any(|cut| cut.start == part.start);
            let start = if first { next } else { next - 1 };
            parts.push((part, start, start + 1));
            next = start + 2;
        }
        Queries::new(&self.device, parts, next)
    }
}

impl Queries {
    fn new(device: &Device, parts: Vec<(Range<usize>, u32, u32)>, count: u32) -> Result<Queries> {
        let set = |i: u32| {
            device.inner.raw.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count: (count - i * MAX_QUERIES).min(MAX_QUERIES),
            })
        };
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = device.buffer("profile", u64::from(count.max(1)) * 8, usage)?;
        let sets = (0..count.div_ceil(MAX_QUERIES)).map(set).collect();
        Ok(Queries { sets, resolved, count, parts, ring: Ring::default() })
    }

    fn at(&self, i: u32) -> (&wgpu::QuerySet, u32) {
        (&self.sets[(i / MAX_QUERIES) as usize], i % MAX_QUERIES)
    }

    /// Encodes the steps of one submission with timestamps around its parts.
    fn encode(&self, device: &Device, encoder: &mut wgpu::CommandEncoder, steps: &[Step], cut: &Range<usize>) {
        let parts = self.parts.iter().filter(|(part, ..)| cut.contains(&part.start));
        let tally = &device.inner.tally;
        tally.dispatches.fetch_add(cut.len() as u64, Ordering::Relaxed);
        if !device.times_dispatches() {
            for (part, start, end) in parts {
                let ((query_set, start), (_, end)) = (self.at(*start), self.at(*end));
                timed_pass(encoder, query_set, start, end, steps[part.clone()].iter());
                tally.queries.fetch_add(2, Ordering::Relaxed);
            }
            return;
        }
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let stamp = |pass: &mut wgpu::ComputePass<'_>, i: u32| {
            let (set, i) = self.at(i);
            pass.write_timestamp(set, i);
            tally.queries.fetch_add(1, Ordering::Relaxed);
        };
        for (part, start, end) in parts {
            if part.start == cut.start {
                stamp(&mut pass, *start);
            }
            steps[part.clone()].iter().for_each(|step| step.encode(&mut pass));
            stamp(&mut pass, *end);
        }
    }

    fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        for (i, set) in (0..).zip(&self.sets) {
            let count = (self.count - i * MAX_QUERIES).min(MAX_QUERIES);
            encoder.resolve_query_set(set, 0..count, &self.resolved.raw, u64::from(i * MAX_QUERIES) * 8);
        }
    }
}

/// Encodes `steps` as a pass with a timestamp at either end.
fn timed_pass<'a>(
    encoder: &mut wgpu::CommandEncoder,
    set: &wgpu::QuerySet,
    start: u32,
    end: u32,
    steps: impl Iterator<Item = &'a Step>,
) {
    let timestamp_writes = wgpu::ComputePassTimestampWrites {
        query_set: set,
        beginning_of_pass_write_index: Some(start),
        end_of_pass_write_index: Some(end),
    };
    let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(timestamp_writes) };
    let mut pass = encoder.begin_compute_pass(&descriptor);
    steps.for_each(|step| step.encode(&mut pass));
}

/// Ticks that `dispatches` of one step take together, in one pass.
pub(super) fn ticks(device: &Device, step: &Step, dispatches: usize) -> Result<u64> {
    device.check()?;
    let mut queries = Queries::new(device, Vec::new(), 2)?;
    let mut encoder = device.encoder();
    timed_pass(&mut encoder, &queries.sets[0], 0, 1, std::iter::repeat_n(step, dispatches));
    device.inner.tally.dispatches.fetch_add(dispatches as u64, Ordering::Relaxed);
    device.inner.tally.queries.fetch_add(2, Ordering::Relaxed);
    queries.resolve(&mut encoder);
    let bytes = queries.ring.submit(device, encoder, &queries.resolved, 0, 16)?.wait()?;
    let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
    Ok(stamps[1].saturating_sub(stamps[0]))
}
