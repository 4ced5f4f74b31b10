//! What graphs of architectures do beyond giving the reference's logits: rows that are wanted, sampling, scaled contexts, layer
//! patterns of larger models; and what is said of files that do not fit.

#[path = "common/cpu.rs"]
mod cpu;
#[path = "common/fixture.rs"]
mod fixture;

use cpu::{Runner, fill};
use fixture::Fixture;
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use wgpu_llm::low_level::arch::{Batch, Cells, Spec, build, supported};
use wgpu_llm::low_level::base::{DType, Result, Role};
use wgpu_llm::low_level::cpu::{Memory, ThreadPool};
use wgpu_llm::low_level::graph::{Graph, Input, Storage};
use wgpu_llm::low_level::ops::{AnyOp, CacheTypes, DrawNumber, RopeTable, SampleParams, nmse, places_of_one};

/// Cells of the cache.
const CONTEXT: usize = 64;

/// A token that is decoded.
const DECODE: Batch = Batch {
    role: Role::Answer,
    tokens: 1,
    rows: 1,
    context: CONTEXT,
    pool: Cells { pages: 1, window_pages: 0, table: 1 },
    kv: CacheTypes { keys: DType::F16, values: DType::F16 },
    sample: false,
};

/// The graph of a decoded token of a fixture, changed before its model is made.
fn changed_fixture(name: &str, change: impl FnOnce(&mut Json)) -> Result<Graph> {
    let mut json = fixture::json(name);
    change(&mut json);
    build(&Spec::read(&fixture::gguf(&json)?)?, &DECODE)
}

fn changed(change: impl FnOnce(&mut Json)) -> Result<Graph> {
    changed_fixture("llama-dense", change)
}

/// Sets a key, without its architecture.
fn set(json: &mut Json, key: &str, kind: &str, value: Json) {
    let key = format!("{}.{key}", json["arch"].as_str().unwrap());
    let kv = json["kv"].as_array_mut().unwrap();
    kv.retain(|entry| entry[0] != key);
    kv.push(json!([key, [kind], value]));
}

fn drop_key(json: &mut Json, key: &str) {
    let key = format!("{}.{key}", json["arch"].as_str().unwrap());
    json["kv"].as_array_mut().unwrap().retain(|entry| entry[0] != key);
}

/// Gives a model `layers` layers, all like its first.
fn deepen(json: &mut Json, layers: usize) {
    set(json, "block_count", "UINT32", layers.into());
    drop_key(json, "attention.sliding_window_pattern");
    let tensors = json["tensors"].as_array_mut().unwrap();
    tensors.retain(|t| !t["name"].as_str().unwrap().starts_with("blk.1."));
    let first: Vec<Json> =
        tensors.iter().filter(|t| t["name"].as_str().unwrap().starts_with("blk.0.")).cloned().collect();
    for i in 1..layers {
        for tensor in &first {
            let mut tensor = tensor.clone();
            tensor["name"] = tensor["name"].as_str().unwrap().replacen("blk.0.", &format!("blk.{i}."), 1).into();
            tensors.push(tensor);
        }
    }
}

/// Layers that turn their queries, and each layer's window.
fn pattern(graph: &Graph) -> (Vec<usize>, Vec<usize>) {
    let turned = graph.nodes.iter().filter(|n| n.label == "rope_q").map(|n| n.layer.unwrap() as usize).collect();
    let window = |op: &AnyOp| match op {
        AnyOp::Attention(op) => Some(op.window),
        _ => None,
    };
    (turned, graph.nodes.iter().filter_map(|n| window(&n.op)).collect())
}

