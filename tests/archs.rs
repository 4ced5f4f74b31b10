//! Every architecture with a row against the reference's logits on its tiny model: the prompt in one go, in two chunks and
//! token by token, with keys and values in f32 and in f16.

mod common;

use common::fixture::{self, Fixture, Weights};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use wgpu_llm::arch::{Batch, Spec, build, supported};
use wgpu_llm::base::DType;
use wgpu_llm::cpu::{Memory, Program, ThreadPool};
use wgpu_llm::graph::{Graph, Input, Place, Plan, Storage};
use wgpu_llm::ops::nmse;

/// Cells of the cache: what the reference was run with.
const CONTEXT: usize = 64;

/// Largest normalised mean squared error of the logits.
const NMSE: f64 = 1e-4;

/// Gaps of the greatest logit to the next, relative to the spread of all, below which either may win.
const CLOSE: f32 = 1e-3;

/// A graph ready to run.
struct Runner<'a> {
    fixture: &'a Fixture,
    graph: Graph,
    program: Program,
}

impl<'a> Runner<'a> {
    fn new(fixture: &'a Fixture, graph: Graph, memory: &mut Memory) -> Self {
        let plan = Plan::single(&graph, Place::Cpu);
        let nodes = 0..graph.nodes.len();
        let program = Program::new(&graph, nodes, &plan, memory, &Weights(&fixture.gguf)).unwrap();
        Runner { fixture, graph, program }
    }

    /// Runs the prompt's tokens from `start` on; gives the rows of the output.
    fn feed(&mut self, start: usize, memory: &mut Memory, pool: &ThreadPool) -> Vec<Vec<f32>> {
        let output = self.graph.output.expect("something is wanted");
        let tokens = output.meta.outer();
        let mut fill = |input, values: Vec<u32>| {
            let bytes: &[u8] = bytemuck::cast_slice(&values);
            memory.input(input, bytes.len()).unwrap()[..bytes.len()].copy_from_slice(bytes);
        };
        fill(Input::Tokens, self.fixture.tokens[start..start + tokens].to_vec());
        fill(Input::Positions, (start as u32..(start + tokens) as u32).collect());
        fill(Input::Rows, (0..tokens as u32).collect());
        self.program.run(&self.graph, memory, pool, None);
        let values: &[f32] = bytemuck::cast_slice(self.program.temp(output.buf));
        values.chunks(output.meta.inner()).take(tokens).map(<[f32]>::to_vec).collect()
    }
}

/// The graph of a run that wants all logits.
fn whole(f: &Fixture, tokens: usize, kv: DType) -> Graph {
    let batch = Batch { tokens, rows: tokens, context: CONTEXT, kv, sample: false };
    let graph = build(&f.spec, &batch).unwrap_or_else(|e| panic!("{}: {e}", f.name));
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

/// Index and lead of the greatest value, the lead relative to the spread.
fn lead(logits: &[f32]) -> (usize, f32) {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("a vocabulary");
    let others = || logits.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, x)| *x);
    let (next, least) = (others().fold(f32::MIN, f32::max), others().fold(f32::MAX, f32::min));
    (best, (logits[best] - next) / (logits[best] - least))
}

/// What differs from the reference outside of `ties`, in words.
fn differences(f: &Fixture, got: &[Vec<f32>], ties: &Range<usize>) -> Vec<String> {
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
        let known = f.positions.iter().position(|q| *q == p).map(|i| &f.logits[i]);
        let (best, gap) = lead(&got[p]);
        let gap = known.map_or(gap, |logits| lead(logits).1);
        if best != *want && gap > CLOSE {
            wrong.push(format!("position {p}: token {best} for {want}, gap {gap:.1e}"));
        }
    }
    wrong
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
            let wrong = differences(&f, &run(&f, chunks, kv, &pool), &ties);
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
    let batch = Batch { tokens: 2, rows: 1, context: CONTEXT, kv: DType::F16, sample: false };
    let graph = build(&f.spec, &batch).unwrap();
    let read = |b: &wgpu_llm::graph::Buffer| match &b.storage {
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

/// llama-dense, changed before it is made.
fn changed(change: impl FnOnce(&mut serde_json::Value)) -> wgpu_llm::base::Result<Graph> {
    let mut json = fixture::json("llama-dense");
    change(&mut json);
    let spec = Spec::read(&fixture::gguf(&json)?)?;
    build(&spec, &Batch { tokens: 1, rows: 1, context: CONTEXT, kv: DType::F16, sample: false })
}

fn retain_tensors(json: &mut serde_json::Value, keep: impl Fn(&str) -> bool) {
    json["tensors"].as_array_mut().unwrap().retain(|t| keep(t["name"].as_str().unwrap()));
}

#[test]
fn an_architecture_without_a_row_is_an_error_that_lists_all_with_one() {
    let error = changed(|json| json["kv"][0][2] = "mamba".into()).unwrap_err().to_string();
    assert!(error.starts_with("models of the architecture 'mamba' cannot be run; these can: "), "{error}");
    let listed: HashSet<&str> = error.split("these can: ").nth(1).unwrap().split(", ").collect();
    assert_eq!(listed, supported().collect());
}

#[test]
fn a_missing_tensor_is_named() {
    for name in ["blk.1.ffn_norm.weight", "blk.0.attn_k.weight", "output_norm.weight", "blk.1.ffn_down.weight"] {
        let error = changed(|json| retain_tensors(json, |t| t != name)).unwrap_err().to_string();
        assert!(error.contains(&format!("the file has no tensor {name};")), "{error}");
    }
}

#[test]
fn a_tensor_of_another_shape_is_named() {
    let error = changed(|json| {
        let tensors = json["tensors"].as_array_mut().unwrap();
        let tensor = tensors.iter_mut().find(|t| t["name"] == "blk.1.attn_v.weight").unwrap();
        tensor["shape"] = serde_json::json!([256, 96]);
    });
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "tensor blk.1.attn_v.weight: its shape is [96, 256] where [128, 256] is wanted");
}

