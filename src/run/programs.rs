//! Programs: graph and plan of each batch shape, built once and kept, and runs of their segments in order.

use super::engine::{Engine, GpuSide};
use super::session::stopped;
use crate::arch::{self, Batch};
use crate::base::{Error, ErrorKind, Result, Role};
use crate::cpu;
use crate::gpu;
use crate::graph::{Graph, Place, Plan, Tensor};
use crate::ops::AnyOp;
use crate::plan::predict;
use crate::profile::recorder::{self, Awaited, Noted};
use web_time::Instant;

/// Batch shapes of prompts whose programs are kept: full and last batches, with and without sampling.
const KEPT: usize = 8;
/// The same if they are of many sequences: pieces of prompts come in more sizes.
const KEPT_OF_PIECES: usize = 32;
/// The same of answers: of every number that is computed together.
const KEPT_OF_ANSWERS: usize = 64;

/// One segment, ready to run.
pub(super) enum Part {
    Cpu(cpu::Program),
    Gpu(Box<gpu::Program>),
}

/// A batch shape, ready to run.
pub(super) struct Program {
    pub batch: Batch,
    pub graph: Graph,
    pub plan: Plan,
    pub parts: Vec<Part>,
    /// The parts as the profile knows them, while there is one.
    pub noted: Option<Vec<Vec<Noted>>>,
}

impl Program {
    /// Whether it computes one token of an answer.
    pub fn decodes(&self) -> bool {
        self.batch.role == Role::Answer && self.batch.tokens == 1
    }
}

/// What the last segment gives.
pub(super) enum Ran {
    Here(Vec<u8>),
    Pending(gpu::Pending),
}

/// What a run gives.
pub(super) enum Output {
    None,
    Here(Vec<u8>),
    Pending(Awaited),
}

