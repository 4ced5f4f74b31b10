//! Every architecture with a row against the reference's logits on its tiny model, in fused graphs: the prompt in one go, in two chunks and
//! token by token, with keys and values in f32 and in f16.

#[path = "common/cpu.rs"]
mod cpu;
#[path = "common/fixture.rs"]
mod fixture;

use cpu::Runner;
use fixture::{CLOSE, Fixture, lead};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use wgpu_llm::arch::{Batch, build, supported};
use wgpu_llm::base::DType;
use wgpu_llm::cpu::{Memory, ThreadPool};
use wgpu_llm::graph::{Buffer, Graph, Storage};
use wgpu_llm::ops::{CacheTypes, nmse};

/// Cells of the cache: what the reference was run with.
const CONTEXT: usize = 64;

/// Largest normalised mean squared error of the logits.
const NMSE: f64 = 1e-4;

/// The graph of a run that wants all logits.
fn whole(f: &Fixture, tokens: usize, kv: impl Into<CacheTypes>) -> Graph {
    let batch = Batch { tokens, rows: tokens, context: CONTEXT, kv: kv.into(), sample: false };
    let graph = build(&f.spec, &batch).unwrap_or_else(|e| panic!("{}: {e}", f.name)).fuse();
    assert_eq!(graph.output.expect("rows were wanted").meta.shape.dims(), [tokens, f.spec.vocab]);
    graph
}

/// The logits of the whole prompt, fed in `chunks` of tokens.
fn run(f: &Fixture, chunks: &[usize], kv: DType, pool: &ThreadPool) -> Vec<Vec<f32>> {
    let mut memory = Memory::default();
    let mut runners: HashMap<usize, Runner> = HashMap::new();
    let mut all = Vec::new();
    for &tokens in chunks {
        let runner = runners.entry(tokens).or_insert_with(|| Runner::new(f, whole(f, tokens, kv), &mut memory));
        all.extend(runner.feed(all.len(), &mut memory, pool));
    }
    all
}

/// Where rounding the cache to f16 sends a token to other experts, because two are nearly as good: there, and wherever a later
/// layer sees it, another network answers whatever the code does.
#[rustfmt::skip]
const TIES: &[(&str, Range<usize>)] = &[
    // In the last layer.
    ("minicpm-moe", 37..38),
    // In the first: all later positions see it in the second.
    ("minimax-m2-moe", 4..40),
];

/// The fixture's positions from [`TIES`], after checking that they are one.
fn ties(f: &Fixture, pool: &ThreadPool) -> Range<usize> {
    let Some((_, ties)) = TIES.iter().find(|(name, _)| *name == f.name) else { return 0..0 };
    let chosen = |kv| -> Vec<HashSet<u32>> {
        let graph = whole(f, f.tokens.len(), kv);
        let routers = (0..graph.nodes.len()).filter(|i| graph.nodes[*i].op.name() == "router");
        let until = |i: usize| {
            let mut part = graph.clone();
            part.nodes.truncate(i + 1);
            part.output = Some(part.nodes[i].dst);
            let mut memory = Memory::default();
            let row = Runner::new(f, part, &mut memory).feed(0, &mut memory, pool).swap_remove(ties.start);
            row[..row.len() / 2].iter().map(|id| *id as u32).collect()
        };
        routers.map(until).collect()
    };
    assert_ne!(chosen(DType::F32), chosen(DType::F16), "{}: no tie at {}", f.name, ties.start);
    ties.clone()
}

/// The error against the reference outside of `ties`, and what is too much, in words.
fn compare(f: &Fixture, got: &[Vec<f32>], ties: &Range<usize>) -> (f64, Vec<String>) {
    let mut wrong = Vec::new();
    let known = || f.positions.iter().zip(&f.logits).filter(|(p, _)| !ties.contains(p));
    let want: Vec<f64> = known().flat_map(|(_, row)| row.iter().map(|x| f64::from(*x))).collect();
    let at: Vec<f32> = known().flat_map(|(p, _)| got[*p].iter().copied()).collect();
    let error = nmse(&at, &want);
    if error.is_nan() || error > NMSE {
        wrong.push(format!("nmse {error:.2e}"));
    }
    assert_eq!(f.argmax.len(), f.tokens.len());
    for (p, want) in f.argmax.iter().enumerate().filter(|(p, _)| !ties.contains(p)) {
        // All of the reference's logits are known at some positions only; elsewhere its gap is near ours.
        let known = f.positions.iter().position(|q| *q == p);
        let (best, gap) = lead(&got[p]);
        let gap = known.map_or(gap, |i| f.lead(i));
        if best != *want && gap > CLOSE {
            wrong.push(format!("position {p}: token {best} for {want}, gap {gap:.1e}"));
        }
    }
    (error, wrong)
}

fn check(name: &str) {
    let f = Fixture::load(name);
    let pool = ThreadPool::new(2);
    let n = f.tokens.len();
    let feeds: [(&str, Vec<usize>); 3] =
        [("in one go", vec![n]), ("in two chunks", vec![n - 17, 17]), ("token by token", vec![1; n])];
    let mut failures = Vec::new();
    for kv in [DType::F32, DType::F16] {
        let ties = if kv == DType::F16 { ties(&f, &pool) } else { 0..0 };
        for (feed, chunks) in &feeds {
            let (error, wrong) = compare(&f, &run(&f, chunks, kv, &pool), &ties);
            println!("{name} {feed}, {kv} cache: nmse {error:.1e}");
            if !wrong.is_empty() {
                failures.push(format!("{feed}, {kv} cache: {}", wrong.join("; ")));
            }
        }
    }
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
    unused_tensors(&f);
}

