//! What can be said of the GPU kernels where no GPU is at hand, as Markdown: `cargo bench --bench gpu_figures`.
//!
//! Dispatches and bytes per token are counted from the schedule. Times are of whatever device there is, which may be a CPU that pretends
//! to be one: only their ratios mean anything. Instructions are tools/kernel-stats' business.

#[path = "../tests/common/fixture.rs"]
mod fixture;

use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;
use std::time::Instant;
use wgpu_llm::low_level::arch::{Batch, Spec, build};
use wgpu_llm::low_level::base::{DType, Meta, Result};
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::{Device, Memory, Program, Selector, Source, Weights, submissions};
use wgpu_llm::low_level::graph::{Graph, Input, Place, Schedule, Storage};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::model::synth::Synthetic;
use wgpu_llm::low_level::ops::{
    AnyOp, Caps, DrawNumber, Kernel, Linear, PreNorm, SampleParams, Stack, places_len, places_of_one,
};

fn main() {
    // `cargo test --benches` runs this too: nothing is measured there.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let model = std::env::var_os("WGPU_LLM_TEST_DATA")
        .and_then(|dir| Model::open(std::path::Path::new(&dir).join("SmolLM2-135M-Instruct.Q4_1.gguf")).ok())
        .map(Arc::new);
    dispatches(model.as_deref());
    prompts();
    if let (Ok(device), Some(model)) = (Device::open(&Selector::Gpu), model) {
        times(&device, model);
    }
}

fn caps() -> Caps {
    Caps { subgroups: Some((32, 32)), max_binding: 1 << 30, max_shared: 32 << 10, ..Caps::BASELINE }
}

fn token(context: usize) -> Batch {
    Batch::of_one(1, 1, context, DType::F16.into(), true)
}

/// Dispatches, and bytes of weights that are read, of one run.
fn count(graph: &Graph) -> (usize, f64) {
    let (mut dispatches, mut bytes) = (0, 0.0);
    for node in &graph.nodes {
        let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
        dispatches += node.op.gpu(&metas, &node.dst.meta, &caps())[0].passes.len();
        let parts = match &node.op {
            AnyOp::MatMul(_) | AnyOp::MatMulId(_) | AnyOp::GetRows(_) => 1,
            AnyOp::Linear(op) => op.parts,
            _ => continue,
        };
        let share = match &node.op {
            AnyOp::MatMulId(_) => metas[2].shape.elements() as f64 / metas[0].outer() as f64,
            AnyOp::Linear(op) if op.ids => metas[op.parts + 1].shape.elements() as f64 / metas[0].outer() as f64,
            AnyOp::GetRows(_) => 1.0 / metas[0].outer() as f64,
            _ => 1.0,
        };
        bytes += share * Weights::bytes_of(&Stack::meta(&metas[..parts]), &caps()) as f64;
    }
    (dispatches, bytes)
}

fn dispatches(model: Option<&Model>) {
    println!("# GPU figures\n\n## A decoded token, counted\n");
    println!("Caches are long enough for attention to be split: one more dispatch per layer than with short ones.\n");
    println!(
        "| model | layers | plain graph | fused | 9 per layer + 4 | weights read | of the file |\n|---|---|---|---|---|---|---|"
    );
    let row = |name: &str, spec: &Spec, context: usize, file: u64| {
        let plain = build(spec, &token(context)).expect("a graph");
        let (before, _) = count(&plain);
        let (after, bytes) = count(&plain.fuse());
        let layers = spec.layers.len();
        let of = 100.0 * bytes / file as f64;
        println!("| {name} | {layers} | {before} | {after} | {} | {bytes:.0} B | {of:.1} % |", 9 * layers + 4);
    };
    for name in
        ["llama-dense", "qwen3-dense", "gemma3-dense", "gpt2-dense", "phi3-dense", "olmo2-dense", "qwen3moe-moe"]
    {
        let gguf = fixture::gguf(&fixture::json(name)).expect("a model");
        let file = gguf.tensors().iter().map(|t| t.bytes() as u64).sum();
        let spec = Spec::read(&gguf).expect("a spec");
        row(name, &spec, if spec.architecture() == "gpt2" { 64 } else { 2048 }, file);
    }
    for name in SHAPES {
        let gguf = hollow(name);
        let file = gguf.tensors().iter().map(|t| t.bytes() as u64).sum();
        row(name, &Spec::read(&gguf).expect("a spec"), 2048, file);
    }
    if let Some(model) = model {
        row("SmolLM2-135M Q4_1", model.spec(), 2048, model.weight_bytes());
    }
    println!(
        "\nOf models whose head is a tensor of its own the table of embeddings is not read, but for one row; of experts, those that"
    );
    println!("are chosen are.");
}

