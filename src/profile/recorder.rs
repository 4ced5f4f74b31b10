//! Notes what runs when, as records of a profile. Only there while somebody asks for it.
//!
//! Timestamps of a GPU's runs arrive with their results and are taken up when the next run begins, so that nothing waits for them.

use super::record::{Event, Facts, KernelFacts, Observer, Profile, Record, Run};
use crate::base::Result;
use crate::graph::Graph;
use crate::plan::{MemoryUse, Work, grows};
use crate::{cpu, gpu};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use web_time::{Duration, Instant};

/// Runs that may be under way on the device before the oldest is waited for.
const UNDER_WAY: usize = 8;

/// A part of a program as the profile knows it, and its work.
pub struct Noted {
    kernel: u32,
    bytes: f64,
    flops: f64,
    /// The nodes whose work grows with what is in the cache, and what part of it is theirs: not in the sums above.
    grows: Vec<(usize, f64)>,
}

/// A result on its way from the device, and where to tell how long it was waited for.
pub struct Readback {
    pending: gpu::Pending,
    watch: Option<Arc<Watch>>,
}

/// What became of a result: nanoseconds. `end`, from the beginning, is 0 until it is there.
#[derive(Default)]
struct Watch {
    begin: Option<Instant>,
    wait: AtomicU64,
    readback: AtomicU64,
    end: AtomicU64,
}

impl Readback {
    /// Waits for the bytes.
    pub async fn wait(self) -> Result<Vec<u8>> {
        let Some((watch, begin)) = self.watch.as_ref().and_then(|w| Some((w, w.begin?))) else {
            return self.pending.wait_async().await;
        };
        let start = begin.elapsed();
        self.pending.arrive().await?;
        let there = begin.elapsed();
        let bytes = self.pending.wait_async().await?;
        let end = begin.elapsed();
        watch.wait.store((there - start).as_nanos() as u64, Ordering::Relaxed);
        watch.readback.store((end - there).as_nanos() as u64, Ordering::Relaxed);
        watch.end.store(end.as_nanos() as u64, Ordering::Release);
        Ok(bytes)
    }
}

/// A run that is being encoded.
pub struct Open {
    run: Run,
    begin: Instant,
    events: Vec<Event>,
    stamps: Vec<(gpu::Stamps, Vec<Event>)>,
}

/// A run that may still be under way.
struct UnderWay {
    open: Open,
    watch: Arc<Watch>,
}

/// Puts records together, keeps them, and tells an observer.
pub struct Recorder {
    begin: Instant,
    profile: Profile,
    observer: Option<Box<dyn Observer>>,
    under_way: VecDeque<UnderWay>,
    runs: u32,
    kernels: u32,
    /// What is added to the GPU's nanoseconds to have ours.
    offset: Option<i128>,
    /// When the device was done with what came before, by the clock that has no timestamps.
    busy_until: u64,
    memory: Vec<MemoryUse>,
}

impl Recorder {
    /// A recording of a session that is made of `facts`, of which `observer` hears too.
    pub fn new(facts: Facts, observer: Option<Box<dyn Observer>>) -> Recorder {
        let mut recorder = Recorder {
            begin: Instant::now(),
            profile: Profile::default(),
            observer,
            under_way: VecDeque::new(),
            runs: 0,
            kernels: 0,
            offset: None,
            busy_until: 0,
            memory: Vec::new(),
        };
        recorder.tell(Record::Facts(facts));
        recorder
    }

    /// Keeps a record and hands it on.
    pub fn tell(&mut self, record: Record) {
        if let Some(observer) = &mut self.observer {
            observer.observe(&record);
        }
        self.profile.observe(&record);
    }

    /// What was recorded.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Ends the recording.
    pub fn into_profile(self) -> Profile {
        self.profile
    }

    /// Makes the parts of a program known.
    pub fn note(&mut self, graph: &Graph, device: usize, parts: &[gpu::Timed]) -> Vec<Noted> {
        let tokens = graph.tokens();
        let kernel = |(i, part): (usize, &gpu::Timed)| match part.nodes[..] {
            [(node, share)] => kernel(graph, device, tokens, part, (node, share)),
            _ => submission(graph, device, tokens, part, (i + 1, parts.len())),
        };
        let kernels = parts.iter().enumerate().map(kernel).collect();
        self.tell(Record::Kernels(kernels));
        let first = self.kernels;
        self.kernels += parts.len() as u32;
        let noted = (first..).zip(parts).map(|(kernel, part)| {
            let grows = |(node, _): &(usize, f64)| grows(&graph.nodes[*node]);
            let (grows, fixed): (Vec<_>, Vec<_>) = part.nodes.iter().copied().partition(grows);
            let (bytes, flops) = work_of(graph, &fixed, 0);
            Noted { kernel, bytes, flops, grows }
        });
        noted.collect()
    }

