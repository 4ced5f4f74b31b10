//! Every architecture on a GPU, as sessions run it (graphs fused): logits against the reference's, a prompt at once and token by
//! token; and what a decoded token may cost, counted, without a clock.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use fixture::Fixture;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::gpu::{Counters, Device, Weights};
use wgpu_llm::low_level::graph::{Graph, Tensor};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::ops::{AnyOp, CacheTypes, DrawNumber, SampleParams, nmse};
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::run::Session;
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo};

const CONTEXT: usize = 64;
const GREEDY: SampleParams =
    SampleParams { temp: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed: 0, draw: DrawNumber::From(0) };

fn session(name: &str, device: &Device, kv: impl Into<CacheTypes>) -> Session {
    let model = Model::new(fixture::gguf(&fixture::json(name)).expect("a model")).expect("a model");
    let context = Fixture::load(name).context;
    let options = Options { context, batch: context, kv: kv.into(), threads: 1, ..Options::default() };
    Session::new(Arc::new(model), Some(device.clone()), options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The error of the logits at the reference's positions, for a prompt in one go and in single tokens.
fn errors(f: &Fixture, session: &mut Session) -> [f64; 2] {
    let rows: Vec<usize> = (0..f.tokens.len()).collect();
    let whole = session.logits(&f.tokens, &rows).expect("logits");
    session.truncate(0);
    let few = 6.min(f.tokens.len());
    let single: Vec<Vec<f32>> =
        (0..few).map(|i| session.logits(&f.tokens[i..i + 1], &[0]).expect("logits").remove(0)).collect();
    let want: Vec<f64> = f.logits.iter().flatten().map(|x| f64::from(*x)).collect();
    let got: Vec<f32> = f.positions.iter().flat_map(|p| whole[*p].iter().copied()).collect();
    let both: Vec<f64> = whole[..few].iter().flatten().map(|x| f64::from(*x)).collect();
    [nmse(&got, &want), nmse(&single.concat(), &both)]
}

#[test]
fn every_architecture_gives_the_references_logits() {
    let Some(device) = device::open("every_architecture_gives_the_references_logits") else { return };
    let mut failures = Vec::new();
    for name in fixture::names().into_iter().chain(fixture::more_names()) {
        let f = Fixture::load(&name);
        let mut session = session(&name, &device, DType::F32);
        let errors = errors(&f, &mut session);
        let cost = session.engine().decode_figures().expect("a program");
        println!("{name}: nmse {:.1e}, token by token {:.1e}; {} dispatches", errors[0], errors[1], cost.dispatches);
        if errors.iter().any(|e| e.is_nan() || *e > 1e-4) {
            failures.push(format!("{name}: {errors:?}"));
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn quantized_caches_change_little() {
    let Some(device) = device::open("quantized_caches_change_little") else { return };
    for (kv, most) in [(DType::F16, 1e-5), (DType::Q8_0, 1e-3), (DType::Q4_0, 0.2)] {
        for name in ["llama-dense", "qwen3-dense", "gpt2-dense", "gemma3-dense"] {
            let f = Fixture::load(name);
            let errors = errors(&f, &mut session(name, &device, kv));
            println!("{name} with a cache of {kv}: nmse {:.1e}, token by token {:.1e}", errors[0], errors[1]);
            assert!(errors.iter().all(|e| *e <= most), "{name} with a cache of {kv}: {errors:?}");
        }
    }
}

/// Whatever keys and values are made of, each as exact as its own type.
#[test]
fn keys_and_values_may_be_of_different_types() {
    let Some(device) = device::open("keys_and_values_may_be_of_different_types") else { return };
    let most = |dtype| match dtype {
        DType::Q4_0 => 0.2,
        DType::Q8_0 => 1e-3,
        _ => 1e-5,
    };
    let mut pairs = 0;
    for (kv, name) in
        CacheTypes::mixed().zip(["llama-dense", "qwen3-dense", "gpt2-dense", "gemma3-dense"].iter().cycle())
    {
        let f = Fixture::load(name);
        let errors = errors(&f, &mut session(name, &device, kv));
        println!("{name} with a cache of {kv}: nmse {:.1e}, token by token {:.1e}", errors[0], errors[1]);
        let most = most(kv.keys) + most(kv.values);
        assert!(errors.iter().all(|e| *e <= most), "{name} with a cache of {kv}: {errors:?}");
        pairs += 1;
    }
    assert_eq!(pairs, 12);
}

/// The weights that products and lookups of `graph` read, each once, in bytes on the device.
fn weights_of(graph: &Graph, device: &Device) -> f64 {
    let mut all: HashMap<(u32, bool), f64> = HashMap::new();
    for node in &graph.nodes {
        let (weights, lookup): (&[Tensor], bool) = match &node.op {
            AnyOp::MatMul(_) | AnyOp::MatMulId(_) => (&node.src[..1], false),
            AnyOp::Linear(op) => (&node.src[..op.parts], false),
            AnyOp::GetRows(_) => (&node.src[..1], true),
            _ => continue,
        };
        for w in weights {
            let whole = graph.buffers[w.buf.0 as usize].meta;
            let share = if lookup { 1.0 / whole.outer() as f64 } else { 1.0 };
            all.insert((w.buf.0, lookup), Weights::bytes_of(&whole, device.caps()) as f64 * share);
        }
    }
    all.values().sum()
}

/// What was made and waited for.
fn made(c: Counters) -> [u64; 5] {
    [c.buffers, c.bind_groups, c.pipelines, c.bytes, c.waits]
}

#[test]
fn a_decoded_token_keeps_its_budget() {
    let Some(device) = device::open("a_decoded_token_keeps_its_budget") else { return };
    let dense: Vec<String> = fixture::names().into_iter().filter(|n| n.ends_with("-dense")).collect();
    let mut over = Vec::new();
    for name in &dense {
        let f = Fixture::load(name);
        let mut session = session(name, &device, DType::F16);
        let layers = f.spec.layers.len();
        let cost = session.engine().decode_figures().expect("a program");
        // Contexts this short are not split; in long ones a pass that merges the parts joins each layer's attention.
        let long = cost.dispatches + layers;
        if long > 9 * layers + 4 {
            over.push(format!("{name}: {long} dispatches for {layers} layers"));
        }
        let want = weights_of(&session.engine().graph(1, 1).expect("a graph"), &device);
        let slack = 64.0 * 10.0 * (layers + 1) as f64;
        assert!((cost.weight_bytes as f64 - want).abs() <= slack, "{name}: {} bytes, {want}", cost.weight_bytes);
        assert_eq!(cost.submissions, 1, "{name}");
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
}

#[test]
fn tokens_are_submitted_ahead_and_nothing_is_made_for_them() {
    let Some(device) = device::open("tokens_are_submitted_ahead_and_nothing_is_made_for_them") else { return };
    for name in fixture::names() {
        let f = Fixture::load(&name);
        let mut session = session(&name, &device, DType::F16);
        let engine = session.engine();
        assert!(engine.runs_ahead());
        let mut run = |ahead: bool| -> (Vec<u32>, Counters, Counters) {
            let mut tokens =
                vec![engine.decode_and_sample(&f.tokens[..8], 0, &GREEDY).expect("runs").wait().expect("a token")];
            let before = device.counters();
            let mut pending = Vec::new();
            for _ in 0..6 {
                let token = engine.sample_next().expect("runs");
                // Not waited for: the next token is submitted while this one is computed.
                if ahead { pending.push(token) } else { tokens.push(token.wait().expect("a token")) }
            }
            let after = device.counters();
            tokens.extend(pending.into_iter().map(|t| t.wait().expect("a token")));
            (tokens, before, after)
        };
        // Buffers for reading are made in the first run, as many as are waited for at a time.
        run(true);
        let (ahead, before, after) = run(true);
        let (waited, ..) = run(false);
        assert_eq!(ahead, waited, "{name}");
        assert_eq!(after.submits - before.submits, 6, "{name}: one submission per token");
        assert_eq!(made(after), made(before), "{name}: nothing is made or waited for");
        assert!(after.read_back - before.read_back <= 6 * 64, "{name}: {} bytes", after.read_back - before.read_back);
    }
}

#[test]
fn an_answer_waits_for_its_tokens_alone() {
    let Some(device) = device::open("an_answer_waits_for_its_tokens_alone") else { return };
    let f = Fixture::load("llama-dense");
    let mut session = session("llama-dense", &device, DType::F16);
    let info = VocabInfo { tokens: session.model().spec().vocab, context: CONTEXT, dry_breakers: &[] };
    let mut sampler = Sampler::new(&SamplerOptions::greedy(), &info).expect("valid options");
    let before = device.counters();
    let mut seen = Vec::new();
    let mut note = |_: u32| {
        seen.push(device.counters());
        ControlFlow::Continue(())
    };
    let limit = 12;
    let answer = session.generate(&f.tokens[..8], &mut sampler, limit, &mut note).expect("an answer");
    assert_eq!(answer.tokens.len(), limit);
    for (i, now) in seen.iter().enumerate() {
        assert_eq!(now.waits - before.waits, i as u64 + 1, "token {i}: one wait each, the prompt's included");
        // When a token is handed on, the next is under way already, unless it is the last.
        assert_eq!(now.submits - before.submits, (i + 2).min(limit) as u64, "token {i}");
        assert!(now.read_back - before.read_back <= 64 * (i as u64 + 2), "token {i}");
    }
    // Two runs are under way at a time at the most, so that two buffers for reading are enough.
    let (first, last) = (seen[1], seen[limit - 1]);
    assert_eq!([first.buffers, first.bind_groups, first.pipelines], [last.buffers, last.bind_groups, last.pipelines]);
}