/// Shapes of well-known models.
const SHAPES: [&str; 4] = ["llama-1b:q4_0", "llama-8b:q4_k_m", "qwen3-30b-a3b:q4_k_m", "gpt-oss-20b:mxfp4"];

/// A model file of zeros that takes no room on the disk: what is asked of it are its metadata and the shapes of its tensors.
fn hollow(name: &str) -> Gguf {
    struct Sparse(std::fs::File);
    impl Write for Sparse {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if bytes.iter().any(|b| *b != 0) {
                return self.0.write(bytes);
            }
            self.0.seek(SeekFrom::Current(bytes.len() as i64))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            let end = self.0.stream_position()?;
            self.0.set_len(end)
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.gguf");
    let mut file = Sparse(std::fs::File::create(&path).expect("a file"));
    let writer = name.parse::<Synthetic>().and_then(|s| s.writer()).expect("a shape");
    let zeros = vec![0; 1 << 20];
    let tensor = |i: usize, out: &mut wgpu_llm::low_level::gguf::Sink<'_>| {
        let bytes = writer.tensors()[i].bytes();
        (0..bytes).step_by(zeros.len()).try_for_each(|at| out.put(&zeros[..zeros.len().min(bytes - at)]))
    };
    writer.write(&mut file, tensor).expect("written");
    file.flush().expect("as long as it should be");
    Gguf::open(&path).expect("a model")
}

fn prompts() {
    println!("\n## Prompts, cut by estimate\n");
    println!(
        "Submissions of one batch of 512 tokens over a cache of 4096 (32768) cells, and the longest one as it is estimated, on a slow"
    );
    println!("integrated GPU (3·10¹¹ operations per second) and on a small card (10¹²):\n");
    println!("| model | integrated | longest | card | longest |\n|---|---|---|---|---|");
    for name in SHAPES {
        let spec = Spec::read(&hollow(name)).expect("a spec");
        let of = |speed: f64| {
            let (mut counts, mut longest) = (Vec::new(), 0.0);
            for context in [4096, 32768] {
                let batch = Batch::of_one(512, 1, context, DType::F16.into(), true);
                let all = submissions(&build(&spec, &batch).expect("a graph").fuse(), &Caps { speed, ..caps() });
                longest = all.iter().copied().fold(longest, f64::max);
                counts.push(all.len());
            }
            format!("{} ({}) | {:.0} ms", counts[0], counts[1], longest * 1e3)
        };
        println!("| {name} | {} | {} |", of(Caps::SLOW), of(Caps::CARD));
    }
}

struct File(Arc<Model>);

impl Source for File {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let gguf = self.0.gguf();
        let info = gguf.tensor(name).expect("graphs name tensors of the file");
        gguf.read_into(info, at as usize, out)
    }
}

/// The median time of `runs` tokens, each from the one before, and of encoding and submitting them, in milliseconds; and their dispatches.
fn decode(device: &Device, model: &Arc<Model>, graph: &Graph, runs: usize) -> (f64, f64, usize) {
    let places =
        graph.buffers.iter().find(|b| b.storage == Storage::Input(Input::Places)).expect("places").meta.outer();
    let mut memory = Memory::new(device, places);
    let mut weights = Weights::new(device, Arc::new(File(model.clone())));
    let schedule = Schedule::single(graph, Place::Gpu);
    let nodes = 0..graph.nodes.len();
    let mut program = Program::new(device, graph, nodes, &schedule, &mut memory, &mut weights).expect("a program");
    let greedy = SampleParams { temp: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed: 0, draw: DrawNumber::From(0) };
    memory.write_input(Input::Sampler, bytemuck::cast_slice(&greedy.words())).expect("written");
    memory.write_input(Input::Tokens, bytemuck::cast_slice(&[1u32])).expect("written");
    let places = places_of_one(0, 1, places - places_len(1, 1, 0));
    memory.write_input(Input::Places, bytemuck::cast_slice(&places)).expect("written");

    let output = graph.output.expect("a token");
    let mut run = || {
        let start = Instant::now();
        let pending = program.run_read(&output).expect("submitted");
        let submitted = start.elapsed().as_secs_f64() * 1e3;
        pending.wait().expect("a token");
        (start.elapsed().as_secs_f64() * 1e3, submitted)
    };
    run();
    let (mut all, mut submitted): (Vec<f64>, Vec<f64>) = (0..runs).map(|_| run()).unzip();
    all.sort_by(f64::total_cmp);
    submitted.sort_by(f64::total_cmp);
    (all[runs / 2], submitted[runs / 2], program.dispatches())
}

