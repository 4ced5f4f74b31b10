//! An engine under observation: what [`Engine`] does for traces, beside running batches.

use super::engine::Engine;
use super::facts::facts;
use super::programs::{Pending, Program, SegmentProgram};
use crate::base::Result;
use crate::gpu;
use crate::graph::{Place, Segment};
use crate::plan::{CPU, GPU, MemoryUse, roofline};
use crate::profile::recorder::{self, Open, Recorder};
use crate::profile::{Facts, Observer, Profile, Record};
use std::collections::HashMap;

impl Engine {
    /// What has been traced so far. Waits for what is under way.
    pub fn trace(&mut self) -> Result<Option<&Profile>> {
        pollster::block_on(self.settle())?;
        Ok(self.trace.as_ref().map(Recorder::profile))
    }

    /// Begins a new trace, or ends the one there is and gives it.
    pub fn set_trace(&mut self, on: bool) -> Result<Option<Profile>> {
        self.replace_trace(on, None)
    }

    /// Begins a new trace of which `observer` is told each part as it comes; ends the one there was and gives it.
    pub fn observe(&mut self, observer: Box<dyn Observer>) -> Result<Option<Profile>> {
        self.replace_trace(true, Some(observer))
    }

    fn replace_trace(&mut self, on: bool, observer: Option<Box<dyn Observer>>) -> Result<Option<Profile>> {
        pollster::block_on(self.settle())?;
        self.programs.iter_mut().for_each(|p| p.noted = None);
        let trace = on.then(|| Recorder::new(self.facts(), observer));
        Ok(std::mem::replace(&mut self.trace, trace).map(Recorder::into_profile))
    }

    pub(super) fn facts(&self) -> Facts {
        facts(&self.model, &self.options, &self.device_map, self.threads(), self.device(), &self.rooflines)
    }

    /// Measures what the devices in use can do at the most, so that traces tell kernels as parts of it. Takes a few
    /// seconds, once.
    pub fn measure_rooflines(&mut self) -> Result<()> {
        if self.is_measured() {
            return Ok(());
        }
        let (cpu, gpu) = (self.device_map.single() != Some(Place::Gpu), self.device_map.uses(Place::Gpu));
        let measured = |device: &gpu::Device| device.without_budget(|| roofline::gpu(device));
        let gpu = self.device().filter(|_| gpu).map(measured).transpose()?;
        self.rooflines = [cpu.then(|| roofline::cpu(self.threads())).flatten(), gpu];
        let facts = self.facts();
        if let Some(trace) = &mut self.trace {
            trace.tell(Record::Facts(facts));
        }
        Ok(())
    }

    /// Whether that was done.
    pub fn is_measured(&self) -> bool {
        self.rooflines.iter().any(Option::is_some)
    }

    /// Takes into the trace what is under way.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let Some(trace) = &mut self.trace else { return Ok(()) };
        match trace.collect(true).await {
            // A GPU that has failed takes the times of what is under way with it. Whoever works with it next hears of it.
            Err(e) if self.can_do_without(&e) => {
                self.trace.iter_mut().for_each(Recorder::forget);
                Ok(())
            }
            done => done,
        }
    }

    /// Begins a run in the trace, if there is one.
    pub(super) async fn open(&mut self, program: usize) -> Result<Option<Open>> {
        let Some(trace) = &mut self.trace else { return Ok(None) };
        trace.collect(false).await?;
        let Program { batch, graph, schedule, parts, noted } = &mut self.programs[program];
        if noted.is_none() {
            let note = |(part, segment): (&SegmentProgram, &Segment)| match part {
                SegmentProgram::Cpu(_) => trace.note(graph, CPU, &recorder::cpu_parts(segment.nodes.clone())),
                SegmentProgram::Gpu(program) => trace.note(graph, GPU, &program.timed()),
            };
            *noted = Some(parts.iter().zip(&schedule.segments).map(note).collect());
        }
        Ok(Some(trace.start(batch.tokens, self.past)))
    }

    /// Hands a run over to the trace, if there is one, and returns the result: `ready`, or `pending` on the GPU, or none.
    pub(super) fn close(
        &mut self,
        open: Option<Open>,
        ready: Option<Vec<u8>>,
        pending: Option<gpu::Pending>,
    ) -> Pending {
        let memory = open.as_ref().map(|_| self.memory());
        let readback = match (&mut self.trace, open, memory) {
            (Some(trace), Some(open), Some(memory)) => trace.submitted(open, memory, pending),
            _ => pending.map(recorder::untimed),
        };
        ready.map_or_else(|| readback.map_or(Pending::None, Pending::OnGpu), Pending::Ready)
    }

    /// What the devices hold.
    pub fn memory(&self) -> Vec<MemoryUse> {
        let mut all = Vec::new();
        if self.device_map.single() != Some(Place::Gpu) {
            all.push(MemoryUse {
                device: CPU,
                weights: self.cpu_weights,
                cache: self.memory.bytes() as u64,
                other: self.memory.temp_bytes() as u64,
            });
        }
        if let Some(gpu) = &self.gpu {
            let (weights, cache) = (gpu.weights.bytes(), gpu.memory.bytes());
            let other = gpu.device.counters().bytes.saturating_sub(weights + cache);
            all.push(MemoryUse { device: GPU, weights, cache, other });
        }
        all
    }
}

/// Bytes of the weights and constants that `programs` read on the CPU; they share some.
pub(super) fn cpu_weights(programs: &[Program]) -> u64 {
    let parts = programs.iter().flat_map(|p| &p.parts);
    let on_cpu = parts.filter_map(|part| if let SegmentProgram::Cpu(program) = part { Some(program) } else { None });
    let bytes = on_cpu.flat_map(|p| p.fixed()).map(|b| (**b).as_ref()).map(|bytes| (bytes.as_ptr(), bytes.len()));
    bytes.collect::<HashMap<_, _>>().values().map(|n| *n as u64).sum()
}
