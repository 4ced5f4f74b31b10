//! What can be said of the GPU kernels where no GPU is at hand, as Markdown: `cargo bench --bench gpu_figures > benches/results/gpu.md`.
//!
//! Dispatches and bytes per token are counted from the plan, instructions from SPIR-V. Times are of whatever device there is, which
//! may be a CPU that pretends to be one: only their ratios mean anything.

#[path = "../tests/common/fixture.rs"]
mod fixture;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use wgpu_llm::arch::{Batch, Spec, build};
use wgpu_llm::base::{DType, Meta, Result};
use wgpu_llm::gpu::{Device, Memory, Program, Selector, Shader, Source, Weights};
use wgpu_llm::graph::{Graph, Input, Place, Plan};
use wgpu_llm::model::Model;
use wgpu_llm::ops::{AnyOp, Caps, Linear, MatMul, Op, PreNorm, SampleParams, Stack};

fn main() {
    // `cargo test --benches` runs this too: nothing is measured there.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let model = std::env::var_os("WGPU_LLM_TEST_DATA")
        .and_then(|dir| Model::open(std::path::Path::new(&dir).join("SmolLM2-135M-Instruct.Q4_1.gguf")).ok())
        .map(Arc::new);
    dispatches(model.as_deref());
    instructions();
    if let (Ok(device), Some(model)) = (Device::open(&Selector::Gpu), model) {
        times(&device, model);
    }
}

fn caps() -> Caps {
    Caps { subgroups: Some((32, 32)), max_binding: 1 << 30, max_shared: 32 << 10, ..Caps::BASELINE }
}

fn token(context: usize) -> Batch {
    Batch { tokens: 1, rows: 1, context, kv: DType::F16, sample: true }
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
    let row = |name: &str, spec: &Spec, context: usize, file: usize| {
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
        let file = gguf.tensors().iter().map(|t| t.bytes()).sum();
        let spec = Spec::read(&gguf).expect("a spec");
        row(name, &spec, if spec.architecture() == "gpt2" { 64 } else { 2048 }, file);
    }
    if let Some(model) = model {
        row("SmolLM2-135M Q4_1", model.spec(), 2048, model.weight_bytes());
    }
}

/// Instructions of each function of a module, with those of what it calls; by name. Nothing here loops.
fn costs(words: &[u32]) -> HashMap<String, usize> {
    let (mut names, mut own, mut calls) =
        (HashMap::new(), HashMap::<u32, usize>::new(), HashMap::<u32, Vec<u32>>::new());
    let (mut at, mut function) = (5, None);
    while at < words.len() {
        let (op, len) = (words[at] & 0xffff, (words[at] >> 16) as usize);
        match op {
            5 => {
                let bytes: Vec<u8> = words[at + 2..at + len].iter().flat_map(|w| w.to_le_bytes()).collect();
                let name = bytes.iter().take_while(|b| **b != 0).map(|b| *b as char).collect::<String>();
                names.insert(words[at + 1], name);
            }
            54 => function = Some(words[at + 2]),
            56 => function = None,
            // Labels, parameters, variables, lines, returns are no work.
            8 | 55 | 59 | 248 | 253 | 254 => {}
            _ => {
                if let Some(f) = function {
                    *own.entry(f).or_default() += 1;
                    if op == 57 {
                        calls.entry(f).or_default().push(words[at + 3]);
                    }
                }
            }
        }
        at += len;
    }
    fn total(f: u32, own: &HashMap<u32, usize>, calls: &HashMap<u32, Vec<u32>>) -> usize {
        let called = calls.get(&f).into_iter().flatten();
        own.get(&f).copied().unwrap_or(0) + called.map(|c| total(*c, own, calls)).sum::<usize>()
    }
    own.keys().filter_map(|f| Some((names.get(f)?.clone(), total(*f, &own, &calls)))).collect()
}