#[test]
fn layer_patterns_follow_the_depth() {
    let of = |name: &str, layers: usize| pattern(&changed_fixture(name, |json| deepen(json, layers)).unwrap());
    assert_eq!(of("smollm3-dense", 9).0, [0, 1, 2, 4, 5, 6, 8]);
    assert_eq!(of("gemma3-dense", 7).1, [32, 32, 32, 32, 32, 0, 32]);
    assert_eq!(of("gemma2-dense", 4).1, [32, 0, 32, 0]);
    assert_eq!(of("gpt-oss-moe", 3).1, [32, 0, 32]);
    assert_eq!(of("cohere2-dense", 5), (vec![0, 1, 2, 4], vec![32, 32, 32, 0, 32]));
    assert_eq!(of("exaone4-dense", 4), (vec![0, 1, 2, 3], vec![0; 4]));
    let (turned, windows) = of("exaone4-dense", 64);
    assert_eq!((turned.len(), &windows[..5]), (48, &[32, 32, 32, 0, 32][..]));
    assert_eq!(of("baichuan-dense", 32).0.len(), 32);
    let deep = changed_fixture("baichuan-dense", |json| deepen(json, 40)).unwrap();
    let biased = |op: &AnyOp| matches!(op, AnyOp::Attention(op) if op.max_bias == 8.0);
    assert!(pattern(&deep).0.is_empty() && deep.nodes.iter().filter(|n| biased(&n.op)).count() == 40);
}

/// The factor on q·k of the first layer.
fn scale(graph: &Graph) -> f32 {
    let scale = |op: &AnyOp| match op {
        AnyOp::Attention(op) => Some(op.scale),
        _ => None,
    };
    graph.nodes.iter().find_map(|n| scale(&n.op)).expect("attention")
}

#[test]
fn attention_scales_come_from_the_key_the_depth_or_the_head() {
    // Heads of 64 channels; the embedding has 256 for 4 heads, so widen the queries to tell the two rules apart.
    assert_eq!(scale(&changed(|_| ()).unwrap()), 0.125);
    assert_eq!(scale(&changed(|json| set(json, "attention.scale", "FLOAT32", 0.5.into())).unwrap()), 0.5);
    let narrow = |json: &mut Json| {
        deepen(json, 46);
        drop_key(json, "attention.scale");
        set(json, "attention.key_length", "UINT32", 16.into());
        set(json, "rope.dimension_count", "UINT32", 16.into());
        for tensor in json["tensors"].as_array_mut().unwrap() {
            let rows = match tensor["name"].as_str().unwrap().split('.').nth(2) {
                Some("attn_q") => 64,
                Some("attn_k") => 32,
                _ => continue,
            };
            *tensor["shape"].as_array_mut().unwrap().last_mut().unwrap() = rows.into();
        }
    };
    assert_eq!(scale(&changed_fixture("gemma2-dense", narrow).unwrap()), 1.0 / 8.0, "27B: by embedding and heads");
    assert_eq!(scale(&changed_fixture("gemma-dense", narrow).unwrap()), 1.0 / 4.0, "others: by the head");
}

/// The rotary table of layers without a window, and the factor on turned channels.
fn rotation(graph: &Graph) -> (Vec<u32>, f32) {
    let node = graph.nodes.iter().find(|n| n.label == "rope_q").expect("a rotation");
    let AnyOp::Rope(op) = &node.op else { panic!("{:?}", node.op) };
    let Storage::Const(_, bytes) = graph.storage(&node.src[2]) else { panic!("no table") };
    (bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect(), op.mscale)
}

fn without_factors(json: &mut Json) {
    retain_tensors(json, |t| !t.starts_with("rope_"));
}

#[test]
fn context_scaling_goes_into_the_rotary_table() {
    let plain = RopeTable::plain(64, 10000.0);
    let scaled = |kind: &str, more: &[(&str, f64)]| {
        let graph = changed(|json| {
            without_factors(json);
            set(json, "rope.scaling.type", "STRING", kind.into());
            set(json, "rope.scaling.factor", "FLOAT32", 4.0.into());
            set(json, "rope.scaling.original_context_length", "UINT32", 32.into());
            more.iter().for_each(|(key, value)| set(json, key, "FLOAT32", (*value).into()));
        });
        rotation(&graph.unwrap())
    };
    assert_eq!(scaled("none", &[]), plain.turns(None));
    assert_eq!(scaled("linear", &[]), RopeTable { freq_scale: 0.25, ..plain }.turns(None));
    assert_eq!(scaled("linear", &[("rope.scaling.attn_factor", 1.5)]).1, 1.5);
    let yarn = RopeTable { freq_scale: 0.25, ext_factor: 1.0, original_context: 32, ..plain };
    assert_eq!(scaled("yarn", &[]), yarn.turns(None));
    let fast = [("rope.scaling.yarn_beta_fast", 8.0), ("rope.scaling.yarn_beta_slow", 2.0)];
    assert_eq!(scaled("yarn", &fast), RopeTable { beta_fast: 8.0, beta_slow: 2.0, ..yarn }.turns(None));
    // A multiplier of one takes YaRN's own factor back.
    assert!((scaled("yarn", &[("rope.scaling.yarn_log_multiplier", 1.0)]).1 - 1.0).abs() < 1e-6);
    let stretched = changed(|json| {
        without_factors(json);
        set(json, "rope.scaling.alpha", "FLOAT32", 1000.0.into());
    });
    assert_eq!(
        rotation(&stretched.unwrap()).0,
        RopeTable::plain(64, 10000.0 * 1000f64.powf(64.0 / 62.0)).turns(None).0
    );
    let unknown = changed(|json| set(json, "rope.scaling.type", "STRING", "spiral".into()));
    let said = unknown.unwrap_err().to_string();
    assert_eq!(said, "key llama.rope.scaling.type: context scaling 'spiral' is unknown");
}

