//! The engine: a model on its devices, and batches of one sequence that run there.

use super::books::cache_pages;
use super::facts::Rooflines;
use super::programs::{Pending, Program, SegmentProgram};
use crate::arch::{self, Batch, Cells};
use crate::base::{Error, ErrorKind, Result, Role};
use crate::cpu::{self, ThreadPool};
use crate::gpu;
use crate::graph::{Graph, Input, Place};
use crate::model::{Model, Upload};
use crate::ops::{Sample, SampleParams, lay_tables};
use crate::plan::{DeviceMap, Options, fit};
use crate::profile::recorder::Recorder;
use crate::quant::Precision;
use crate::simd::Level;
use std::sync::Arc;
use web_time::Instant;

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
    pub(super) device_map: DeviceMap,
    pub(super) options: Options,
    /// The caches.
    pub(super) cells: Cells,
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
    pub(super) past: usize,
    // The tables of the one sequence, by group.
    tables: [Vec<u32>; 2],
    // What was written last of the places, for its memory, and of how many rows; of none if tables have changed since.
    places: Vec<u32>,
    laid: usize,
}

/// A drawn token, perhaps still on its way from the device.
pub struct PendingToken(Pending);

impl PendingToken {
    /// Waits for the token.
    pub fn wait(self) -> Result<u32> {
        pollster::block_on(self.wait_async())
    }

    /// Waits for the token.
    pub async fn wait_async(self) -> Result<u32> {
        let bytes = self.0.wait().await?;
        Ok(bytes.first_chunk().map_or(Sample::POISONED, |bytes| u32::from_ne_bytes(*bytes)))
    }
}

/// The counted cost of a run on a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCost {
    /// Dispatches.
    pub dispatches: usize,
    /// Submissions.
    pub submissions: usize,
    /// Bytes of weights that are read.
    pub weight_bytes: u64,
}

impl GpuSide {
    /// Makes sure of the memory before anything is uploaded.
    pub(super) fn new(
        device: gpu::Device,
        model: &Arc<Model>,
        device_map: &mut DeviceMap,
        options: &Options,
    ) -> Result<GpuSide> {
        let memory = fit::reserve(model, &device, device_map, options)?;
        let weights = gpu::Weights::new(&device, Arc::new(Upload(model.clone())));
        Ok(GpuSide { memory, weights, device, ran: None })
    }
}

impl Engine {
    /// As `options` place it: all layers on `device`, if it is there and nothing else is said.
    pub(super) async fn load(model: Arc<Model>, device: Option<gpu::Device>, options: &Options) -> Result<Engine> {
        if options.context == 0 {
            return Err(Error::usage("a context of no tokens").help("use -c with at least 1"));
        }
        let layers = model.spec().layers.len();
        if let Some(other) = options.device_map.as_ref().map(|p| p.blocks.len()).filter(|n| *n != layers) {
            return Err(Error::usage(format!("a device map of {other} layers for a model of {layers}")));
        }
        let device_map = match (&device, &options.device_map, options.gpu_layers) {
            (None, ..) => DeviceMap::cpu(layers),
            (Some(_), Some(device_map), _) => device_map.clone(),
            (Some(_), None, None) => DeviceMap::gpu(layers),
            (Some(_), None, Some(n)) => DeviceMap::last(layers, n),
        };
        Engine::new(model, device, device_map, options).await
    }

    async fn new(
        model: Arc<Model>,
        device: Option<gpu::Device>,
        mut device_map: DeviceMap,
        options: &Options,
    ) -> Result<Engine> {
        Level::asked()?;
        let pool = if options.threads == 0 { ThreadPool::per_core() } else { ThreadPool::new(options.threads) };
        let gpu = device.map(|device| GpuSide::new(device, &model, &mut device_map, options)).transpose()?;
        let (options, cells, memory) =
            (options.clone(), options.cells(model.spec()), cpu::Memory::of_sequences(options.sequences));
        let (programs, cpu_weights, rooflines) = (Vec::new(), 0, Rooflines::default());
        let (trace, stop, past, tables, places, laid) = (None, None, 0, Default::default(), Vec::new(), 0);
        let mut engine = Engine {
            model,
            device_map,
            options,
            cells,
            pool,
            memory,
            gpu,
            programs,
            cpu_weights,
            trace,
            stop,
            rooflines,
            past,
            tables,
            places,
            laid,
        };
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
    pub fn decode_figures(&mut self) -> Result<RunCost> {
        let i = pollster::block_on(self.prepare(self.batch(1, 1, true)))?;
        let mut all = RunCost::default();
        for part in &self.programs[i].parts {
            if let SegmentProgram::Gpu(program) = part {
                all.dispatches += program.dispatches();
                all.submissions += program.submissions();
                all.weight_bytes += program.weight_bytes();
            }
        }
        Ok(all)
    }

    /// Tokens of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.model.spec().vocab
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
        crate::base::Threads::threads(&self.pool)
    }

    /// Where the layers run.
    pub fn device_map(&self) -> &DeviceMap {
        &self.device_map
    }

    /// Feeds `tokens` at position `first` on; gives the logits `[rows, vocab]` of the tokens at the places `rows`.
    pub fn decode(&mut self, tokens: &[u32], first: usize, rows: &[u32]) -> Result<Vec<f32>> {
        pollster::block_on(self.decode_async(tokens, first, rows))
    }

