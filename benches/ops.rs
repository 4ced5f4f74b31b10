//! Every op: at the shapes of its own cases, and at those that it has in the graphs of real models, on the CPU and on a GPU.
//!
//! `cargo bench --bench ops -- cpu/model/llama-1b` and so on; see benches/README.md. Figures mean something only beside others of
//! the same run.

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use wgpu_llm::low_level::arch::{self, Batch};
use wgpu_llm::low_level::base::{DType, Error, Layout, Meta, Result, View, ViewMut};
use wgpu_llm::low_level::cpu::{Bytes, Panels, ThreadPool};
use wgpu_llm::low_level::gpu::{self, Device, Selector};
use wgpu_llm::low_level::graph::{Cache, CachePart, Graph, Node, Place, Schedule, Storage, Tensor};
use wgpu_llm::low_level::model::{Model, synth::Synthetic};
use wgpu_llm::low_level::ops::{AnyOp, Case, Fill, Input, Rows, WeightLayout, places_len};

/// Models whose ops are measured, cut to one layer, and the tokens of their vocabulary: one large head is enough.
const MODELS: &[(&str, usize)] = &[("llama-1b:q4_0", 32768), ("qwen3-30b-a3b:q4_k_m", 512), ("gpt-oss-20b:mxfp4", 512)];
/// Batches: their tokens, and the tokens in the cache before them.
const BATCHES: &[(&str, usize, u32)] = &[("decode", 1, 4000), ("prefill", 512, 512)];
const CONTEXT: usize = 4096;
/// In a model weights come from memory, so here they must not stay in caches.
const BEYOND_CACHES: usize = 128 << 20;

/// An op with its sources.
struct Job {
    name: String,
    op: AnyOp,
    src: Vec<Piece>,
    dst: Meta,
    /// Bytes of the buffers of all sources: made when they are first needed, since most jobs are filtered out.
    make: Box<dyn Fn() -> Vec<Vec<u8>>>,
}

/// A source as a view into a buffer.
struct Piece {
    meta: Meta,
    offset: usize,
    whole: Meta,
    weight: bool,
}

impl Piece {
    fn view<'a>(&self, bytes: &'a [u8]) -> View<'a> {
        let start = self.meta.dtype.row_bytes(self.offset).expect("views begin at whole blocks");
        View::new(self.meta, &bytes[start..])
    }
}

fn job_of_case(n: usize, case: Case<AnyOp>) -> Job {
    let metas: Vec<Meta> = case.src.iter().map(|s| s.meta).collect();
    let piece = |s: &Input| {
        let elements =
            (s.offset + s.meta.outer() * s.meta.stride.max(s.meta.inner())).next_multiple_of(s.meta.shape.row());
        let packed = s.offset == 0 && s.meta.is_packed();
        let whole = if packed { s.meta } else { Meta::new(s.meta.dtype, [elements]) };
        Piece { meta: s.meta, offset: s.offset, whole, weight: false }
    };
    let (op, inputs) = (case.op, case.src);
    Job {
        name: format!("cases/{}/{n} {op:?} {metas:?}", op.name()),
        dst: op.infer(&metas).expect("cases are valid"),
        src: inputs.iter().map(piece).collect(),
        make: Box::new(move || inputs.iter().zip(n as u64 * 16..).map(|(s, seed)| s.bytes(seed)).collect()),
        op,
    }
}

/// The ops of a model's graphs, each shape once.
fn jobs_of_model(name: &'static str, vocab: usize) -> Vec<Job> {
    let synthetic: Synthetic = name.parse().expect("a known shape");
    let file = synthetic.cut(1, vocab).model_file(&ThreadPool::per_core(), &mut |_| Ok(()));
    let model = Rc::new(Model::new(file.expect("memory for one layer")).expect("a whole model"));
    let (mut jobs, mut seen) = (Vec::new(), HashSet::new());
    for &(phase, tokens, past) in BATCHES {
        let batch = Batch::of_one(tokens, 1, CONTEXT, DType::F16.into(), true);
        let graph = Rc::new(arch::build(model.spec(), &batch).expect("the model is supported").fuse());
        for (i, node) in graph.nodes.iter().enumerate() {
            let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
            if !seen.insert(format!("{:?} {metas:?}", node.op)) {
                continue;
            }
            let (model, all) = (model.clone(), graph.clone());
            jobs.push(Job {
                name: format!("model/{name}/{phase}/{} {} {metas:?}", node.op.name(), node.label),
                op: node.op.clone(),
                src: node.src.iter().map(|t| piece(&graph, t)).collect(),
                dst: node.dst.meta,
                make: Box::new(move || all.nodes[i].src.iter().map(|t| content(&all, t, &model, past)).collect()),
            });
        }
    }
    jobs
}

