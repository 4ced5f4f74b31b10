//! Runs batches: builds graph and plan of each batch shape once, keeps them, and executes their segments in order.

use super::facts::Rooflines;
use super::session::stopped;

use crate::arch::{self, Batch};
use crate::base::{Error, ErrorKind, Result};
use crate::cpu::{self, ThreadPool};
use crate::gpu;
use crate::graph::{Graph, Input, Place, Plan, Tensor};
use crate::model::{Model, Upload};
use crate::ops::{Sample, SampleParams};
use crate::plan::{Options, Placement, fit, predict};
use crate::profile::recorder::{Awaited, Noted, Recorder};
use crate::quant::Precision;
use crate::simd::Level;
use std::sync::Arc;
use web_time::Instant;

/// Batch shapes whose programs are kept: decoding, full and last prefill batches, with and without sampling.
const KEPT: usize = 8;

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

/// The GPU's share: weights and session memory.
pub(super) struct GpuSide {
    pub device: gpu::Device,
    pub memory: gpu::Memory,
    pub weights: gpu::Weights,
    // Comes when the batch submitted last has run.
    ran: Option<gpu::Pending>,
}

/// A model on its devices, with the memory of one session.
pub struct Engine {
    pub(super) model: Arc<Model>,
    pub(super) placement: Placement,
    pub(super) options: Options,
    pub(super) pool: ThreadPool,
    pub(super) memory: cpu::Memory,
    pub(super) gpu: Option<GpuSide>,
    // Most recently used last.
    pub(super) programs: Vec<Program>,
    // Bytes that these read on the CPU.
    pub(super) cpu_weights: u64,
    pub(super) trace: Option<Recorder>,
    /// Who may stop a prompt.
    pub(super) stop: Option<Box<dyn Fn() -> bool + Send>>,
    pub(super) rooflines: Rooflines,
    // Tokens fed so far, as positions count them.
    pub(super) fed: usize,
}

/// A drawn token, perhaps still on its way from the device.
pub struct Ticket(Drawn);

enum Drawn {
    Here(u32),
    Pending(Awaited),
}

impl Ticket {
    /// Waits for the token.
    pub fn wait(self) -> Result<u32> {
        pollster::block_on(self.wait_async())
    }

    /// Waits for the token.
    pub async fn wait_async(self) -> Result<u32> {
        match self.0 {
            Drawn::Here(token) => Ok(token),
            Drawn::Pending(pending) => Ok(bytemuck::pod_read_unaligned(&pending.wait().await?[..4])),
        }
    }
}

/// The counted cost of a run on a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Dispatches.
    pub dispatches: usize,
    /// Submissions.
    pub submissions: usize,
    /// Bytes of weights that are read.
    pub weight_bytes: u64,
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

impl GpuSide {
    /// Makes sure of the memory before anything is uploaded.
    pub(super) fn new(
        device: gpu::Device,
        model: &Arc<Model>,
        placement: &mut Placement,
        options: &Options,
    ) -> Result<GpuSide> {
        let memory = fit::reserve(model, &device, placement, options)?;
        let weights = gpu::Weights::new(&device, Arc::new(Upload(model.clone())));
        Ok(GpuSide { memory, weights, device, ran: None })
    }
}

impl Engine {
    pub(super) async fn new(
        model: Arc<Model>,
        device: Option<gpu::Device>,
        mut placement: Placement,
        options: &Options,
    ) -> Result<Engine> {
        Level::asked()?;
        let pool = if options.threads == 0 { ThreadPool::per_core() } else { ThreadPool::new(options.threads) };
        let gpu = device.map(|device| GpuSide::new(device, &model, &mut placement, options)).transpose()?;
        let (options, memory) = (options.clone(), cpu::Memory::default());
        let (programs, cpu_weights, rooflines) = (Vec::new(), 0, Rooflines::default());
        let (trace, stop, fed) = (None, None, 0);
        let mut engine =
            Engine { model, placement, options, pool, memory, gpu, programs, cpu_weights, trace, stop, rooflines, fed };
        engine.prepare_decoding().await?;
        if engine.options.trace {
            engine.set_trace(true)?;
        }
        Ok(engine)
    }