    /// As [`decode`](Self::decode).
    pub async fn decode_async(&mut self, tokens: &[u32], first: usize, rows: &[u32]) -> Result<Vec<f32>> {
        let i = self.prepare(self.batch(tokens.len(), rows.len(), false)).await?;
        self.write_batch(tokens, first)?;
        if tokens.len() > 1 && !rows.is_empty() {
            self.write(Input::Rows, 0, rows)?;
        }
        let bytes = match self.run(i).await? {
            Pending::None => {
                self.follow().await?;
                return Ok(Vec::new());
            }
            output => output.wait().await?,
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
    pub fn decode_and_sample(&mut self, tokens: &[u32], first: usize, params: &SampleParams) -> Result<PendingToken> {
        pollster::block_on(self.decode_and_sample_async(tokens, first, params))
    }

    /// As [`decode_and_sample`](Self::decode_and_sample).
    pub async fn decode_and_sample_async(
        &mut self,
        tokens: &[u32],
        first: usize,
        params: &SampleParams,
    ) -> Result<PendingToken> {
        let i = self.prepare(self.batch(tokens.len(), 1, true)).await?;
        self.write_batch(tokens, first)?;
        if tokens.len() > 1 {
            self.write(Input::Rows, 0, &[tokens.len() as u32 - 1])?;
        }
        self.write(Input::Sampler, 0, &params.words())?;
        self.draw(i).await
    }

    /// Whether [`sample_next`](Self::sample_next) may run before the token before it was read.
    pub fn runs_ahead(&self) -> bool {
        self.device_map.single() == Some(Place::Gpu)
    }

    /// Feeds the token that was drawn last, which the host need not know, and draws the next.
    pub fn sample_next(&mut self) -> Result<PendingToken> {
        pollster::block_on(self.sample_next_async())
    }

    /// As [`sample_next`](Self::sample_next).
    pub async fn sample_next_async(&mut self) -> Result<PendingToken> {
        let i = self.prepare(self.batch(1, 1, true)).await?;
        self.write_table()?;
        self.draw(i).await
    }

    async fn draw(&mut self, program: usize) -> Result<PendingToken> {
        self.run(program).await.map(PendingToken)
    }

    /// What comes when the GPU, if it computes, has run what was submitted.
    pub(super) fn ran(&mut self) -> Result<Option<gpu::Pending>> {
        let uses = self.device_map.uses(Place::Gpu);
        self.gpu.as_mut().filter(|_| uses).map(|gpu| gpu.memory.read_input(Input::Tokens, 4)).transpose()
    }

    /// Waits until the GPU is only one batch behind. Without this a long prompt would be submitted at once, and to stop it
    /// would be to wait for all of it.
    async fn follow(&mut self) -> Result<()> {
        let Some(ran) = self.ran()? else { return Ok(()) };
        let start = Instant::now();
        if let Some(before) = self.gpu.as_mut().and_then(|gpu| gpu.ran.replace(ran)) {
            before.wait_async().await?;
        }
        if let Some(trace) = &mut self.trace {
            trace.waited(start.elapsed());
        }
        Ok(())
    }

    fn batch(&self, tokens: usize, rows: usize, sample: bool) -> Batch {
        let role = if tokens == 1 { Role::Answer } else { Role::Prompt };
        self.shape(role, tokens, rows, sample)
    }

    /// The shape of a run.
    pub(super) fn shape(&self, role: Role, tokens: usize, rows: usize, sample: bool) -> Batch {
        self.options.shape(self.cells, role, tokens, rows, sample)
    }

    fn write_batch(&mut self, tokens: &[u32], first: usize) -> Result<()> {
        self.past = first;
        self.write(Input::Tokens, 0, tokens)?;
        let rows = tokens.len();
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        places.extend(first as u32..(first + rows) as u32);
        self.lay_table(rows, &mut places);
        let done = self.write(Input::Places, 0, &places);
        (self.places, self.laid) = (places, rows);
        done
    }

    /// Writes what follows the position of a single row, unless it lies there: the device moves on from a batch of another size.
    fn write_table(&mut self) -> Result<()> {
        if self.laid == 1 {
            return Ok(());
        }
        let mut places = std::mem::take(&mut self.places);
        places.clear();
        self.lay_table(1, &mut places);
        let done = self.write(Input::Places, 1, &places);
        (self.places, self.laid) = (places, 1);
        done
    }

    /// The tables of the one sequence, by group, with pages as the pool counts them.
    pub(super) fn set_tables<'t>(&mut self, tables: impl Iterator<Item = &'t [u32]>) {
        for (known, table) in self.tables.iter_mut().zip(tables) {
            if !cache_pages(table).eq(known.iter().copied()) {
                known.clear();
                known.extend(cache_pages(table));
                self.laid = 0;
            }
        }
    }

    /// Adds where the tables of `rows` rows of the one sequence begin, and its tables.
    fn lay_table(&self, rows: usize, places: &mut Vec<u32>) {
        let begins = [0, self.tables[0].len() as u32];
        let pages = self.tables[..self.cells.groups()].iter().flatten().copied();
        lay_tables(places, rows, self.cells.groups(), |group, _| begins[group], pages);
    }

    /// Writes an input from word `at` on wherever layers run: which of them reads it is the graph's business.
    pub(super) fn write(&mut self, input: Input, at: usize, words: &[u32]) -> Result<()> {
        let (at, bytes): (usize, &[u8]) = (4 * at, bytemuck::cast_slice(words));
        if self.device_map.single() != Some(Place::Gpu) {
            let end = at + bytes.len();
            self.memory.input(input, end)?[at..end].copy_from_slice(bytes);
        }
        match &mut self.gpu {
            Some(gpu) if self.device_map.uses(Place::Gpu) => gpu.memory.write_input_at(input, at, bytes),
            _ => Ok(()),
        }
    }
}