fn piece(graph: &Graph, t: &Tensor) -> Piece {
    let whole = graph.buffers[t.buf.0 as usize].meta;
    let weight = matches!(graph.storage(t), Storage::Weight(_)) && whole.shape.dims().len() > 1;
    Piece { meta: t.meta, offset: t.offset, whole, weight }
}

/// What lies in the buffer of a graph's tensor.
fn content(graph: &Graph, t: &Tensor, model: &Model, past: u32) -> Vec<u8> {
    use wgpu_llm::low_level::graph::Input as Given;
    let whole = graph.buffers[t.buf.0 as usize].meta;
    let routes = |n: &&Node| matches!(n.op, AnyOp::Router(_)) && n.dst.buf == t.buf;
    let fill = match graph.storage(t) {
        Storage::Weight(name) => {
            let info = model.gguf().tensor(name).expect("the graph is this model's");
            return model.gguf().data(info).expect("in memory").to_vec();
        }
        Storage::Const(_, bytes) => return bytes.clone(),
        Storage::Input(Given::Tokens) => Fill::Below(model.spec().vocab as u32),
        Storage::Input(Given::Places) => {
            let (rows, pages) = (graph.tokens(), whole.outer() - places_len(graph.tokens(), 1, 0));
            Fill::Places(Rows { rows, sequences: 1, start: past as usize, pages })
        }
        Storage::Input(Given::Rows) => Fill::Count(0),
        // Temperature 0.8, top-k 40, top-p 0.95, min-p 0.05: the defaults.
        Storage::Input(Given::Sampler) => Fill::Words(&[0x3f4c_cccd, 40, 0x3f73_3333, 0x3d4c_cccd, 7, 0, 3, 0]),
        // Ids, and weights beside them, for which any number will do.
        Storage::Temp if graph.nodes.iter().any(|n| routes(&n)) => Fill::Below(model.spec().experts as u32),
        Storage::Cache(_) | Storage::Temp => Fill::Uniform { scale: 1.0, offset: 0.0 },
    };
    Input::filled(whole, fill).bytes(u64::from(t.buf.0))
}

impl Job {
    fn weights(&self, bytes: &[Vec<u8>]) -> usize {
        self.src.iter().zip(bytes).filter(|(p, _)| p.weight).map(|(_, b)| b.len()).sum()
    }

    /// The sources as the CPU has them, matrices interleaved as a model's are; so many times that they are beyond its caches.
    fn copies(&self, pool: &ThreadPool) -> Vec<Vec<(Bytes, Layout)>> {
        let first = (self.make)();
        let copies = BEYOND_CACHES.checked_div(self.weights(&first)).map_or(1, |n| n.clamp(1, 64));
        let panels = Panels::default();
        let source = |copy: usize, i: usize| -> (Bytes, Layout) {
            let (piece, bytes) = (&self.src[i], &first[i]);
            let read = |at: usize, out: &mut [u8]| {
                out.copy_from_slice(&bytes[at..][..out.len()]);
                Ok(())
            };
            let whole = piece.weight && piece.meta == piece.whole && self.op.weight_layout(i) == WeightLayout::Packed;
            let made = whole.then(|| panels.get(&format!("{copy}.{i}"), &piece.meta, pool, &read).expect("memory"));
            match made.flatten() {
                Some(part) => (part, Layout::Packed),
                None => (Arc::new(bytes.clone()), Layout::Rows),
            }
        };
        (0..copies).map(|copy| (0..first.len()).map(|i| source(copy, i)).collect()).collect()
    }