    /// Decoding is prepared first: what does not fit fails here, and weights are where they belong before the first prompt.
    pub(super) async fn prepare_decoding(&mut self) -> Result<()> {
        self.prepare(self.batch(1, 1, true)).await.map(drop)
    }

    /// The fused graph of a batch of `tokens` with logits for `rows` of them, for `--dump-graph`.
    pub fn graph(&self, tokens: usize, rows: usize) -> Result<Graph> {
        Ok(arch::build(self.model.spec(), &self.batch(tokens, rows, false))?.fuse())
    }

    /// What a decoded token costs on the GPU.
    pub fn decode_figures(&mut self) -> Result<Figures> {
        let i = pollster::block_on(self.prepare(self.batch(1, 1, true)))?;
        let mut all = Figures::default();
        for part in &self.programs[i].parts {
            if let Part::Gpu(program) = part {
                all.dispatches += program.dispatches();
                all.submissions += program.submissions();
                all.weight_bytes += program.weight_bytes();
            }
        }
        Ok(all)
    }

    /// The GPU in use.
    pub fn device(&self) -> Option<&gpu::Device> {
        self.gpu.as_ref().map(|g| &g.device)
    }

    /// To what the CPU rounds a prompt's activations.
    pub fn precision(&self) -> Precision {
        self.options.precision.unwrap_or_else(|| Precision::for_width(self.model.spec().n_embd))
    }

    /// Threads in use on the CPU.
    pub fn threads(&self) -> usize {
        crate::ops::Pool::threads(&self.pool)
    }

    /// Where the layers run.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Feeds `tokens` at position `first` on; gives the logits `[rows, vocab]` of the tokens at the places `rows`.
    pub fn feed(&mut self, tokens: &[u32], first: usize, rows: &[u32]) -> Result<Vec<f32>> {
        pollster::block_on(self.feed_async(tokens, first, rows))
    }

    /// As [`feed`](Self::feed).
    pub async fn feed_async(&mut self, tokens: &[u32], first: usize, rows: &[u32]) -> Result<Vec<f32>> {
        let i = self.prepare(self.batch(tokens.len(), rows.len(), false)).await?;
        self.write_batch(tokens, first)?;
        if tokens.len() > 1 && !rows.is_empty() {
            self.write(Input::Rows, rows)?;
        }
        let bytes = match self.run(i).await? {
            Output::None => {
                self.follow().await?;
                return Ok(Vec::new());
            }
            Output::Here(bytes) => bytes,
            Output::Pending(pending) => pending.wait().await?,
        };
        let logits: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        // By the exponent's bits: comparisons with NaN are easily optimized away.
        if logits.iter().any(|v| v.to_bits() & 0x7f80_0000 == 0x7f80_0000) {
            return Err(Error::new(ErrorKind::Numeric, "the model's logits are not finite numbers")
                .help("the file may be damaged, or the device computes wrongly: run `wgpu-llm doctor`"));
        }
        Ok(logits)
    }

    /// Feeds `tokens` at position `first` on and draws the next token on the device.
    pub fn feed_and_sample(&mut self, tokens: &[u32], first: usize, params: &SampleParams) -> Result<Ticket> {
        pollster::block_on(self.feed_and_sample_async(tokens, first, params))
    }

    /// As [`feed_and_sample`](Self::feed_and_sample).
    pub async fn feed_and_sample_async(
        &mut self,
        tokens: &[u32],
        first: usize,
        params: &SampleParams,
    ) -> Result<Ticket> {
        let i = self.prepare(self.batch(tokens.len(), 1, true)).await?;
        self.write_batch(tokens, first)?;
        if tokens.len() > 1 {
            self.write(Input::Rows, &[tokens.len() as u32 - 1])?;
        }
        self.write(Input::Sampler, &params.words())?;
        self.draw(i).await
    }

    /// Whether [`sample_next`](Self::sample_next) may run before the token before it was read.
    pub fn runs_ahead(&self) -> bool {
        self.placement.single() == Some(Place::Gpu)
    }

    /// Feeds the token that was drawn last, which the host need not know, and draws the next.
    pub fn sample_next(&mut self) -> Result<Ticket> {
        pollster::block_on(self.sample_next_async())
    }