    /// A run begins.
    pub fn start(&mut self, tokens: usize, past: usize) -> Open {
        let begin = self.begin;
        let run = Run { run: self.runs, tokens, past, start: begin.elapsed().as_nanos() as u64, ..Run::default() };
        self.runs += 1;
        Open { run, begin, events: Vec::new(), stamps: Vec::new() }
    }

    /// A run is submitted; `memory` is what devices hold now.
    pub fn submitted(
        &mut self,
        mut open: Open,
        memory: Vec<MemoryUse>,
        pending: Option<gpu::Pending>,
    ) -> Option<Readback> {
        if memory != self.memory {
            open.run.memory.clone_from(&memory);
            self.memory = memory;
        }
        let watch = Arc::new(Watch { begin: Some(self.begin), ..Watch::default() });
        if open.stamps.is_empty() {
            watch.end.store(self.begin.elapsed().as_nanos() as u64, Ordering::Release);
        }
        let readback = pending.map(|pending| Readback { pending, watch: Some(watch.clone()) });
        self.under_way.push_back(UnderWay { open, watch });
        readback
    }

    /// Forgets what is under way: the device that was to tell how long it took has failed.
    pub fn forget(&mut self) {
        self.under_way.clear();
        self.offset = None;
    }

    /// The host waited for the run submitted last.
    pub fn waited(&mut self, time: Duration) {
        if let Some(last) = self.under_way.back_mut() {
            last.open.run.wait += time.as_nanos() as u64;
        }
    }