fn times(device: &Device, model: Arc<Model>) {
    println!("\n## On {}\n", device.info().name);
    println!("SmolLM2-135M Q4_1, a decoded token, median of 9, the graphs in turn twice:\n");
    println!(
        "| graph | dispatches | ms | against the plain one | encoded and submitted in ms |\n|---|---|---|---|---|"
    );
    let plain = build(model.spec(), &token(1024)).expect("a graph");
    let fused = plain.clone().fuse();
    let mut first = None;
    for (name, graph) in [("plain", &plain), ("fused", &fused), ("plain", &plain), ("fused", &fused)] {
        let (ms, submitted, dispatches) = decode(device, &model, graph, 9);
        let base = *first.get_or_insert(ms);
        println!("| {name} | {dispatches} | {ms:.1} | {:.2} | {submitted:.2} |", ms / base);
    }
    let formats = [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K, DType::F16];
    for tokens in [1, 64] {
        println!(
            "\nA normalised product of 4096 × 2048 weights, tokens: {tokens}, by variant: times the speed of the naive kernel, one thread per"
        );
        println!("row and token by token, and the naive one's milliseconds; median of 9:\n");
        println!("| variant | q4_0 | q8_0 | q4_k | q6_k | f16 |\n|---|---|---|---|---|---|");
        let all: Vec<Vec<(&str, f64)>> = formats.iter().map(|d| variants(device, *d, tokens)).collect();
        for (i, (name, _)) in all[0].iter().enumerate() {
            let of = |t: &Vec<(&str, f64)>| {
                if i == 0 { format!("{:.1} ms", t[0].1 * 1e3) } else { format!("{:.1}", t[0].1 / t[i].1) }
            };
            println!("| {name} | {} |", all.iter().map(of).collect::<Vec<_>>().join(" | "));
        }
    }
}

struct Zeros;

impl Source for Zeros {
    fn read(&self, _: &str, _: u64, out: &mut [u8]) -> Result<()> {
        out.fill(0);
        Ok(())
    }
}

/// The median seconds of each variant of a normalised product, the naive kernel's first.
fn variants(device: &Device, dtype: DType, tokens: usize) -> Vec<(&'static str, f64)> {
    let product = |tokens: usize| {
        let mut graph = Graph::new();
        let w = graph.weight("w", Meta::new(dtype, [ROWS, 2048]));
        let norm = graph.weight("norm", Meta::f32([2048]));
        let x = graph.input(Input::Rows, Meta::f32([tokens, 2048]));
        let op = Linear { norm: Some(PreNorm::Rms { eps: 1e-5, params: 1 }), ..Linear::alone(false, false, tokens) };
        graph.output = Some(graph.op("product", op, &[w, x, norm]).expect("a product"));
        graph
    };
    let (one, graph) = (product(1), product(tokens));
    let node = &graph.nodes[0];
    let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
    let kernels = node.op.gpu(&metas, &node.dst.meta, device.caps());
    let mut memory = Memory::new(device, 2048 * tokens);
    let mut weights = Weights::new(device, Arc::new(Zeros));
    let mut all = vec![("naive", time(device, &one, &|all| naive(all), &mut memory, &mut weights) * tokens as f64)];
    for kernel in kernels {
        let only = |all: Vec<Kernel>| all.into_iter().filter(|k| k.variant == kernel.variant).collect();
        all.push((kernel.variant, time(device, &graph, &only, &mut memory, &mut weights)));
    }
    all
}

/// Rows of the weights of the product that is timed.
const ROWS: usize = 4096;

/// The plainest kernel made as it would be written first: a thread takes a row.
fn naive(all: Vec<Kernel>) -> Vec<Kernel> {
    let mut kernel = all.into_iter().find(|k| k.variant == "vec_shared").expect("every device runs it");
    let pass = &mut kernel.passes[0];
    pass.consts = vec![("WG", 1), ("ROWS", 1), ("COLS", 1)];
    pass.workgroups = [ROWS as u32, 1, 1];
    vec![kernel]
}

fn time(
    device: &Device,
    graph: &Graph,
    choose: &dyn Fn(Vec<Kernel>) -> Vec<Kernel>,
    memory: &mut Memory,
    weights: &mut Weights,
) -> f64 {
    let (schedule, choose) = (Schedule::single(graph, Place::Gpu), |_: usize, all: Vec<Kernel>| choose(all));
    let program = Program::with_kernels(device, graph, 0..1, &schedule, memory, weights, &choose);
    let mut program = pollster::block_on(program).expect("a program");
    let output = graph.output.expect("a result");
    let mut times: Vec<f64> = (0..10)
        .map(|_| {
            let start = Instant::now();
            program.run_read(&output).and_then(|p| p.wait()).expect("a result");
            start.elapsed().as_secs_f64()
        })
        .collect();
    // The first is the driver's.
    times.remove(0);
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