    /// As [`sample_next`](Self::sample_next).
    pub async fn sample_next_async(&mut self) -> Result<Ticket> {
        let i = self.prepare(self.batch(1, 1, true)).await?;
        self.draw(i).await
    }

    async fn draw(&mut self, program: usize) -> Result<Ticket> {
        match self.run(program).await? {
            Output::Here(bytes) => Ok(Ticket(Drawn::Here(bytemuck::pod_read_unaligned(&bytes[..4])))),
            Output::Pending(pending) => Ok(Ticket(Drawn::Pending(pending))),
            Output::None => Ok(Ticket(Drawn::Here(Sample::POISONED))),
        }
    }

    /// Waits until the GPU is only one batch behind. Without this a long prompt would be submitted at once, and whoever wants to
    /// stop it could only wait for all of it.
    async fn follow(&mut self) -> Result<()> {
        let Some(gpu) = self.gpu.as_mut().filter(|_| self.placement.uses(Place::Gpu)) else { return Ok(()) };
        let ran = gpu.memory.read_input(Input::Tokens, 4)?;
        let start = Instant::now();
        if let Some(before) = gpu.ran.replace(ran) {
            before.wait_async().await?;
        }
        if let Some(trace) = &mut self.trace {
            trace.waited(start.elapsed());
        }
        Ok(())
    }

    fn batch(&self, tokens: usize, rows: usize, sample: bool) -> Batch {
        Batch { tokens, rows, context: self.options.context, kv: self.options.kv, sample }
    }

    fn write_batch(&mut self, tokens: &[u32], first: usize) -> Result<()> {
        self.fed = first;
        let positions: Vec<u32> = (first as u32..).take(tokens.len()).collect();
        self.write(Input::Tokens, tokens)?;
        self.write(Input::Positions, &positions)
    }

    /// Writes an input wherever layers run: which of them reads it is the graph's business.
    fn write(&mut self, input: Input, words: &[u32]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(words);
        if self.placement.single() != Some(Place::Gpu) {
            self.memory.input(input, bytes.len())?[..bytes.len()].copy_from_slice(bytes);
        }
        match &mut self.gpu {
            Some(gpu) if self.placement.uses(Place::Gpu) => gpu.memory.write_input(input, bytes),
            _ => Ok(()),
        }
    }

    /// The index of the program for `batch`, built if it is not there.
    async fn prepare(&mut self, batch: Batch) -> Result<usize> {
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
        let precision = if batch.tokens > 1 { self.precision() } else { self.options.answer_precision };
        let graph = arch::build(self.model.spec(), &batch)?.fuse().round(precision);
        let places = self.placement.places(&graph);
        let plan = Plan::new(&graph, |i| places[i]);
        let decode = |p: &Program| p.batch.tokens == 1;
        let parts = match self.parts(&graph, &plan).await {
            // Programs are kept as long as there is room for them: the plan counts with that of a token and one more.
            Err(e) if e.kind() == ErrorKind::OutOfMemory && !self.programs.iter().all(decode) => {
                self.programs.retain(decode);
                self.parts(&graph, &plan).await?
            }
            parts => parts?,
        };
        if self.programs.len() >= KEPT {
            // The least recently used, but never the program that decodes.
            let old = self.programs.iter().position(|p| !decode(p)).unwrap_or(0);
            self.programs.remove(old);
        }
        // Results come through buffers that are made when they are first read: there must be room for them.
        let reads = 2 * predict::read_back(&graph, &plan);
        while self.device().is_some_and(|device| device.budget_left() < reads)
            && let Some(old) = self.programs.iter().position(|p| !decode(p))
        {
            self.programs.remove(old);
        }
        self.programs.push(Program { batch, graph, plan, parts, noted: None });
        self.cpu_weights = super::observe::cpu_weights(&self.programs);
        Ok(self.programs.len() - 1)
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

    /// Runs all segments, carrying across what crosses, and gives the output (or its way from the device).
    async fn run(&mut self, program: usize) -> Result<Output> {
        let mut open = self.open(program).await?;
        let Program { batch, graph, plan, parts, noted } = &mut self.programs[program];
        // A token is soon there.
        let stop = self.stop.as_deref().filter(|_| batch.tokens > 1);
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