fn instructions() {
    println!("\n## The mat-vec's hot loop, SPIR-V instructions per weight\n");
    println!(
        "`quant_w8` decodes eight weights of one row. With them each row needs two dot products of four and two sums; reading eight"
    );
    println!("activations is shared by a workgroup's four rows.\n");
    println!("| format | bits | decode | decode and multiply |\n|---|---|---|---|");
    for dtype in wgpu_llm::quant::SUPPORTED {
        let src = [Meta::new(*dtype, [4096, 4096]), Meta::f32([1, 4096])];
        let kernel = MatMul.gpu(&src, &Meta::f32([1, 4096]), &caps()).remove(0);
        let shader = Shader::new(&kernel.passes[0]).expect("a shader");
        let info = shader.validate(&caps()).expect("a valid shader");
        let options = naga::back::spv::Options { flags: naga::back::spv::WriterFlags::DEBUG, ..Default::default() };
        let words = naga::back::spv::write_vec(&shader.module, &info, &options, None).expect("SPIR-V");
        let all = costs(&words);
        let (decode, x8) = (all["quant_w8"] as f64, all["x8"] as f64);
        let bits = dtype.block_bytes() as f64 * 8.0 / dtype.block() as f64;
        let multiply = (4.0 + x8 / 4.0) / 8.0;
        println!("| {dtype} | {bits:.2} | {:.2} | {:.2} |", decode / 8.0, decode / 8.0 + multiply);
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

/// The median time of `runs` tokens, each from the one before, in milliseconds.
fn decode(device: &Device, model: &Arc<Model>, graph: &Graph, runs: usize) -> (f64, usize) {
    let mut memory = Memory::new(device, 8);
    let mut weights = Weights::new(device, Arc::new(File(model.clone())));
    let plan = Plan::single(graph, Place::Gpu);
    let nodes = 0..graph.nodes.len();
    let mut program = Program::new(device, graph, nodes, &plan, &mut memory, &mut weights).expect("a program");
    let greedy = SampleParams { temp: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed: 0, first: 0 };
    memory.write_input(Input::Sampler, bytemuck::cast_slice(&greedy.words())).expect("written");
    memory.write_input(Input::Tokens, bytemuck::cast_slice(&[1u32])).expect("written");
    memory.write_input(Input::Positions, bytemuck::cast_slice(&[0u32])).expect("written");
    let output = graph.output.expect("a token");
    let mut run = || {
        let start = Instant::now();
        program.run_read(&output).and_then(|p| p.wait()).expect("a token");
        start.elapsed().as_secs_f64() * 1e3
    };
    run();
    let mut times: Vec<f64> = (0..runs).map(|_| run()).collect();
    times.sort_by(f64::total_cmp);
    (times[runs / 2], program.dispatches())
}

fn times(device: &Device, model: Arc<Model>) {
    println!("\n## On {}\n", device.info().name);
    println!("SmolLM2-135M Q4_1, a decoded token, median of 20, the graphs in turn twice:\n");
    println!("| graph | dispatches | ms | against the plain one |\n|---|---|---|---|");
    let plain = build(model.spec(), &token(1024)).expect("a graph");
    let fused = plain.clone().fuse();
    let mut first = None;
    for (name, graph) in [("plain", &plain), ("fused", &fused), ("plain", &plain), ("fused", &fused)] {
        let (ms, dispatches) = decode(device, &model, graph, 20);
        let base = *first.get_or_insert(ms);
        println!("| {name} | {dispatches} | {ms:.1} | {:.2} |", ms / base);
    }
    println!(
        "\nA product of 4096 × 2048 weights for one token, by variant, against `vec_shared`, which reads one activation at a time and"
    );
    println!("adds up in workgroup memory; median of 20:\n");
    println!("| variant | q4_0 | q8_0 | q4_k | q6_k | f16 |\n|---|---|---|---|---|---|");
    let formats = [DType::Q4_0, DType::Q8_0, DType::Q4_K, DType::Q6_K, DType::F16];
    let all: Vec<HashMap<&str, f64>> = formats.iter().map(|d| variants(device, *d)).collect();
    let mut names: Vec<&str> = all[0].keys().copied().collect();
    names.sort_unstable();
    for name in names {
        let ratios: Vec<String> = all.iter().map(|t| format!("{:.2}", t[name] / t["vec_shared"])).collect();
        println!("| {name} | {} |", ratios.join(" | "));
    }
}

struct Zeros;

impl Source for Zeros {
    fn read(&self, _: &str, _: u64, out: &mut [u8]) -> Result<()> {
        out.fill(0);
        Ok(())
    }
}

/// The median time of each variant of a normalised product.
fn variants(device: &Device, dtype: DType) -> HashMap<&'static str, f64> {
    let mut graph = Graph::new();
    let w = graph.weight("w", Meta::new(dtype, [4096, 2048]));
    let norm = graph.weight("norm", Meta::f32([2048]));
    let x = graph.input(Input::Rows, Meta::f32([1, 2048]));
    let op = Linear { norm: Some(PreNorm::Rms { eps: 1e-5, params: 1 }), ..Linear::plain(false, false) };
    let y = graph.op("product", op, &[w, x, norm]).expect("a product");
    graph.output = Some(y);
    let plan = Plan::single(&graph, Place::Gpu);
    let kernels = graph.nodes[0].op.gpu(&[w.meta, x.meta, norm.meta], &y.meta, device.caps());
    let mut memory = Memory::new(device, 2048);
    let mut weights = Weights::new(device, Arc::new(Zeros));
    let mut time = |variant: &'static str| {
        let only =
            |_: usize, all: Vec<wgpu_llm::ops::Kernel>| all.into_iter().filter(|k| k.variant == variant).collect();
        let program = Program::new_async(device, &graph, 0..1, &plan, &mut memory, &mut weights, &only);
        let mut program = pollster::block_on(program).expect("a program");
        let mut times: Vec<f64> = (0..21)
            .map(|_| {
                let start = Instant::now();
                program.run_read(&y).and_then(|p| p.wait()).expect("a result");
                start.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[10]
    };
    kernels.iter().map(|k| (k.variant, time(k.variant))).collect()
}