/// Tensors that the reference loads and then leaves alone: a graph must use all others.
#[rustfmt::skip]
const IDLE: &[(&str, &str)] = &[
    ("qwen3", "cls.output.weight"),
    ("mpt", "attn_k_norm"),
    ("ernie4_5", "attn_output.bias"),
    ("ernie4_5-moe", "attn_output.bias"),
    ("hy_v3", "ffn_down.weight"),
    ("hy_v3", "ffn_gate.weight"),
    ("hy_v3", "ffn_up.weight"),
    ("refact", "ffn_"),
    ("refact", "attn_output.bias"),
];

fn unused_tensors(f: &Fixture) {
    let batch = Batch { tokens: 2, rows: 1, context: CONTEXT, kv: DType::F16.into(), sample: false };
    let graph = build(&f.spec, &batch).unwrap();
    let read = |b: &Buffer| match &b.storage {
        Storage::Weight(name) => Some(name.clone()),
        _ => None,
    };
    let used: HashSet<String> = graph.buffers.iter().filter_map(read).collect();
    // Tables that go into constants.
    let table = |name: &str| name.starts_with("rope_f") || name.ends_with(".act.scales");
    let idle = |name: &str| IDLE.iter().any(|(arch, part)| *arch == f.spec.architecture() && name.contains(part));
    let names = f.gguf.tensors().iter().map(|t| t.name.as_str());
    let left: Vec<_> = names.filter(|n| !used.contains(*n) && !table(n) && !idle(n)).collect();
    assert!(left.is_empty(), "{}: the graph leaves out {left:?}", f.name);
}

macro_rules! fixtures {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { check($name) })*

        /// The fixtures that tests above check.
        const CHECKED: &[&str] = &[$($name),*];
    };
}

fixtures! {
    arcee: "arcee-dense",
    baichuan: "baichuan-dense",
    bailingmoe: "bailingmoe-moe",
    bloom: "bloom-dense",
    chatglm: "chatglm-dense",
    codeshell: "codeshell-dense",
    cohere2: "cohere2-dense",
    command_r: "command-r-dense",
    dbrx: "dbrx-moe",
    deci: "deci-dense",
    deepseek: "deepseek-moe",
    dots1: "dots1-moe",
    ernie4_5: "ernie4_5-moe",
    ernie4_5_moe: "ernie4_5-moe-moe",
    exaone4: "exaone4-dense",
    exaone: "exaone-dense",
    exaone_moe: "exaone-moe-moe",
    falcon: "falcon-dense",
    gemma2: "gemma2-dense",
    gemma3: "gemma3-dense",
    gemma: "gemma-dense",
    glm4: "glm4-dense",
    glm4moe: "glm4moe-moe",
    gpt2: "gpt2-dense",
    gpt_oss: "gpt-oss-moe",
    gptneox: "gptneox-dense",
    granite: "granite-dense",
    granite_moe: "granite-moe",
    granite_swa: "granite_swa-dense",
    granitemoe: "granitemoe-moe",
    granitemoe_dense: "granitemoe-dense",
    hunyuan_dense: "hunyuan-dense-dense",
    hunyuan_moe: "hunyuan-moe-moe",
    hunyuan_vl: "hunyuan_vl-dense",
    hy_v3: "hy_v3-moe",
    internlm2: "internlm2-dense",
    jais2: "jais2-dense",
    jais: "jais-dense",
    llama: "llama-dense",
    llama_moe: "llama-moe",
    maincoder: "maincoder-dense",
    mellum: "mellum-moe",
    minicpm: "minicpm-dense",
    minicpm_moe: "minicpm-moe",
    minimax_m2: "minimax-m2-moe",
    mistral3: "mistral3-dense",
    mistral3_moe: "mistral3-moe",
    mpt: "mpt-dense",
    nemotron: "nemotron-dense",
    olmo2: "olmo2-dense",
    olmo: "olmo-dense",
    olmoe: "olmoe-moe",
    openelm: "openelm-dense",
    orion: "orion-dense",
    phi2: "phi2-dense",
    phi3: "phi3-dense",
    phimoe: "phimoe-moe",
    plamo: "plamo-dense",
    qwen2: "qwen2-dense",
    qwen2moe: "qwen2moe-moe",
    qwen3: "qwen3-dense",
    qwen3moe: "qwen3moe-moe",
    qwen: "qwen-dense",
    refact: "refact-dense",
    refact_moe: "refact-moe",
    seed_oss: "seed_oss-dense",
    smollm3: "smollm3-dense",
    stablelm: "stablelm-dense",
    starcoder2: "starcoder2-dense",
    starcoder: "starcoder-dense",
    xverse: "xverse-dense",
}

#[test]
fn every_fixture_and_every_row_is_checked() {
    let names = fixture::names();
    let left: Vec<_> = names.iter().filter(|n| !CHECKED.contains(&n.as_str())).collect();
    assert!(left.is_empty(), "no test checks {left:?}");
    let archs: HashSet<String> =
        CHECKED.iter().map(|n| fixture::json(n)["arch"].as_str().expect("an architecture").to_owned()).collect();
    let bare: Vec<_> = supported().filter(|name| !archs.contains(*name)).collect();
    assert!(bare.is_empty(), "no fixture for {bare:?}");
    println!("{} fixtures of {} architectures", names.len(), archs.len());
}