#[test]
fn contexts_beyond_the_original_have_their_own_factors() {
    let table = |original: usize| {
        let set = |json: &mut Json| set(json, "rope.scaling.original_context_length", "UINT32", original.into());
        rotation(&changed_fixture("phi3-dense", set).unwrap()).0
    };
    let phi3 = Fixture::load("phi3-dense");
    let factors = |name: &str| -> Vec<f32> {
        let data = phi3.gguf.data(phi3.gguf.tensor(name).unwrap()).unwrap();
        data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let turns = |name: &str| RopeTable::plain(64, 10000.0).turns(Some(&factors(name))).0;
    assert_eq!(table(CONTEXT), turns("rope_factors_short.weight"));
    assert_eq!(table(CONTEXT - 1), turns("rope_factors_long.weight"));
}

#[test]
fn queries_beyond_the_original_context_grow() {
    let graph = |original: usize| {
        changed_fixture("mistral3-dense", |json| {
            set(json, "attention.temperature_scale", "FLOAT32", 0.1.into());
            set(json, "rope.scaling.original_context_length", "UINT32", original.into());
        })
        .unwrap()
    };
    let label = "attn_temperature";
    assert!(graph(CONTEXT).nodes.iter().all(|n| n.label != label), "nothing to do within the original context");
    let graph = graph(16);
    assert_eq!(
        graph.nodes.iter().filter(|n| n.label == label).map(|n| n.op.name()).collect::<Vec<_>>(),
        ["get_rows", "mul", "get_rows", "mul"]
    );
    let table = graph.buffers.iter().find_map(|b| match &b.storage {
        Storage::Const(name, bytes) if name == label => Some(bytemuck::pod_collect_to_vec::<u8, f32>(bytes)),
        _ => None,
    });
    let table = table.expect("a table of factors");
    assert_eq!((table.len(), table[0], table[15]), (CONTEXT, 1.0, 1.0));
    assert!((table[16] - (1.0 + 0.1 * 2f32.ln())).abs() < 1e-6 && (table[63] - (1.0 + 0.1 * 4f32.ln())).abs() < 1e-6);
}

/// Runs the whole prompt with some rows wanted.
fn rows_of(f: &Fixture, rows: &[u32]) -> Vec<Vec<f32>> {
    let batch = Batch::of_one(f.tokens.len(), rows.len(), CONTEXT, DType::F32.into(), false);
    let mut memory = Memory::default();
    let mut runner = Runner::new(f, build(&f.spec, &batch).unwrap(), &mut memory);
    fill(&mut memory, Input::Tokens, &f.tokens);
    fill(&mut memory, Input::Places, &places_of_one(0, f.tokens.len(), 1));
    fill(&mut memory, Input::Rows, rows);
    runner.run(&mut memory, &ThreadPool::new(2))
}

#[test]
fn wanted_rows_are_those_of_the_whole() {
    // A plain block; parallel with a shared norm, with norms of its own; norms after; experts.
    for name in ["llama-dense", "phi2-dense", "falcon-dense", "olmo2-dense", "qwen2moe-moe"] {
        let f = Fixture::load(name);
        let rows: Vec<u32> = f.positions.iter().rev().map(|p| *p as u32).collect();
        let want: Vec<f64> = f.logits.iter().rev().flatten().map(|x| f64::from(*x)).collect();
        let error = nmse(&rows_of(&f, &rows).concat(), &want);
        assert!(error < 1e-4, "{name}: nmse {error:.1e}");
    }
}

#[test]
fn a_batch_without_rows_fills_the_cache_all_the_same() {
    for name in ["llama-dense", "phi2-dense", "gpt-oss-moe"] {
        let f = Fixture::load(name);
        let (pool, mut memory, n) = (ThreadPool::new(2), Memory::default(), f.tokens.len() - 1);
        let fill_only = Batch::of_one(n, 0, CONTEXT, DType::F32.into(), false);
        let mut runner = Runner::new(&f, build(&f.spec, &fill_only).unwrap(), &mut memory);
        fill(&mut memory, Input::Tokens, &f.tokens[..n]);
        fill(&mut memory, Input::Places, &places_of_one(0, n, 1));
        assert!(runner.run(&mut memory, &pool).is_empty());
        let decode = build(&f.spec, &Batch { kv: DType::F32.into(), ..DECODE }).unwrap();
        let logits = Runner::new(&f, decode, &mut memory).decode(n, &mut memory, &pool).concat();
        let want: Vec<f64> = f.logits.last().unwrap().iter().map(|x| f64::from(*x)).collect();
        let error = nmse(&logits, &want);
        assert!(error < 1e-4, "{name}: nmse {error:.1e}");
    }
}

#[test]
fn a_sampled_token_feeds_the_next_run_by_itself() {
    let f = Fixture::load("llama-dense");
    let (pool, mut memory, n) = (ThreadPool::new(2), Memory::default(), f.tokens.len());
    fill(
        &mut memory,
        Input::Sampler,
        &SampleParams { temp: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed: 0, draw: DrawNumber::From(0) }.words(),
    );
    fill(&mut memory, Input::Tokens, &f.tokens);
    fill(&mut memory, Input::Places, &places_of_one(0, n, 1));
    fill(&mut memory, Input::Rows, &[n as u32 - 1]);
    let batch = Batch { kv: DType::F32.into(), sample: true, ..DECODE };
    Runner::new(&f, build(&f.spec, &Batch { role: Role::Prompt, tokens: n, ..batch }).unwrap(), &mut memory)
        .run(&mut memory, &pool);
    let mut decode = Runner::new(&f, build(&f.spec, &batch).unwrap(), &mut memory);
    // The position stays as the device left it; a batch of another size has its table elsewhere.
    let places = [&memory.input(Input::Places, 4).unwrap()[..4], bytemuck::cast_slice(&[2u32, 0])].concat();
    memory.input(Input::Places, places.len()).unwrap()[..places.len()].copy_from_slice(&places);
    let mut text = f.tokens.clone();
    for step in 0..6 {
        let word =
            |memory: &mut Memory, input| -> u32 { bytemuck::pod_read_unaligned(&memory.input(input, 4).unwrap()[..4]) };
        let (token, position) = (word(&mut memory, Input::Tokens), word(&mut memory, Input::Places));
        assert_eq!(position as usize, n + step);
        if step == 0 {
            assert_eq!(token as usize, f.argmax[n - 1]);
        }
        text.push(token);
        decode.run(&mut memory, &pool);
    }
    // Read again as a prompt, every token is what the one before predicts.
    let again = Fixture { tokens: text, ..f };
    let logits = rows_of(&again, &Vec::from_iter(n as u32 - 1..n as u32 + 5));
    for (i, row) in logits.iter().enumerate() {
        let best = (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        assert_eq!(best as u32, again.tokens[n + i], "token {i}");
    }
}

#[test]
fn layers_without_attention_or_network_are_left_out() {
    let counts = |json: &mut Json, key: &str, counts: [u32; 3]| {
        drop_key(json, key);
        let key = format!("deci.{key}");
        json["kv"].as_array_mut().unwrap().push(json!([key, ["ARRAY", "UINT32"], counts]));
    };
    let graph = changed_fixture("deci-dense", |json| {
        deepen(json, 3);
        // The first layer's attention is a plain projection, the second has none, the third has no network and is skipped whole.
        counts(json, "attention.head_count", [4, 0, 4]);
        counts(json, "attention.head_count_kv", [0, 0, 2]);
        counts(json, "feed_forward_length", [384, 384, 0]);
        retain_tensors(json, |t| {
            let plain = t.starts_with("blk.0.attn_")
                && !t.starts_with("blk.0.attn_output")
                && !t.starts_with("blk.0.attn_norm");
            !plain && !t.starts_with("blk.1.attn_") && !t.starts_with("blk.2.ffn_")
        });
    });
    let graph = graph.unwrap();
    let labels = |layer| graph.nodes.iter().filter(|n| n.layer == Some(layer)).map(|n| n.label).collect::<Vec<_>>();
    let network = ["ffn_norm", "ffn_up", "ffn_gate", "ffn_glu", "ffn_down", "ffn_residual"];
    assert_eq!(labels(0), [&["attn_norm", "attn_output", "attn_residual"][..], &network].concat());
    assert_eq!(labels(1), network);
    assert_eq!(labels(2), Vec::<&str>::new());
}

fn retain_tensors(json: &mut Json, keep: impl Fn(&str) -> bool) {
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
        tensor["shape"] = json!([256, 96]);
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
        let drop = |json: &mut Json| {
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
        let lie = |json: &mut Json| {
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

/// Compares a graph with the file of this name; WGPU_LLM_BLESS=1 replaces the file.
fn compare(name: &str, graph: &Graph) {
    let path = format!("{}/tests/data/graphs/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let dump = graph.to_string();
    if std::env::var_os("WGPU_LLM_BLESS").is_some() {
        std::fs::write(&path, &dump).unwrap();
    }
    let want = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert!(dump == want, "the graph differs from {path}; if it should, run this with WGPU_LLM_BLESS=1\n{dump}");
}

#[test]
fn decoded_tokens_are_fused_like_this() {
    for name in ["qwen3-dense", "gemma3-dense", "gpt2-dense", "phi3-dense", "qwen2moe-moe", "gpt-oss-moe"] {
        let f = Fixture::load(name);
        let batch = Batch { sample: true, ..DECODE };
        compare(&format!("{name}-decode-fused"), &build(&f.spec, &batch).unwrap().fuse());
    }
}

#[test]
fn a_decoded_token_of_llama_is_this_graph() {
    let f = Fixture::load("llama-dense");
    let batch = Batch { sample: true, ..DECODE };
    let graph = build(&f.spec, &batch).unwrap();
    compare("llama-dense-decode", &graph);
    compare("llama-dense-decode-fused", &graph.fuse());
}

#[test]
fn a_batch_without_rows_ends_with_the_last_cache() {
    let f = Fixture::load("llama-dense");
    let batch = Batch::of_one(8, 0, CONTEXT, DType::F16.into(), false);
    let graph = build(&f.spec, &batch).unwrap();
    assert!(graph.output.is_none());
    let last = graph.nodes.last().unwrap();
    assert_eq!((last.op.name(), last.label, last.layer), ("kv_store", "cache", Some(1)));
}

#[test]
fn a_batch_that_cannot_be_is_an_error() {
    let f = Fixture::load("llama-dense");
    let fine = Batch::of_one(8, 1, CONTEXT, DType::F16.into(), false);
    assert!(build(&f.spec, &fine).is_ok());
    for batch in [
        Batch { tokens: 0, ..fine },
        Batch { tokens: 65, ..fine },
        Batch { rows: 9, ..fine },
        Batch { rows: 0, sample: true, ..fine },
        Batch { role: Role::Answer, rows: 2, ..fine },
        Batch { kv: DType::Q5_1.into(), ..fine },
    ] {
        assert!(build(&f.spec, &batch).is_err(), "{batch:?}");
    }
}

#[test]
fn a_cache_takes_the_bytes_it_says() {
    let f = Fixture::load("qwen3-dense");
    let batch = DECODE;
    let graph = build(&f.spec, &batch).unwrap();
    let caches = graph.buffers.iter().filter(|b| matches!(b.storage, Storage::Cache(_)));
    assert_eq!(
        f.spec.cache_bytes(&Cells::of_one(CONTEXT), DType::F16.into()),
        caches.map(|b| b.meta.span_bytes()).sum::<usize>()
    );
}
