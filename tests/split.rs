//! Models split between CPU and GPU, wherever they are cut: tiny models of every architecture give what the CPU alone gives under
//! hundreds of random device maps; plans keep to their budget, by the byte; what does not fit is refused before anything is uploaded.

#[path = "common/data.rs"]
mod data;
#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use fixture::{CLOSE, lead};
use std::ops::ControlFlow;
use std::sync::Arc;
use wgpu_llm::low_level::base::{DType, ErrorKind, Result};
use wgpu_llm::low_level::gpu::{Device, FaultKind, InjectedFault};
use wgpu_llm::low_level::graph::Place;
use wgpu_llm::low_level::model::{Model, synth::Synthetic};
use wgpu_llm::low_level::ops::{Random, Serial, nmse};
use wgpu_llm::low_level::plan::budget::Budget;
use wgpu_llm::low_level::plan::fit::{DevicePlan, Layers, Request};
use wgpu_llm::low_level::plan::predict::{Prediction, Sizes};
use wgpu_llm::low_level::plan::rates::DeviceRates;
use wgpu_llm::low_level::plan::{DeviceMap, DeviceOverrides, LayerDevices, Options, TensorOverride};
use wgpu_llm::low_level::run::Session;
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo};

/// Random device maps of each fixture; together more than 500.
const SPLITS: u64 = 8;
/// Tokens that each is compared on: a prompt, and two more one by one.
const PROMPT: usize = 5;
const TOKENS: usize = 7;
/// Largest normalised mean squared error against the CPU alone: what tiny models may differ from their references by.
const NMSE: f64 = 1e-4;

fn options(device_map: Option<DeviceMap>) -> Options {
    Options { context: 64, batch: 16, kv: DType::F32.into(), threads: 1, device_map, ..Options::default() }
}

/// The logits of a prompt's last token and of single tokens after it.
fn logits(session: &mut Session, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut all = session.logits(&tokens[..PROMPT], &[PROMPT - 1]).expect("logits");
    for token in &tokens[PROMPT..] {
        all.extend(session.logits(&[*token], &[0]).expect("logits"));
    }
    all
}

fn error(got: &[Vec<f32>], want: &[Vec<f32>]) -> f64 {
    nmse(&got.concat(), &want.iter().flatten().map(|x| f64::from(*x)).collect::<Vec<_>>())
}

/// What overrides are drawn from: single tensors, kinds of tensors, layers, everything.
const PATTERNS: &[&str] = &[
    "attn_q",
    "attn_[kv]",
    "attn_output",
    "ffn_(up|gate)",
    "ffn_down",
    "_exps",
    "shexp",
    "norm",
    "blk\\.0\\.",
    "blk\\.[13579]\\.",
    "output",
    "token_embd",
    ".",
];

/// A device map as nobody would choose it.
fn random(random: &mut Random, layers: usize, sizes: &Sizes) -> DeviceMap {
    let mut pick = |n: usize| random.bits() as usize % n;
    let place = |n: usize| if n == 0 { Place::Cpu } else { Place::Gpu };
    let mut device_map = match pick(4) {
        0 => DeviceMap::last(layers, pick(layers + 2)),
        1 => DeviceMap::gpu(layers),
        _ => {
            let mut device_map = DeviceMap::cpu(layers);
            (device_map.input, device_map.output) = (place(pick(2)), place(pick(2)));
            for block in &mut device_map.blocks {
                *block = LayerDevices { main: place(pick(2)), experts: place(pick(2)), cache: place(pick(2)) };
            }
            device_map
        }
    };
    if pick(3) == 0 {
        device_map.blocks.iter_mut().for_each(|b| b.experts = Place::Cpu);
    }
    let overrides = (0..pick(3)).map(|_| {
        let (pattern, place) = (PATTERNS[pick(PATTERNS.len())], ["cpu", "gpu"][pick(2)]);
        format!("{pattern}={place}").parse::<TensorOverride>().expect("a rule")
    });
    let overrides = overrides.collect();
    let overrides = DeviceOverrides {
        tensors: overrides,
        cpu_experts: pick(2) * pick(layers + 1),
        cpu_cache: pick(6) == 0,
        ..DeviceOverrides::default()
    };
    device_map.under(&overrides, sizes.graph())
}