impl Output {
    /// The bytes, when they are there; none of a run without a result.
    pub async fn wait(self) -> Result<Vec<u8>> {
        match self {
            Output::None => Ok(Vec::new()),
            Output::Here(bytes) => Ok(bytes),
            Output::Pending(pending) => pending.wait().await,
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
        if self.gpu.is_none() && self.placement.uses(Place::Gpu) {
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
        let places = self.placement.places(&graph);
        let plan = Plan::new(&graph, |i| places[i]);
        let parts = match self.parts(&graph, &plan).await {
            // Programs are kept as long as there is room for them: the plan counts with that of a token and one more.
            Err(e) if e.kind() == ErrorKind::OutOfMemory && !self.programs.iter().all(Program::decodes) => {
                self.programs.retain(Program::decodes);
                self.parts(&graph, &plan).await?
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
        self.make_room(2 * predict::read_back(&graph, &plan) + logits);
        self.programs.push(Program { batch, graph, plan, parts, noted: None });
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
    async fn parts(&mut self, graph: &Graph, plan: &Plan) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for segment in &plan.segments {
            let nodes = segment.nodes.clone();
            parts.push(match (segment.place, &mut self.gpu) {
                (Place::Gpu, Some(GpuSide { device, memory, weights, .. })) => {
                    Part::Gpu(Box::new(gpu::Program::tuned(device, graph, nodes, plan, memory, weights).await?))
                }
                _ => Part::Cpu(cpu::Program::new(graph, nodes, plan, &mut self.memory, &*self.model, &self.pool)?),
            });
        }
        Ok(parts)
    }

    /// Runs a program, and gives the tokens that it draws, if it does, and the logits, if they are wanted.
    pub(super) async fn run_both(&mut self, program: usize, sample: bool, logits: bool) -> Result<(Output, Output)> {
        let output = self.run(program).await?;
        if !sample {
            return Ok((Output::None, output));
        }
        let Program { graph, parts, .. } = &mut self.programs[program];
        let node = graph.nodes.last().filter(|_| logits).filter(|node| matches!(node.op, AnyOp::Sample(_)));
        let logits = match (node, parts.last_mut()) {
            (Some(node), Some(Part::Cpu(part))) => Output::Here(part.read(&node.src[1], &self.memory).to_vec()),
            (Some(node), Some(Part::Gpu(part))) => Output::Pending(recorder::untimed(part.read(&node.src[1])?)),
            _ => Output::None,
        };
        Ok((output, logits))
    }

    /// Runs all segments, carrying across what crosses, and gives the output (or its way from the device).
    pub(super) async fn run(&mut self, program: usize) -> Result<Output> {
        let mut open = self.open(program).await?;
        let Program { batch, graph, plan, parts, noted } = &mut self.programs[program];
        // A token is soon there.
        let stop = self.stop.as_deref().filter(|_| batch.role.is_prompt());
        let stop = || stop.is_some_and(|stop| stop());
        let noted = noted.as_deref().unwrap_or_default();
        let (last, mut output) = (parts.len() - 1, None);
        for s in 0..parts.len() {
            let start = open.as_ref().map(|_| Instant::now());
            let waited = cross(graph, plan, parts, s, &mut self.memory).await?;
            if let (Some(open), Some(start)) = (&mut open, start.filter(|_| waited)) {
                open.waited(start);
            }
            output = match (&mut parts[s], graph.output.filter(|_| s == last)) {
                (Part::Cpu(part), output) => {
                    let mut timings = open.as_ref().map(|_| Vec::with_capacity(noted[s].len()));
                    if !part.run_until(&stop, graph, &mut self.memory, &self.pool, timings.as_mut()) {
                        return Err(stopped());
                    }
                    // A weight file that somebody wrote over: what was computed from its zeros is worth nothing.
                    self.model.gguf().check()?;
                    if let (Some(open), Some(timings)) = (&mut open, timings) {
                        open.add_cpu(graph, &noted[s], &timings);
                    }
                    output.map(|t| Ran::Here(part.read(&t, &self.memory).to_vec()))
                }
                (Part::Gpu(part), output) => match (&mut open, output) {
                    (Some(open), output) => {
                        let start = Instant::now();
                        let (pending, stamps) = part.run_timed(output.as_ref()).await?;
                        open.add_gpu(graph, &noted[s], stamps, start);
                        pending.map(Ran::Pending)
                    }
                    (None, Some(t)) => Some(Ran::Pending(part.run_read(&t)?)),
                    (None, None) => {
                        part.run()?;
                        None
                    }
                },
            };
        }
        self.fed += self.programs[program].batch.tokens;
        Ok(self.close(open, output))
    }
}

/// Carries to segment `s` what it needs of earlier ones in the other place. Says whether the GPU had to be waited for: once,
/// however much comes from there.
async fn cross(graph: &Graph, plan: &Plan, parts: &mut [Part], s: usize, memory: &mut cpu::Memory) -> Result<bool> {
    let (before, now) = parts.split_at_mut(s);
    let mut coming = Vec::new();
    for copy in plan.copies.iter().filter(|c| c.before == s) {
        let meta = graph.buffers[copy.buf.0 as usize].meta;
        match (before.iter_mut().rfind(|p| p.place() == copy.from), &mut now[0]) {
            // A slot may be larger than the temporary in it.
            (Some(Part::Cpu(from)), Part::Gpu(to)) => {
                to.write_temp(copy.buf, &from.temp(copy.buf, memory)[..meta.span_bytes()])?;
            }
            (Some(Part::Gpu(from)), Part::Cpu(_)) => {
                coming.push((copy.buf, from.read(&Tensor { meta, buf: copy.buf, offset: 0 })?));
            }
            _ => unreachable!("what crosses was computed before, in the other place"),
        }
    }
    let waited = !coming.is_empty();
    for (buf, pending) in coming {
        let bytes = pending.wait_async().await?;
        if let Part::Cpu(to) = &now[0] {
            to.temp_mut(buf, memory)[..bytes.len()].copy_from_slice(&bytes);
        }
    }
    Ok(waited)
}

impl Part {
    fn place(&self) -> Place {
        match self {
            Part::Cpu(_) => Place::Cpu,
            Part::Gpu(_) => Place::Gpu,
        }
    }
}
