//! Many requests at once on a real engine: each gets what it gets alone, bit by bit, whatever else is computed; prefixes are held
//! once; a layer split and lost devices change nothing.

#[path = "common/data.rs"]
mod data;
#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/tokens.rs"]
mod tokens;

use std::path::Path;
use std::sync::Arc;
use tokens::tokens;
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::{Device, FaultKind, InjectedFault};
use wgpu_llm::low_level::model::{Model, synth::Synthetic};
use wgpu_llm::low_level::ops::{Random, Serial};
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::quant::Precision;
use wgpu_llm::low_level::run::batcher::{Batcher, Event, Handle, Request};
use wgpu_llm::low_level::run::schedule::FinishReason;
use wgpu_llm::low_level::run::{Session, StepEngine};
use wgpu_llm::low_level::sample::SamplerOptions;

/// What a request got: each choice's tokens, with the bits of their log-probabilities, if they were asked for.
type Answer = Vec<Vec<(u32, Option<u64>)>>;

fn small() -> Arc<Model> {
    let bytes = fixture::bytes(&fixture::talker()).expect("well formed");
    Arc::new(Model::new(Gguf::from_bytes(bytes).expect("a file")).expect("a model that runs"))
}

fn made(name: &str, layers: usize) -> Arc<Model> {
    let synthetic: Synthetic = name.parse().expect("a known shape");
    let file = synthetic.cut(layers, 2048).model_file(&Serial, &mut |_| Ok(())).expect("memory");
    Arc::new(Model::new(file).expect("a whole model"))
}

fn real(test: &str) -> Option<Arc<Model>> {
    let path = data::find("SmolLM2-135M-Instruct.Q4_1.gguf", test)?;
    Some(Arc::new(Model::open(Path::new(&path)).expect("a model that runs")))
}

fn batcher(model: &Arc<Model>, device: Option<Device>, options: Options) -> Batcher<StepEngine> {
    let options = Options { threads: 2, ..options };
    Session::new(model.clone(), device, options).expect("a session").into_batcher()
}

/// Requests that draw in all ways: the greatest logit, on the device, on the host, with log-probabilities, several choices.
fn requests(model: &Model) -> Vec<Request> {
    let of = |i: u64, len| Request { ignore_end: true, salt: None, ..Request::new(tokens(model, i, len), 12) };
    let seeded = |seed| SamplerOptions { seed: Some(seed), ..SamplerOptions::default() };
    let penalties = SamplerOptions { repeat_penalty: 1.3, ..seeded(3) };
    vec![
        Request { sampling: SamplerOptions::greedy(), ..of(1, 37) },
        Request { sampling: seeded(2), ..of(2, 1) },
        Request { sampling: penalties, ..of(3, 70) },
        Request { sampling: seeded(4), logprobs: Some(3), ..of(4, 130) },
        Request { sampling: seeded(5), choices: 3, ..of(5, 20) },
    ]
}

/// Takes what came for a request.
fn take(handle: &mut Handle, answer: &mut Answer) {
    while let Some(event) = handle.try_next() {
        match event {
            Event::Token { choice, token, logprobs, .. } => {
                answer.resize(answer.len().max(choice + 1), Vec::new());
                answer[choice].push((token, logprobs.map(|l| l.chosen.to_bits())));
            }
            Event::Failed { error } => panic!("{error}"),
            _ => {}
        }
    }
}

/// What each request gets, while nothing else is computed.
fn alone(batcher: &mut Batcher<StepEngine>, requests: &[Request]) -> Vec<Answer> {
    let one = |request: &Request| {
        let (mut handle, mut answer) = (batcher.submit(request.clone()).expect("taken"), Answer::new());
        while batcher.step().expect("a step") {}
        take(&mut handle, &mut answer);
        assert!(answer.iter().all(|choice| choice.len() == request.limit), "{answer:?}");
        answer
    };
    requests.iter().map(one).collect()
}

/// What they get among so many others, of which some are cancelled.
fn among(
    batcher: &mut Batcher<StepEngine>,
    model: &Model,
    requests: &[Request],
    (others, longest): (usize, u32),
    seed: u64,
) -> Vec<Answer> {
    let mut random = Random(seed);
    let mut other = |i: usize| {
        let len = 1 + random.bits() as usize % 90;
        let priority = (random.bits() % 3) as i32 - 1;
        let sampling = match random.bits() % 3 {
            0 => SamplerOptions::greedy(),
            1 => SamplerOptions { repeat_penalty: 1.1, ..SamplerOptions::default() },
            _ => SamplerOptions::default(),
        };
        let request = Request::new(tokens(model, seed + 100 + i as u64, len), 1 + (random.bits() % longest) as usize);
        Request { sampling, priority, ignore_end: true, ..request }
    };
    let mut crowd: Vec<Option<Handle>> = Vec::new();
    let mut handles = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        for j in 0..others / requests.len() {
            crowd.push(Some(batcher.submit(other(i * others + j)).expect("taken")));
        }
        handles.push(batcher.submit(request.clone()).expect("taken"));
    }
    let mut answers = vec![Answer::new(); requests.len()];
    let mut cancels = Random(seed ^ 7);
    while batcher.step().expect("a step") {
        if cancels.bits().is_multiple_of(32) && !crowd.is_empty() {
            let i = cancels.bits() as usize % crowd.len();
            crowd[i] = None;
        }
        handles.iter_mut().zip(&mut answers).for_each(|(handle, answer)| take(handle, answer));
    }
    handles.iter_mut().zip(&mut answers).for_each(|(handle, answer)| take(handle, answer));
    answers
}

