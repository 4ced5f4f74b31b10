//! What is planned for a GPU, without one and without a clock: no submission of a prompt is estimated to take longer than a tenth
//! of a second, whichever kernels are taken, and a decoded token is one submission.

use wgpu_llm::low_level::base::{DType, Meta};
use wgpu_llm::low_level::gpu::{SUBMISSION, seconds, submissions};
use wgpu_llm::low_level::graph::{Cache, CachePart, Graph, Input, Tensor};
use wgpu_llm::low_level::ops::{
    Act, Attention, Caps, Glu, Linear, MatMul, MatMulId, PAGE_CELLS, PreNorm, Then, places_len,
};

const EMBD: usize = 4096;

/// A layer as wide as an 8 B llama's, with experts beside, over a cache of `context` cells; logits of `rows` tokens.
fn layer(tokens: usize, rows: usize, context: usize, dtype: DType) -> Graph {
    let mut graph = Graph::new();
    let x = graph.input(Input::Rows, Meta::f32([tokens, EMBD]));
    let norm = graph.weight("norm", Meta::f32([EMBD]));
    let weight = |graph: &mut Graph, name, rows, k| graph.weight(name, Meta::new(dtype, [rows, k]));
    let [q, k, v] = [("q", EMBD), ("k", 1024), ("v", 1024)].map(|(name, rows)| weight(&mut graph, name, rows, EMBD));
    let normed = Linear { norm: Some(PreNorm::Rms { eps: 1e-5, params: 1 }), ..Linear::alone(false, false, tokens) };
    let qkv = graph.op("qkv", Linear { parts: 3, ..normed }, &[q, k, v, x, norm]).unwrap();
    attention(&mut graph, qkv.columns(0, EMBD).reshape([tokens, 32, 128]), context);
    let [gate, up] = ["gate", "up"].map(|name| weight(&mut graph, name, 14336, EMBD));
    let op = Linear { parts: 2, then: Then::Glu(Glu::Plain(Act::Silu)), ..normed };
    let gated = graph.op("gate", op, &[gate, up, x, norm]).unwrap();
    let down = weight(&mut graph, "down", EMBD, 14336);
    let op = Linear { then: Then::Add { scale: 1.0 }, ..Linear::alone(false, false, tokens) };
    let y = graph.op("down", op, &[down, gated, x]).unwrap();
    let experts = graph.weight("experts", Meta::new(dtype, [128, 1536, EMBD]));
    let ids = graph.input(Input::Sampler, Meta::f32([tokens, 8]));
    graph.op("experts", MatMulId, &[experts, y, ids]).unwrap();
    let head = weight(&mut graph, "head", 128_256, EMBD);
    graph.op("head", MatMul, &[head, y.rows(0, rows)]).unwrap();
    graph
}

fn attention(graph: &mut Graph, queries: Tensor, context: usize) {
    let tokens = queries.meta.outer();
    let [keys, values] = [CachePart::Key, CachePart::Value]
        .map(|part| graph.cache(Cache { layer: 0, part }, Meta::new(DType::F16, [context, 8, 128])));
    let places = graph.input(Input::Places, Meta::new(DType::U32, [places_len(tokens, 1, context / PAGE_CELLS)]));
    let plain = Attention::plain(0.1, Linear::alone(false, false, tokens).role, context);
    for op in [plain, Attention { window: 1024, ..plain }] {
        graph.op("attention", op, &[queries, keys, values, places]).unwrap();
    }
}

/// Devices that kernels choose by, slow ones and cards.
fn devices() -> Vec<Caps> {
    let large = Caps { max_shared: 48 << 10, max_invocations: 1024, max_binding: 1 << 30, ..Caps::BASELINE };
    let halves = Caps { f16: true, subgroups: Some((32, 32)), ..large.clone() };
    let all = [Caps::BASELINE, large, Caps { coop: Some(8), ..halves.clone() }, Caps { coop: Some(16), ..halves }];
    all.iter().flat_map(|caps| [Caps::SLOW, Caps::CARD].map(|speed| Caps { speed, ..caps.clone() })).collect()
}

#[test]
fn submissions_of_prompts_stay_below_a_tenth_of_a_second() {
    let mut longest: f64 = 0.0;
    for caps in devices() {
        for dtype in [DType::Q4_0, DType::F32] {
            for (tokens, context) in [(9, 131_072), (64, 4096), (512, 4096), (512, 131_072), (4096, 8192)] {
                let rows = tokens.min(256);
                let graph = layer(tokens, rows, context, dtype);
                let all = submissions(&graph, &caps);
                longest = all.iter().copied().fold(longest, f64::max);
                assert!(all.iter().all(|s| *s <= SUBMISSION), "{tokens} tokens of {context}: {all:?}");
                // No time is lost on the way: cutting changes when work is handed over, not what it is.
                let sum: f64 = all.iter().sum();
                let least = sum / SUBMISSION;
                assert!(all.len() as f64 <= 2.0 * least + 1.0, "{} submissions for {sum} s", all.len());
            }
        }
    }
    assert!(longest > 0.5 * SUBMISSION, "{longest}");
}

#[test]
fn no_kernel_has_a_dispatch_that_is_too_long() {
    let (mut kernels, mut pieces) = (0, 0);
    for caps in devices() {
        let graph = layer(512, 9, 131_072, DType::Q4_0);
        for node in &graph.nodes {
            let metas: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
            for kernel in node.op.gpu(&metas, &node.dst.meta, &caps) {
                // Products of experts one by one are for few tokens; nothing takes them here.
                if node.op.name() == "matmul_id" && kernel.variant.starts_with("vec") {
                    continue;
                }
                let all = seconds(node, &kernel.passes, &caps);
                kernels += 1;
                pieces += (all.len() > 3) as usize;
                let (op, variant) = (node.op.name(), kernel.variant);
                assert!(all.iter().all(|s| *s <= SUBMISSION), "{op} {variant}: {all:?}");
            }
        }
    }
    println!("{kernels} kernels, {pieces} of them in pieces");
    assert!(kernels > 100 && pieces > 20);
}

#[test]
fn a_decoded_token_is_one_submission_whatever_it_takes() {
    for caps in devices() {
        for tokens in [1, 8] {
            assert_eq!(submissions(&layer(tokens, tokens, 131_072, DType::F32), &caps), [0.0]);
        }
    }
}