#[test]
fn any_split_of_any_architecture_gives_what_the_cpu_gives() {
    let Some(device) = device::open("any_split_of_any_architecture_gives_what_the_cpu_gives") else { return };
    let (mut runs, mut mixed, mut segments, mut worst, mut failures) = (0, 0, 0, 0f64, Vec::new());
    for (f, name) in fixture::names().iter().enumerate() {
        let json = fixture::json(name);
        let model = Arc::new(Model::new(fixture::gguf(&json).expect("a model")).expect("a model"));
        let tokens: Vec<u32> = json["tokens"]
            .as_array()
            .expect("tokens")
            .iter()
            .take(TOKENS)
            .map(|t| t.as_u64().unwrap() as u32)
            .collect();
        let mut alone = Session::new(model.clone(), None, options(None)).expect("a session");
        let want = logits(&mut alone, &tokens);
        let sizes = Sizes::of(&model, Some(&device), &options(None)).expect("sizes");
        for split in 0..SPLITS {
            let seed = f as u64 * SPLITS + split;
            let device_map = random(&mut Random(seed), model.spec().layers.len(), &sizes);
            segments += sizes.predict(&device_map, None).expect("a prediction").pieces.len();
            mixed += usize::from(device_map.single().is_none());
            let words = format!("{name}, seed {seed}: {device_map:?}");
            let mut session =
                Session::new(model.clone(), Some(device.clone()), options(Some(device_map))).expect("a session");
            let error = error(&logits(&mut session, &tokens), &want);
            (runs, worst) = (runs + 1, worst.max(error));
            if error.is_nan() || error > NMSE {
                failures.push(format!("nmse {error:.1e} {words}"));
            }
            if split == 0 {
                draws_what_its_logits_say(&mut session, &tokens);
            }
        }
    }
    println!("{runs} splits, {mixed} of them on both devices, {segments} segments; worst nmse {worst:.1e}");
    assert!(failures.is_empty(), "{} of {runs} fail:\n{}", failures.len(), failures.join("\n"));
    assert!(
        runs >= 500 && mixed > runs / 2 && segments > 3 * runs,
        "{runs} splits, {mixed} mixed, {segments} segments"
    );
}

/// Sampling is a part of the graph too: what it draws greedily is the greatest logit, where there is no tie.
fn draws_what_its_logits_say(session: &mut Session, tokens: &[u32]) {
    session.truncate(0);
    let info = VocabInfo { tokens: session.model().spec().vocab, context: session.context(), dry_breakers: &[] };
    let mut sampler = Sampler::new(&SamplerOptions::greedy(), &info).expect("valid options");
    let answer = session.generate(tokens, &mut sampler, 2, &mut |_| ControlFlow::Continue(())).expect("an answer");
    let mut all = tokens.to_vec();
    session.truncate(0);
    for token in answer.tokens {
        let last = session
            .logits(&all[session.cached_tokens().len()..], &[all.len() - session.cached_tokens().len() - 1])
            .expect("logits");
        let (best, gap) = lead(&last[0]);
        assert!(best as u32 == token || gap < CLOSE, "drew {token}, {best} leads by {gap}");
        all.push(token);
    }
}

fn synthetic(name: &str) -> Arc<Model> {
    let synthetic: Synthetic = name.parse().expect("a name");
    Arc::new(Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).expect("a file")).expect("a model"))
}

/// The memory table: what was predicted for each device, and what is there after a batch and an answer.
fn check_memory(what: &str, model: &Arc<Model>, device_map: DeviceMap, options: &Options, device: Device) {
    let sizes = Sizes::of(model, Some(&device), options).expect("sizes");
    let want = sizes.predict(&device_map, None).expect("a prediction");
    let before = device.counters().bytes;
    let options = Options { device_map: Some(device_map), ..options.clone() };
    let batch = options.batch as u32;
    let mut session = Session::new(model.clone(), Some(device.clone()), options).expect("a session");
    let prompt: Vec<u32> = (0..batch).map(|i| i % 300).collect();
    let info = VocabInfo { tokens: session.model().spec().vocab, context: session.context(), dry_breakers: &[] };
    let mut sampler = Sampler::new(&SamplerOptions::greedy(), &info).expect("valid options");
    session.generate(&prompt, &mut sampler, 4, &mut |_| ControlFlow::Continue(())).expect("an answer");
    let gpu = device.counters().bytes - before;
    let cpu = session.engine().memory().iter().find(|m| m.device == 0).map_or(0, |m| m.bytes());
    let cpu_want = if session.engine().device_map().uses(Place::Cpu) { want.cpu_bytes() } else { 0 };
    println!("{what}: GPU {gpu} of {} predicted, CPU {cpu} of {cpu_want}", want.gpu_bytes());
    for (device, got, want) in [("GPU", gpu, want.gpu_bytes()), ("CPU", cpu, cpu_want)] {
        let apart = (got as f64 - want as f64).abs();
        assert!(
            apart <= 0.01 * want as f64,
            "{what}, {device}: {got} bytes, {want} predicted; {:?}",
            session.engine().memory()
        );
    }
}