fn compare(what: &str, want: &[Answer], got: &[Answer]) {
    for (i, (want, got)) in want.iter().zip(got).enumerate() {
        assert_eq!(want, got, "{what}, request {i}");
    }
}

/// Enough for all, prompts in small pieces, and so little that sequences give way to others.
fn pools(context: usize) -> [Options; 3] {
    let all = Options { context, sequences: 32, batch: 512, ..Options::default() };
    [all.clone(), Options { batch: 48, sequences: 8, ..all.clone() }, Options { pool: Some(context), batch: 30, ..all }]
}

fn a_request_gets_the_same_in_any_company(model: &Arc<Model>, answers: Precision, others: usize, longest: u32) {
    let requests = requests(model);
    let pools = pools(256).map(|pool| Options { answer_precision: answers, ..pool });
    let want = alone(&mut batcher(model, None, pools[0].clone()), &requests);
    // Real sizes take their time: the small model goes through all.
    for (i, options) in pools.into_iter().enumerate().skip(if longest < 100 { 2 } else { 0 }) {
        let mut batcher = batcher(model, None, options);
        let crowd = if i == 2 { (others / 2, longest) } else { (others, 12) };
        let got = among(&mut batcher, model, &requests, crowd, i as u64);
        compare(&format!("{others} others, pool {i}"), &want, &got);
        assert!(i < 2 || longest < 100 || batcher.counts().preemptions > 0, "nobody gave way");
    }
}

#[test]
fn a_request_gets_the_same_in_any_company_small() {
    a_request_gets_the_same_in_any_company(&small(), Precision::Sixteen, 60, 150);
}

#[test]
fn a_request_gets_the_same_in_any_company_smollm2() {
    let Some(model) = real("a_request_gets_the_same_in_any_company_smollm2") else { return };
    a_request_gets_the_same_in_any_company(&model, Precision::Sixteen, 10, 20);
}

/// From 1024 channels on, prompts are rounded otherwise than answers.
#[test]
fn a_request_gets_the_same_in_any_company_wide() {
    let (quantized, plain) = (made("llama-1b:q4_0", 1), made("llama-1b:f16", 1));
    a_request_gets_the_same_in_any_company(&quantized, Precision::Sixteen, 10, 20);
    a_request_gets_the_same_in_any_company(&quantized, Precision::Eight, 5, 20);
    a_request_gets_the_same_in_any_company(&plain, Precision::Sixteen, 10, 20);
}

#[test]
fn a_request_gets_the_same_in_any_company_on_a_gpu() {
    let Some(device) = device::open("a_request_gets_the_same_in_any_company_on_a_gpu") else { return };
    let (model, requests) = (small(), requests(&small()));
    let options = |sequences| Options { context: 256, sequences, batch: 512, ..Options::default() };
    let want = alone(&mut batcher(&model, Some(device.clone()), options(4)), &requests);
    let got = among(&mut batcher(&model, Some(device), options(16)), &model, &requests, (12, 12), 5);
    compare("on a GPU", &want, &got);
}

#[test]
fn a_layer_split_computes_the_same_as_one_alone() {
    let Some(device) = device::open("a_layer_split_computes_the_same_as_one_alone") else { return };
    let (model, requests) = (small(), requests(&small()));
    let options = |sequences| Options { context: 256, sequences, gpu_layers: Some(1), ..Options::default() };
    let want = alone(&mut batcher(&model, Some(device.clone()), options(4)), &requests);
    let got = among(&mut batcher(&model, Some(device), options(16)), &model, &requests, (12, 12), 5);
    compare("split", &want, &got);
}

#[test]
fn a_prefix_is_computed_once_and_held_once() {
    let model = small();
    let options = Options { context: 256, sequences: 16, ..Options::default() };
    let mut batcher = batcher(&model, None, options);
    let system = tokens(&model, 9, 150);
    let request = |i: u64| {
        let text = [&system[..], &tokens(&model, 100 + i, 10)].concat();
        Request { sampling: SamplerOptions::greedy(), ignore_end: true, ..Request::new(text, 4) }
    };
    let mut handles: Vec<Handle> = (0..16).map(|i| batcher.submit(request(i)).expect("taken")).collect();
    let mut most = 0;
    while batcher.step().expect("a step") {
        let usage = batcher.scheduler().pool().usage(0);
        most = most.max(usage.pages - usage.free);
    }
    // Two whole pages in common; each request has one of its own for the rest.
    assert!(most <= 2 + 16 * 2, "{most} pages");
    let mut computed = 0;
    for handle in &mut handles {
        while let Some(event) = handle.try_next() {
            if let Event::Done { usage, finish, .. } = event {
                assert_eq!(finish, FinishReason::Limit);
                computed += usage.prompt_tokens - usage.cached_tokens;
            }
        }
    }
    assert!(computed <= 150 + 16 * (10 + 22), "{computed} tokens were computed");
}

#[test]
fn a_lost_gpu_loses_no_token_of_any_request() {
    let open = || device::open("a_lost_gpu_loses_no_token_of_any_request");
    let Some(device) = open() else { return };
    let (model, all) = (small(), requests(&small()));
    let options = || Options { context: 256, sequences: 8, batch: 64, ..Options::default() };
    let want = alone(&mut batcher(&model, Some(device), options()), &all);
    for at in [3, 9, 20] {
        let device = open().expect("there was one a moment ago");
        let mut batcher = batcher(&model, Some(device.clone()), options());
        device.inject([InjectedFault { kind: FaultKind::Lost, at }]);
        let got = among(&mut batcher, &model, &all, (0, 1), at);
        compare(&format!("lost at {at}"), &want, &got);
    }
}
