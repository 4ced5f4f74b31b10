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
use wgpu_llm::low_level::arch::{Batch, Spec, build, supported};
use wgpu_llm::low_level::base::{DType, Result};
use wgpu_llm::low_level::cpu::{Memory, ThreadPool};
use wgpu_llm::low_level::graph::Graph;
use wgpu_llm::low_level::ops::{CacheTypes, nmse};

/// Largest normalised mean squared error of the logits.
const NMSE: f64 = 1e-4;

/// The same for a fixture whose own logits move by more if weights move by 2^-12.
const LOOSE: &[(&str, f64)] = &[("gemma2-27b", 1e-3)];

/// The graph of a run that wants all logits.
fn whole(f: &Fixture, tokens: usize, kv: impl Into<CacheTypes>) -> Graph {
    let batch = Batch::of_one(tokens, tokens, f.context, kv.into(), false);
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
        all.extend(runner.decode(all.len(), &mut memory, pool));
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
            let row = Runner::new(f, part, &mut memory).decode(0, &mut memory, pool).swap_remove(ties.start);
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
    let most = LOOSE.iter().find(|(name, _)| *name == f.name).map_or(NMSE, |(_, most)| *most);
    if error.is_nan() || error > most {
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
    let first = if n > 17 { n - 17 } else { n - 1 };
    let feeds: [(&str, Vec<usize>); 3] =
        [("in one go", vec![n]), ("in two chunks", vec![first, n - first]), ("token by token", vec![1; n])];
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
    baichuan_13b: "baichuan-13b",
    baichuan_7b: "baichuan-7b",
    cohere2_window: "cohere2-window",
    command_r_plus: "command-r-plus",
    command_r_real: "command-r-real",
    deci_perlayer: "deci-perlayer",
    exaone4_1b: "exaone4-1b",
    exaone4_32b: "exaone4-32b",
    falcon_40b: "falcon-40b",
    gemma2_27b: "gemma2-27b",
    gemma2_window: "gemma2-window",
    gemma3_27b: "gemma3-27b",
    gemma3_3tok: "gemma3-3tok",
    gemma3_long: "gemma3-long",
    gemma3_window: "gemma3-window",
    glm4moe_nextn: "glm4moe-nextn",
    gpt_oss_3tok: "gpt-oss-3tok",
    gpt_oss_window: "gpt-oss-window",
    gptneox_parallel: "gptneox-parallel",
    granite_real: "granite-real",
    hunyuan_vl_alpha: "hunyuan_vl-alpha",
    llama_3tok: "llama-3tok",
    llama_fused_qkv: "llama-fused-qkv",
    llama_linear_oldkey: "llama-linear-oldkey",
    llama_linear: "llama-linear",
    llama_llama3rope_tied: "llama-llama3rope-tied",
    llama_long: "llama-long",
    llama_moe_split: "llama-moe-split",
    llama_mqa: "llama-mqa",
    llama_nemo: "llama-nemo",
    llama_scales: "llama-scales",
    llama_vocab131: "llama-vocab131",
    llama_yarn_oldfactor_none: "llama-yarn-oldfactor-none",
    llama_yarn: "llama-yarn",
    minicpm_defaults: "minicpm-defaults",
    minicpm_real: "minicpm-real",
    mixtral: "mixtral",
    openelm_perlayer: "openelm-perlayer",
    phi3_longrope_long: "phi3-longrope-long",
    phi3_longrope_short: "phi3-longrope-short",
    phi3_partial_tied: "phi3-partial-tied",
    phimoe_longrope_long: "phimoe-longrope-long",
    qwen2_tied: "qwen2-tied",
    qwen3_tied_headdim_vocab131: "qwen3-tied-headdim-vocab131",
    qwen3_yarn_attn: "qwen3-yarn-attn",
    qwen3moe_norm: "qwen3moe-norm",
    qwen3moe_scales: "qwen3moe-scales",
    smollm3_nope: "smollm3-nope",
    stablelm_2_12b: "stablelm-2-12b",
    stablelm_2: "stablelm-2",
}

#[test]
fn every_fixture_and_every_row_is_checked() {
    let names = [fixture::names(), fixture::more_names()].concat();
    let left: Vec<_> = names.iter().filter(|n| !CHECKED.contains(&n.as_str())).collect();
    assert!(left.is_empty(), "no test checks {left:?}");
    let archs: HashSet<String> =
        CHECKED.iter().map(|n| fixture::json(n)["arch"].as_str().expect("an architecture").to_owned()).collect();
    let bare: Vec<_> = supported().filter(|name| !archs.contains(*name)).collect();
    assert!(bare.is_empty(), "no fixture for {bare:?}");
    println!("{} fixtures of {} architectures", names.len(), archs.len());
}

/// A specification with one more tensor, of zeros where it counts.
fn with_tensor(name: &str, tensor: &str, shape: [usize; 1]) -> serde_json::Value {
    let mut json = fixture::json(name);
    let tensors = json["tensors"].as_array_mut().expect("an array");
    tensors.push(serde_json::json!({"name": tensor, "shape": shape, "scale": 0.0, "offset": 1.0}));
    json
}

fn spec_of(json: &serde_json::Value) -> Result<Spec> {
    fixture::gguf(json).and_then(|gguf| Spec::read(&gguf))
}

#[test]
fn tensors_that_nobody_reads_are_an_error_that_names_them() {
    let ignored = regex::Regex::new(r"^(blk\.\d\.(attn_gate|attn_q\.scales|rope)|blk\.9|tail)").expect("a pattern");
    for tensor in [
        "blk.0.attn_gate.weight",
        "blk.1.attn_q.scales",
        "blk.9.attn_q.weight",
        "blk.0.rope_freqs.weight",
        "tail.weight",
    ] {
        // Without a table of rotary factors for all layers.
        let json = with_tensor("llama-linear", tensor, [16]);
        let error = spec_of(&json).expect_err(tensor).to_string();
        assert!(error.contains(tensor) && error.contains("--ignore-tensors"), "{error}");
        Spec::read_ignoring(&fixture::gguf(&json).expect("a model"), Some(&ignored)).expect("the user wants it so");
    }
}

#[test]
fn known_passengers_are_left_alone() {
    for tensor in
        ["v.patch_embd.weight", "mm.0.weight", "blk.0.attn_q.input_scale", "cls.output.weight", "output.input_scale"]
    {
        spec_of(&with_tensor("llama-dense", tensor, [1])).unwrap_or_else(|e| panic!("{tensor}: {e}"));
    }
    // The twin of a tensor that the model has for all layers.
    spec_of(&with_tensor("llama-llama3rope-tied", "blk.1.rope_freqs.weight", [16])).expect("a twin");
}

#[test]
fn experts_one_by_one_are_whole_or_an_error_says_which_is_missing() {
    let mut json = fixture::json("llama-moe-split");
    let tensors = json["tensors"].as_array_mut().expect("an array");
    tensors.retain(|t| t["name"] != "blk.1.ffn_up.3.weight");
    let error = spec_of(&json).expect_err("an expert is missing").to_string();
    assert!(error.contains("expert 3") && error.contains("blk.1.ffn_up_exps.weight"), "{error}");
}

#[test]
fn sizes_of_nothing_are_errors_that_name_the_key() {
    for (key, what) in [
        ("llama.attention.head_count_kv", "4 query heads and 0 key heads"),
        ("llama.attention.head_count", "no layer has attention heads"),
        ("llama.block_count", "is 0"),
        ("llama.embedding_length", "is 0"),
        ("llama.context_length", "is 0"),
    ] {
        let mut json = fixture::json("llama-dense");
        fixture::set(&mut json, key, serde_json::json!(["UINT32"]), serde_json::json!(0));
        let error = spec_of(&json).expect_err(key).to_string();
        assert!(error.contains(key) && error.contains(what), "{key}: {error}");
    }
}

#[test]
fn keys_are_read_harmless_or_refused_and_others_are_noted() {
    let mut json = fixture::json("llama-dense");
    fixture::set(&mut json, "llama.rope.freq_bass", serde_json::json!(["FLOAT32"]), serde_json::json!(3.0));
    fixture::set(&mut json, "tokenizer.ggml.sprites", serde_json::json!(["UINT32"]), serde_json::json!(3));
    assert_eq!(spec_of(&json).expect("a warning").unknown_keys, ["llama.rope.freq_bass", "tokenizer.ggml.sprites"]);
    fixture::set(&mut json, "llama.ssm.inner_size", serde_json::json!(["UINT32"]), serde_json::json!(64));
    let error = spec_of(&json).expect_err("not done here").to_string();
    assert!(error.contains("llama.ssm.inner_size"), "{error}");
}