#[test]
fn memory_is_predicted_to_a_percent() {
    let test = "memory_is_predicted_to_a_percent";
    if device::open(test).is_none() {
        return;
    }
    let options = Options { context: 512, batch: 64, threads: 2, ..Options::default() };
    for name in ["llama-tiny:q4_k_m", "moe-tiny:q8_0", "gpt-oss-tiny:f16"] {
        let model = synthetic(name);
        for n in 0..=3 {
            let device = device::open(test).expect("as before");
            check_memory(&format!("{name} -ngl {n}"), &model, DeviceMap::last(2, n), &options, device);
        }
        for seed in 0..4 {
            let device = device::open(test).expect("as before");
            let sizes = Sizes::of(&model, Some(&device), &options).expect("sizes");
            let device_map = random(&mut Random(seed), 2, &sizes);
            drop(sizes);
            check_memory(&format!("{name} seed {seed}"), &model, device_map, &options, device);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_uploaded() {
    let Some(device) = device::open("what_does_not_fit_is_refused_before_anything_is_uploaded") else { return };
    let model = synthetic("llama-tiny:q8_0");
    let options = Options { context: 512, batch: 64, ..Options::default() };
    device.set_budget(1 << 20);
    let before = device.counters();
    let Err(e) = Session::new(model, Some(device.clone()), options) else { panic!("it does not fit") };
    let (kind, text) = (e.kind(), e.to_string());
    assert_eq!(kind, ErrorKind::OutOfMemory, "{text}");
    for part in ["needs", "MiB", "1024 KiB may be used", "-ngl auto"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(device.counters(), before, "nothing was made");
}

#[test]
fn drivers_tell_how_much_memory_there_is() {
    let Some(device) = device::open("drivers_tell_how_much_memory_there_is") else { return };
    let memory = device.memory();
    assert_eq!(memory.is_some(), ["vulkan", "metal", "dx12"].contains(&&*device.info().backend), "{memory:?}");
    assert!(memory.is_none_or(|m| m.total > 1 << 28 && m.free.is_none_or(|free| free <= m.total)), "{memory:?}");
    assert!(device.shares_memory() || !device.info().software);
}

/// Prompts of any length, one after the other, keep to what was predicted; none of them costs the GPU.
#[test]
fn prompts_of_all_lengths_fit_where_the_plan_fits_exactly() {
    let test = "prompts_of_all_lengths_fit_where_the_plan_fits_exactly";
    for (name, device_map) in [("llama-tiny:q8_0", 3), ("llama-tiny:q8_0", 2), ("moe-tiny:q4_k_m", 3)] {
        let Some(device) = device::open(test) else { return };
        let model = synthetic(name);
        let options = Options {
            context: 2048,
            batch: 512,
            threads: 2,
            device_map: Some(DeviceMap::last(2, device_map)),
            ..Options::default()
        };
        let sizes = Sizes::of(&model, Some(&device), &options).expect("sizes");
        let need = sizes.predict(&DeviceMap::last(2, device_map), None).expect("a prediction").gpu_need();
        drop(sizes);
        device.set_budget(need);
        let mut session = Session::new(model, Some(device.clone()), options).expect("a session");
        session.when_recovered(move |recovery| panic!("{name}: {recovery}"));
        let tokens: Vec<u32> = (0..1100).map(|i| i % 300).collect();
        let info = VocabInfo { tokens: session.model().spec().vocab, context: 2048, dry_breakers: &[] };
        for len in (1..40).chain([64, 100, 128, 200, 256, 300, 400, 511, 512, 513, 700, 1024, 1100]) {
            session.truncate(0);
            let mut sampler = Sampler::new(&SamplerOptions::greedy(), &info).expect("valid options");
            session.generate(&tokens[..len], &mut sampler, 2, &mut |_| ControlFlow::Continue(())).expect("an answer");
        }
        assert!(device.counters().bytes <= need, "{name}: {} of {need}", device.counters().bytes);
    }
}

/// While the GPU has one batch of a prompt, the CPU computes its layers of the next: nobody waits in between.
#[test]
fn a_prompt_keeps_both_devices_busy() {
    let Some(device) = device::open("a_prompt_keeps_both_devices_busy") else { return };
    let (model, batch) = (synthetic("llama-tiny:q4_0"), 8);
    let layers = model.spec().layers.len();
    let options = Options { batch, ..options(Some(DeviceMap::last(layers, layers))) };
    let mut session = Session::new(model, Some(device.clone()), options).expect("a session");
    let (engine, tokens) = (session.engine(), [1; 8]);
    let before = device.counters();
    device.inject([InjectedFault { kind: FaultKind::Silent, at: 1 }]);
    engine.decode(&tokens, 0, &[]).expect("a GPU that does not answer is not waited for");
    let one = device.counters().submits - before.submits;
    // The second batch is with the GPU as well when somebody asks what has become of the first.
    let error = engine.decode(&tokens, batch, &[]).expect_err("the GPU is silent");
    assert_eq!(error.kind(), ErrorKind::DeviceLost, "{error}");
    assert_eq!(device.counters().submits - before.submits, 2 * one);
    device.dispose();
}

#[test]
fn a_placement_of_another_model_is_refused() {
    let Some(device) = device::open("a_placement_of_another_model_is_refused") else { return };
    let options = Options { context: 512, device_map: Some(DeviceMap::last(3, 1)), ..Options::default() };
    let refused = Session::new(synthetic("llama-tiny:q8_0"), Some(device), options).map(drop).unwrap_err();
    assert!(refused.to_string().contains("3 layers for a model of 2"), "{refused}");
}

/// A card ten times as fast as the CPU. Models as small as these would hardly cross to a real one: it answers within 100 ns.
fn card() -> Result<[DeviceRates; 2]> {
    let cpu = DeviceRates { bytes: 1e10, weights: 2e10, step: 1e-7, round_trip: 1e-7 };
    Ok([cpu, DeviceRates { bytes: 1e11, weights: 2e11, step: 1e-7, round_trip: 1e-7 }])
}

fn plan(model: &Model, device: &Device, contexts: &[usize], gpu: u64) -> (DevicePlan, Options) {
    let options = Options { batch: 64, threads: 2, ..Options::default() };
    let budget = Budget::new(None, None, Some(gpu), None);
    let request =
        Request { layers: Layers::Auto, overrides: DeviceOverrides::default(), budget, contexts: contexts.to_vec() };
    let fit = DevicePlan::new(model, Some(device), &options, &request, &mut card).expect("a plan");
    assert!(fit.prediction.gpu_need() <= gpu, "{} of {gpu}", fit.prediction.gpu_need());
    let options = Options { context: fit.context, device_map: Some(fit.device_map.clone()), ..options };
    (fit, options)
}

fn need(model: &Model, device: &Device, device_map: &DeviceMap, context: usize) -> Prediction {
    let options = Options { batch: 64, context, ..Options::default() };
    Sizes::of(model, Some(device), &options).expect("sizes").predict(device_map, None).expect("a prediction")
}

#[test]
fn the_context_shrinks_before_layers_leave() {
    let Some(device) = device::open("the_context_shrinks_before_layers_leave") else { return };
    let model = synthetic("llama-tiny:q8_0");
    let contexts = [8192, 4096];
    let of = |context| need(&model, &device, &DeviceMap::gpu(2), context).gpu_need();
    let (large, small) = (of(8192), of(4096));
    let at = |gpu| plan(&model, &device, &contexts, gpu).0;
    assert_eq!((at(large).context, at(large).device_map.single()), (8192, Some(Place::Gpu)));
    assert_eq!((at(large - 1).context, at(large - 1).device_map.single()), (4096, Some(Place::Gpu)));
    assert_eq!((at(small).context, at(small).device_map.single()), (4096, Some(Place::Gpu)));
    let less = at(small - 1);
    assert_eq!((less.context, less.device_map.single()), (4096, None), "{}", less.why);
    assert!(less.device_map.uses(Place::Gpu) && less.why.contains("may be used"), "{}", less.why);
    assert!(less.prediction.pieces.len() <= 3, "two crossings at the most: {:?}", less.prediction.pieces);
    assert_eq!(at(0).device_map.single(), Some(Place::Cpu));
}

#[test]
fn experts_leave_before_attention() {
    let Some(device) = device::open("experts_leave_before_attention") else { return };
    let model = synthetic("moe-tiny:q8_0");
    let whole = need(&model, &device, &DeviceMap::gpu(2), 512).gpu_need();
    let sizes = Options { batch: 64, context: 512, ..Options::default() };
    let sizes = Sizes::of(&model, Some(&device), &sizes).expect("sizes");
    for (experts, name) in [(1, "of one layer"), (2, "of both")] {
        let overrides = DeviceOverrides { cpu_experts: experts, ..DeviceOverrides::default() };
        let apart = DeviceMap::gpu(2).under(&overrides, sizes.graph());
        let gpu = sizes.predict(&apart, None).expect("a prediction").gpu_need();
        assert!(gpu < whole);
        let (fit, _) = plan(&model, &device, &[512], gpu + (16 << 10));
        let got: Vec<[Place; 2]> = fit.device_map.blocks.iter().map(|b| [b.main, b.experts]).collect();
        let place = |l| if l < experts { Place::Cpu } else { Place::Gpu };
        assert_eq!(got, [[Place::Gpu, place(0)], [Place::Gpu, place(1)]], "experts {name} leave: {}", fit.why);
    }
}

#[test]
fn plans_within_a_limit_run_and_give_what_the_cpu_gives() {
    let Some(device) = device::open("plans_within_a_limit_run_and_give_what_the_cpu_gives") else { return };
    for name in ["llama-tiny:q4_k_m", "moe-tiny:q8_0", "gpt-oss-tiny:mxfp4"] {
        let model = synthetic(name);
        let tokens: Vec<u32> = (0..TOKENS as u32).map(|i| i * 37 % 300).collect();
        let whole = need(&model, &device, &DeviceMap::gpu(2), 512).gpu_need();
        for tenths in 1..10 {
            let gpu = whole * tenths / 10;
            let (fit, options) = plan(&model, &device, &[512], gpu);
            let mut alone = Session::new(model.clone(), None, Options { device_map: None, ..options.clone() }).unwrap();
            let want = logits(&mut alone, &tokens);
            device.set_budget(device.counters().bytes + gpu);
            let mut session = Session::new(model.clone(), Some(device.clone()), options).expect("it fits");
            let error = error(&logits(&mut session, &tokens), &want);
            println!("{name} in {gpu} bytes: {} layers, nmse {error:.1e}", fit.device_map.gpu_layers());
            assert!(error < 1e-3, "{name} in {gpu} bytes: nmse {error}");
            device.set_budget(u64::MAX);
        }
    }
}

/// Kullback–Leibler divergence of two rows of logits, in f64.
fn divergence(want: &[f32], got: &[f32]) -> f64 {
    let logs = |row: &[f32]| -> Vec<f64> {
        let max = row.iter().copied().fold(f32::MIN, f32::max) as f64;
        let sum: f64 = row.iter().map(|v| (*v as f64 - max).exp()).sum();
        row.iter().map(|v| *v as f64 - max - sum.ln()).collect()
    };
    let (p, q) = (logs(want), logs(got));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}

#[test]
fn a_real_model_runs_in_20_40_and_80_megabytes() {
    let test = "a_real_model_runs_in_20_40_and_80_megabytes";
    let Some(path) = data::find("SmolLM2-135M-Instruct.Q4_1.gguf", test) else { return };
    let Some(device) = device::open(test) else { return };
    let model = Arc::new(Model::open(path).expect("it opens"));
    let tokens =
        model.tokenizer().unwrap().encode_text("Once upon a time, in a village by the sea, there", true).unwrap();
    let rows: Vec<usize> = (0..tokens.len()).collect();
    let (mut last, mut want) = (0, Vec::new());
    for megabytes in [20, 40, 80] {
        let (fit, options) = plan(&model, &device, &[2048], megabytes * 1_000_000);
        if want.is_empty() {
            let alone = Options { device_map: None, ..options.clone() };
            want = Session::new(model.clone(), None, alone).unwrap().logits(&tokens, &rows).expect("logits");
        }
        device.set_budget(megabytes * 1_000_000);
        let mut session = Session::new(model.clone(), Some(device.clone()), options).expect("it fits");
        let got = session.logits(&tokens, &rows).expect("logits");
        let mean = got.iter().zip(&want).map(|(g, w)| divergence(w, g)).sum::<f64>() / got.len() as f64;
        let bytes = device.counters().bytes;
        println!(
            "{megabytes} MB: {} layers, {bytes} bytes, divergence {mean:.1e}; {}",
            fit.device_map.gpu_layers(),
            fit.why
        );
        assert!(mean < 1e-4, "{megabytes} MB: divergence {mean}");
        assert!(got.iter().zip(&want).all(|(g, w)| lead(w).1 < CLOSE || lead(g).0 == lead(w).0), "another best token");
        assert!(bytes <= megabytes * 1_000_000 && bytes > last, "{bytes} bytes in {megabytes} MB");
        assert!(fit.device_map.single().is_none());
        last = bytes;
        drop(session);
        device.set_budget(u64::MAX);
    }
}
