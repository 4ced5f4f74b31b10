//! Programs: graph and schedule of each batch shape, built once and kept, and runs of their segments in order.

use super::engine::{Engine, GpuSide};
use super::session::stopped;
use crate::arch::{self, Batch};
use crate::base::{Error, ErrorKind, Result, Role};
use crate::cpu;
use crate::gpu;
use crate::graph::{Graph, Place, Schedule, Tensor};
use crate::ops::AnyOp;
use crate::plan::predict;
use crate::profile::recorder::{self, Noted, Readback};
use web_time::Instant;

/// Batch shapes of prompts whose programs are kept: full and last batches, with and without sampling.
const KEPT: usize = 8;
/// The same if they are of many sequences: pieces of prompts come in more sizes.
const KEPT_OF_PIECES: usize = 32;
/// The same of answers: of every number that is computed together.
const KEPT_OF_ANSWERS: usize = 64;

/// One segment, ready to run.
pub(super) enum SegmentProgram {
    Cpu(cpu::Program),
    Gpu(Box<gpu::Program>),
}

/// A batch shape, ready to run.
pub(super) struct Program {
    pub batch: Batch,
    pub graph: Graph,
    pub schedule: Schedule,
    pub parts: Vec<SegmentProgram>,
    /// The parts as the profile knows them, while there is one.
    pub noted: Option<Vec<Vec<Noted>>>,
}

impl Program {
    /// Whether it computes one token of an answer.
    pub fn decodes(&self) -> bool {
        self.batch.role == Role::Answer && self.batch.tokens == 1
    }
}

/// The result of a run, perhaps still on its way from the GPU.
pub(super) enum Pending {
    /// The run has no result.
    None,
    Ready(Vec<u8>),
    OnGpu(Readback),
}

impl Pending {
    /// The bytes, when they are there; none of a run without a result.
    pub async fn wait(self) -> Result<Vec<u8>> {
        match self {
            Pending::None => Ok(Vec::new()),
            Pending::Ready(bytes) => Ok(bytes),
            Pending::OnGpu(readback) => readback.wait().await,
        }
    }
}

impl Engine {
    /// The index of the program for `batch`, built if it is not there.
    pub(super) async fn prepare(&mut self, batch: Batch) -> Result<usize> {
        if let Some(i) = self.programs.iter().position(|p| p.batch == batch) {
            // Rotated rather than moved through the heap: nothing is allocated per token.
            self.programs[i..].rotate_left(1);
            return Ok(self.programs.len() - 1);
        }
        if self.gpu.is_none() && self.device_map.uses(Place::Gpu) {
            let what = "the GPU failed, and the model does not fit into system memory alone";
            return Err(
                Error::new(ErrorKind::OutOfSystemMemory, what).help("start again with a smaller model or context")
            );
        }
        let precision = match batch.role {
            Role::Prompt | Role::Piece => self.precision(),
            Role::Answer => self.options.answer_precision,
        };
        let graph = arch::build(self.model.spec(), &batch)?.fuse().round(precision);
        let places = self.device_map.places(&graph);
        let schedule = Schedule::new(&graph, |i| places[i]);
        let parts = match self.parts(&graph, &schedule).await {
            // Programs are kept as long as there is room for them: the plan counts with that of a token and one more.
            Err(e) if e.kind() == ErrorKind::OutOfMemory && !self.programs.iter().all(Program::decodes) => {
                self.programs.retain(Program::decodes);
                self.parts(&graph, &schedule).await?
            }
            parts => parts?,
        };
        // The least recently used of its role gives way: what decodes is never dropped for a prompt.
        let alike = |p: &Program| p.batch.role.is_prompt() == batch.role.is_prompt();
        let most = match batch.role {
            Role::Prompt => KEPT,
            Role::Piece => KEPT_OF_PIECES,
            Role::Answer => KEPT_OF_ANSWERS,
        };
        if self.programs.iter().filter(|p| alike(p)).count() >= most
            && let Some(old) = self.programs.iter().position(alike)
        {
            self.programs.remove(old);
        }
        // Results come through buffers that are made when they are first read: there must be room for them.
        // Of several sequences logits may be wanted beside what is drawn.
        let logits =
            graph.nodes.last().filter(|node| matches!(node.op, AnyOp::Sample(_)) && self.options.sequences > 0);
        let logits = logits.map_or(0, |node| node.src[1].meta.span_bytes() as u64);
        self.make_room(2 * predict::read_back(&graph, &schedule) + logits);
        self.programs.push(Program { batch, graph, schedule, parts, noted: None });
        self.cpu_weights = super::observe::cpu_weights(&self.programs);
        Ok(self.programs.len() - 1)
    }

    /// Lets go of programs, but not of what decodes, until the device has room for so many bytes more.
    pub(super) fn make_room(&mut self, bytes: u64) {
        while self.device().is_some_and(|device| device.budget_left() < bytes)
            && let Some(old) = self.programs.iter().position(|p| !p.decodes())
        {
            self.programs.remove(old);
        }
    }