#[test]
fn a_key_without_which_nothing_runs_is_named() {
    for key in [
        "block_count",
        "context_length",
        "embedding_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ] {
        let drop = |json: &mut serde_json::Value| {
            json["kv"].as_array_mut().unwrap().retain(|kv| kv[0] != format!("llama.{key}"));
        };
        let error = changed(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("llama.{key}")), "{error}");
    }
}

#[test]
fn metadata_that_lie_about_sizes_are_errors() {
    for (key, value) in [
        ("block_count", 4_000_000_000u64),
        ("attention.head_count", 4_000_000_000),
        ("attention.head_count", 3),
        ("attention.key_length", 4_000_000_000),
        ("rope.dimension_count", 66),
        ("rope.dimension_count", 63),
        ("embedding_length", 4_000_000_000),
    ] {
        let lie = |json: &mut serde_json::Value| {
            let kv = json["kv"].as_array_mut().unwrap();
            let entry = kv.iter_mut().find(|kv| kv[0] == format!("llama.{key}")).unwrap();
            entry[2] = value.into();
        };
        assert!(changed(lie).is_err(), "{key} = {value}");
    }
}

#[test]
fn without_output_weights_the_embedding_gives_logits() {
    let graph = changed(|json| retain_tensors(json, |t| t != "output.weight")).unwrap();
    let head = graph.nodes.last().unwrap();
    assert_eq!(graph.storage(&head.src[0]), &Storage::Weight("token_embd.weight".to_owned()));
}

#[test]
fn a_decoded_token_of_llama_is_this_graph() {
    let f = Fixture::load("llama-dense");
    let batch = Batch { tokens: 1, rows: 1, context: CONTEXT, kv: DType::F16, sample: true };
    let dump = build(&f.spec, &batch).unwrap().to_string();
    let path = format!("{}/tests/data/graphs/llama-dense-decode.txt", env!("CARGO_MANIFEST_DIR"));
    let want = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(dump == want, "the graph differs from {path}; if it should, replace the file by\n{dump}");
}

#[test]
fn a_batch_without_rows_ends_with_the_last_cache() {
    let f = Fixture::load("llama-dense");
    let batch = Batch { tokens: 8, rows: 0, context: CONTEXT, kv: DType::F16, sample: false };
    let graph = build(&f.spec, &batch).unwrap();
    assert!(graph.output.is_none());
    let last = graph.nodes.last().unwrap();
    assert_eq!((last.op.name(), last.label, last.layer), ("kv_store", "cache_v", Some(1)));
}

#[test]
fn a_batch_that_cannot_be_is_an_error() {
    let f = Fixture::load("llama-dense");
    let fine = Batch { tokens: 8, rows: 1, context: CONTEXT, kv: DType::F16, sample: false };
    assert!(build(&f.spec, &fine).is_ok());
    for batch in [
        Batch { tokens: 0, ..fine },
        Batch { tokens: 65, ..fine },
        Batch { rows: 9, ..fine },
        Batch { rows: 2, sample: true, ..fine },
        Batch { kv: DType::Q8_0, ..fine },
    ] {
        assert!(build(&f.spec, &batch).is_err(), "{batch:?}");
    }
}

#[test]
fn a_cache_takes_the_bytes_it_says() {
    let f = Fixture::load("qwen3-dense");
    let batch = Batch { tokens: 1, rows: 1, context: CONTEXT, kv: DType::F16, sample: false };
    let graph = build(&f.spec, &batch).unwrap();
    let caches = graph.buffers.iter().filter(|b| matches!(b.storage, Storage::Cache(_)));
    assert_eq!(f.spec.cache_bytes(CONTEXT, DType::F16), caches.map(|b| b.meta.span_bytes()).sum::<usize>());
}