    fn views<'a>(&self, sources: &'a [(Bytes, Layout)]) -> Vec<View<'a>> {
        let view = |(i, (piece, (bytes, layout))): (usize, (&Piece, &'a (Bytes, Layout)))| match layout {
            _ if self.op.written().any(|w| w == i) => View::empty(piece.meta),
            Layout::Packed => View { meta: piece.meta, data: (**bytes).as_ref(), layout: Layout::Packed },
            Layout::Rows => piece.view((**bytes).as_ref()),
        };
        self.src.iter().zip(sources).enumerate().map(view).collect()
    }

    fn on_cpu(&self, c: &mut Criterion, pool: &ThreadPool) {
        let ready = OnceCell::new();
        c.bench_function(&format!("cpu/{}", self.name), |b| {
            let sources = ready.get_or_init(|| self.copies(pool));
            let views: Vec<Vec<View>> = sources.iter().map(|one| self.views(one)).collect();
            let own = |i: usize| (*sources[0][i].0).as_ref().to_vec();
            let mut out = match self.op.in_place() {
                Some(i) => own(i),
                None => vec![0; self.dst.span_bytes()],
            };
            let updates = self.op.updates().map(|i| (self.src[i].meta, own(i)));
            let mut updated: Vec<(Meta, Vec<u8>)> = updates.collect();
            let mut turn = 0;
            b.iter(|| {
                turn = (turn + 1) % views.len();
                let more = updated.iter_mut().map(|(meta, data)| ViewMut { meta: *meta, data });
                let mut more: Vec<ViewMut> = more.collect();
                self.op.cpu(&views[turn], ViewMut { meta: self.dst, data: black_box(&mut out) }, &mut more, pool);
            });
        });
    }

    fn on_gpu(&self, c: &mut Criterion, device: &Device) {
        let ready: OnceCell<std::cell::RefCell<Result<gpu::Program>>> = OnceCell::new();
        c.bench_function(&format!("gpu/{}", self.name), |b: &mut Bencher| {
            let program = ready.get_or_init(|| self.program(device).into());
            match &mut *program.borrow_mut() {
                Ok(program) => b.iter_custom(|runs| (0..runs).map(|_| device_time(program)).sum()),
                // Some kernels refuse some shapes; a time of nothing would be a lie.
                Err(e) => panic!("{}: {e}", self.name),
            }
        });
    }

    /// The op as a graph of its own: what it updates is a cache, as are blocks that attention reads; all else are weights.
    fn program(&self, device: &Device) -> Result<gpu::Program> {
        let (mut graph, mut tensors, mut src) = (Graph::new(), HashMap::new(), Vec::new());
        for (i, (piece, bytes)) in self.src.iter().zip((self.make)()).enumerate() {
            let name = format!("src{i}");
            let blocks = matches!(self.op, AnyOp::Attention(_)) && piece.whole.dtype.is_quantized();
            let buffer = match blocks || self.op.written().any(|w| w == i) {
                true => graph.cache(Cache { layer: i as u32, part: CachePart::Key }, piece.whole),
                false => graph.weight(&name, piece.whole),
            };
            tensors.insert(name, bytes);
            src.push(Tensor { meta: piece.meta, offset: piece.offset, ..buffer });
        }
        graph.output = Some(graph.op("bench", self.op.clone(), &src)?);
        let schedule = Schedule::single(&graph, Place::Gpu);
        let mut memory = gpu::Memory::new(device, 1);
        let mut weights = gpu::Weights::new(device, Arc::new(Tensors(tensors)));
        gpu::Program::new(device, &graph, 0..1, &schedule, &mut memory, &mut weights)
    }
}

/// What the device's own clock says of one run.
fn device_time(program: &mut gpu::Program) -> Duration {
    let timings = program.profile().expect("the device has timestamps and is not lost");
    Duration::from_nanos(timings.iter().map(|t| t.end.saturating_sub(t.start)).sum::<u64>().max(1))
}

struct Tensors(HashMap<String, Vec<u8>>);

impl gpu::Source for Tensors {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let bytes = self.0.get(name).ok_or_else(|| Error::usage(format!("no tensor {name}")))?;
        out.copy_from_slice(&bytes[at as usize..][..out.len()]);
        Ok(())
    }
}

/// The GPU that `WGPU_LLM_BENCH_DEVICE` names; without it a real one, where there is one.
fn device() -> Option<Device> {
    let named = std::env::var("WGPU_LLM_BENCH_DEVICE").unwrap_or_else(|_| "auto".into());
    if named == "cpu" {
        return None;
    }
    let selector: Selector = named.parse().unwrap_or_else(|e| panic!("WGPU_LLM_BENCH_DEVICE: {e}"));
    match Device::open(&selector) {
        Ok(device) if device.has_timestamps() => Some(device),
        Ok(device) => panic!("{} cannot time its work", device.info().name),
        Err(_) if named == "auto" => None,
        Err(e) => panic!("{e}"),
    }
}

fn ops(c: &mut Criterion) {
    let (pool, device) = (ThreadPool::per_core(), device());
    let cases = AnyOp::cases().into_iter().enumerate().map(|(n, case)| job_of_case(n, case));
    let models = MODELS.iter().flat_map(|(name, vocab)| jobs_of_model(name, *vocab));
    for job in cases.chain(models) {
        job.on_cpu(c, &pool);
        if let Some(device) = &device {
            job.on_gpu(c, device);
        }
    }
}

/// Hundreds of small benches: a second for each.
fn config() -> Criterion {
    let quick = Criterion::default().warm_up_time(Duration::from_millis(300));
    quick.measurement_time(Duration::from_millis(700)).sample_size(10)
}

criterion_group!(name = benches; config = config(); targets = ops);
criterion_main!(benches);