    /// Makes the segments of `graph` ready.
    async fn parts(&mut self, graph: &Graph, schedule: &Schedule) -> Result<Vec<SegmentProgram>> {
        let mut parts = Vec::new();
        for segment in &schedule.segments {
            let nodes = segment.nodes.clone();
            parts.push(match (segment.place, &mut self.gpu) {
                (Place::Gpu, Some(GpuSide { device, memory, weights, .. })) => SegmentProgram::Gpu(Box::new(
                    gpu::Program::new_async(device, graph, nodes, schedule, memory, weights).await?,
                )),
                _ => SegmentProgram::Cpu(cpu::Program::new(
                    graph,
                    nodes,
                    schedule,
                    &mut self.memory,
                    &*self.model,
                    &self.pool,
                )?),
            });
        }
        Ok(parts)
    }

    /// Runs a program, and gives the tokens that it draws, if it does, and the logits, if they are wanted.
    pub(super) async fn run_both(&mut self, program: usize, sample: bool, logits: bool) -> Result<(Pending, Pending)> {
        let output = self.run(program).await?;
        if !sample {
            return Ok((Pending::None, output));
        }
        let Program { graph, parts, .. } = &mut self.programs[program];
        let node = graph.nodes.last().filter(|_| logits).filter(|node| matches!(node.op, AnyOp::Sample(_)));
        let logits = match (node, parts.last_mut()) {
            (Some(node), Some(SegmentProgram::Cpu(part))) => {
                Pending::Ready(part.read(&node.src[1], &self.memory).to_vec())
            }
            (Some(node), Some(SegmentProgram::Gpu(part))) => {
                Pending::OnGpu(recorder::untimed(part.read(&node.src[1])?))
            }
            _ => Pending::None,
        };
        Ok((output, logits))
    }

    /// Runs all segments, carrying across what crosses, and gives the output (or its way from the device).
    pub(super) async fn run(&mut self, program: usize) -> Result<Pending> {
        let mut open = self.open(program).await?;
        let Program { batch, graph, schedule, parts, noted } = &mut self.programs[program];
        // A token is soon there.
        let stop = self.stop.as_deref().filter(|_| batch.role.is_prompt());
        let stop = || stop.is_some_and(|stop| stop());
        let noted = noted.as_deref().unwrap_or_default();
        let (last, mut ready, mut pending) = (parts.len() - 1, None, None);
        for s in 0..parts.len() {
            let start = open.as_ref().map(|_| Instant::now());
            let waited = cross(graph, schedule, parts, s, &mut self.memory).await?;
            if let (Some(open), Some(start)) = (&mut open, start.filter(|_| waited)) {
                open.waited(start);
            }
            (ready, pending) = match (&mut parts[s], graph.output.filter(|_| s == last)) {
                (SegmentProgram::Cpu(part), output) => {
                    let mut timings = open.as_ref().map(|_| Vec::with_capacity(noted[s].len()));
                    if !part.run_until(&stop, graph, &mut self.memory, &self.pool, timings.as_mut()) {
                        return Err(stopped());
                    }
                    // A weight file that somebody wrote over: what was computed from its zeros is worth nothing.
                    self.model.gguf().check()?;
                    if let (Some(open), Some(timings)) = (&mut open, timings) {
                        open.add_cpu(graph, &noted[s], &timings);
                    }
                    (output.map(|t| part.read(&t, &self.memory).to_vec()), None)
                }
                (SegmentProgram::Gpu(part), output) => match (&mut open, output) {
                    (Some(open), output) => {
                        let start = Instant::now();
                        let (pending, stamps) = part.run_timed(output.as_ref()).await?;
                        open.add_gpu(graph, &noted[s], stamps, start);
                        (None, pending)
                    }
                    (None, Some(t)) => (None, Some(part.run_read(&t)?)),
                    (None, None) => {
                        part.run()?;
                        (None, None)
                    }
                },
            };
        }
        self.past += self.programs[program].batch.tokens;
        Ok(self.close(open, ready, pending))
    }
}

/// Carries to segment `s` what it needs of earlier ones in the other place. Says whether the GPU had to be waited for: once,
/// however much comes from there.
async fn cross(
    graph: &Graph,
    schedule: &Schedule,
    parts: &mut [SegmentProgram],
    s: usize,
    memory: &mut cpu::Memory,
) -> Result<bool> {
    let (before, now) = parts.split_at_mut(s);
    let mut coming = Vec::new();
    for copy in schedule.copies.iter().filter(|c| c.before == s) {
        let meta = graph.buffers[copy.buf.0 as usize].meta;
        match (before.iter_mut().rfind(|p| p.place() == copy.from), &mut now[0]) {
            // A slot may be larger than the temporary in it.
            (Some(SegmentProgram::Cpu(from)), SegmentProgram::Gpu(to)) => {
                to.write_temp(copy.buf, &from.temp(copy.buf, memory)[..meta.span_bytes()])?;
            }
            (Some(SegmentProgram::Gpu(from)), SegmentProgram::Cpu(_)) => {
                coming.push((copy.buf, from.read(&Tensor { meta, buf: copy.buf, offset: 0 })?));
            }
            _ => unreachable!("what crosses was computed before, in the other place"),
        }
    }
    let waited = !coming.is_empty();
    for (buf, pending) in coming {
        let bytes = pending.wait_async().await?;
        if let SegmentProgram::Cpu(to) = &now[0] {
            to.temp_mut(buf, memory)[..bytes.len()].copy_from_slice(&bytes);
        }
    }
    Ok(waited)
}

impl SegmentProgram {
    fn place(&self) -> Place {
        match self {
            SegmentProgram::Cpu(_) => Place::Cpu,
            SegmentProgram::Gpu(_) => Place::Gpu,
        }
    }
}