    /// Takes up runs that are done; where `all` are wanted, or too many are under way, waits for them.
    pub async fn collect(&mut self, all: bool) -> Result<()> {
        while let Some(first) = self.under_way.front() {
            // Without a reader nobody will say when the result was there.
            let read = first.watch.end.load(Ordering::Acquire) > 0 || Arc::strong_count(&first.watch) == 1;
            let done = read && first.open.stamps.iter().all(|(stamps, _)| stamps.is_ready());
            if !done && !all && self.under_way.len() <= UNDER_WAY {
                return Ok(());
            }
            if let Some(first) = self.under_way.pop_front() {
                self.finish(first).await?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self, UnderWay { open, watch }: UnderWay) -> Result<()> {
        let Open { mut run, begin, mut events, stamps } = open;
        for (stamps, mut more) in stamps {
            let hosts = stamps.are_the_hosts();
            let mut times = stamps.wait_async().await?;
            if hosts {
                for time in &mut times {
                    // It was handed over while the device was busy with others.
                    time.0 = time.0.max(self.busy_until).min(time.1);
                    self.busy_until = time.1;
                }
            }
            let now = match watch.end.load(Ordering::Acquire) {
                0 => begin.elapsed().as_nanos() as u64,
                end => end,
            };
            let (Some(first), Some(last)) = (times.first(), times.iter().map(|t| t.1).max()) else { continue };
            let offset = clock(self.offset, (run.start, now), (first.0, last));
            self.offset = Some(offset);
            for (event, (start, end)) in more.iter_mut().zip(&times) {
                event.start = (i128::from(*start) + offset).max(0) as u64;
                event.length = end - start;
            }
            run.gpu += last - first.0;
            events.extend(more);
        }
        run.wait += watch.wait.load(Ordering::Relaxed);
        run.readback += watch.readback.load(Ordering::Relaxed);
        run.end = match watch.end.load(Ordering::Acquire) {
            0 => begin.elapsed().as_nanos() as u64,
            end => end,
        };
        self.tell(Record::Run(run, events));
        Ok(())
    }
}

impl Open {
    /// A segment ran on the CPU.
    pub fn add_cpu(&mut self, graph: &Graph, noted: &[Noted], timings: &[cpu::Timing]) {
        for (noted, t) in noted.iter().zip(timings) {
            let start = t.start.duration_since(self.begin).as_nanos() as u64;
            let length = t.end.duration_since(t.start).as_nanos() as u64;
            self.run.cpu += length;
            let event = self.event(graph, noted);
            self.events.push(Event { start, length, ..event });
        }
    }

    /// A segment was submitted to the GPU, from `start` on; `stamps` will tell when it ran.
    pub fn add_gpu(&mut self, graph: &Graph, noted: &[Noted], stamps: gpu::Stamps, start: Instant) {
        self.run.submit += start.elapsed().as_nanos() as u64;
        let events = noted.iter().map(|noted| self.event(graph, noted)).collect();
        self.stamps.push((stamps, events));
    }

    /// The host waited since `start` for what crosses between the devices.
    pub fn waited(&mut self, start: Instant) {
        self.run.wait += start.elapsed().as_nanos() as u64;
    }

    fn event(&self, graph: &Graph, noted: &Noted) -> Event {
        let (bytes, flops) = work_of(graph, &noted.grows, self.run.past);
        let (bytes, flops) = (noted.bytes + bytes, noted.flops + flops);
        Event { kernel: noted.kernel, run: self.run.run, start: 0, length: 0, bytes, flops }
    }
}

/// A result that nobody times.
pub fn untimed(pending: gpu::Pending) -> Readback {
    Readback { pending, watch: None }
}

/// What is to be added to the device's nanoseconds. Clocks have zeros of their own, and drift; but nothing runs before it is
/// submitted, nor after its result is known: the offset stays `known`, as far as it lies within that.
fn clock(known: Option<i128>, ours: (u64, u64), device: (u64, u64)) -> i128 {
    let (least, most) = (i128::from(ours.0) - i128::from(device.0), i128::from(ours.1) - i128::from(device.1));
    known.map_or(most, |known| known.max(least).min(most))
}

/// The parts of `nodes` on the CPU, as a GPU's program tells its own.
pub fn cpu_parts(nodes: std::ops::Range<usize>) -> Vec<gpu::Timed> {
    let part = |node| gpu::Timed { nodes: vec![(node, 1.0)], variant: "cpu", shader: String::new(), dispatches: 1 };
    nodes.map(part).collect()
}

fn kernel(graph: &Graph, device: usize, tokens: usize, part: &gpu::Timed, (node, share): (usize, f64)) -> KernelFacts {
    let node = &graph.nodes[node];
    let work = Work::of_node(graph, node, 0);
    let factor = work.main().map_or("", |dtype| dtype.name());
    KernelFacts {
        device,
        op: node.op.name().into(),
        variant: part.variant.into(),
        shader: part.shader.clone(),
        label: node.label.into(),
        layer: node.layer,
        tokens,
        src: node.src.iter().map(|t| format!("{:?}", t.meta)).collect(),
        dst: format!("{:?}", node.dst.meta),
        factor: factor.into(),
        weights: work.weights * share,
    }
}

/// What is timed as a whole where a device has no clock: submission `i` of `n`.
fn submission(graph: &Graph, device: usize, tokens: usize, part: &gpu::Timed, (i, n): (usize, usize)) -> KernelFacts {
    let weights = |(node, share): &(usize, f64)| Work::of_node(graph, &graph.nodes[*node], 0).weights * share;
    KernelFacts {
        device,
        op: "submission".into(),
        variant: "whole".into(),
        label: if n == 1 { "all layers".into() } else { format!("{i} of {n}") },
        tokens,
        weights: part.nodes.iter().map(weights).sum(),
        ..KernelFacts::default()
    }
}

/// Bytes that parts of several nodes have to move, activations included, and their operations.
fn work_of(graph: &Graph, nodes: &[(usize, f64)], past: usize) -> (f64, f64) {
    nodes.iter().fold((0.0, 0.0), |(bytes, flops), (node, share)| {
        let work = Work::of_node(graph, &graph.nodes[*node], past);
        (bytes + (work.bytes() + work.activations) * share, flops + work.flops() * share)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_devices_clock_is_kept_within_what_can_be() {
        // A result is known a little after the device was done.
        assert_eq!(clock(None, (100, 200), (1020, 1090)), -890);
        assert_eq!(clock(Some(-890), (300, 400), (1220, 1280)), -890, "nothing speaks against it");
        assert_eq!(clock(Some(-890), (300, 380), (1220, 1280)), -900, "known at 380: the device was done by then");
        assert_eq!(clock(Some(-950), (300, 400), (1220, 1280)), -920, "submitted at 300: the device began after that");
    }
}
