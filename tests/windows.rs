//! Layers with a window keep their window and no more: the same results as if they kept all, less memory, and conversations that can
//! go back to where an answer began.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/greedy.rs"]
mod greedy;
#[path = "common/tokens.rs"]
mod tokens;

use greedy::greedy;
use std::sync::Arc;
use tokens::tokens;
use wgpu_llm::low_level::arch::{Cells, Spec};
use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::Device;
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::ops::PAGE_CELLS;
use wgpu_llm::low_level::plan::{Options, predict::Sizes};
use wgpu_llm::low_level::run::Session;
use wgpu_llm::low_level::run::batcher::{Event, Request};
use wgpu_llm::low_level::sample::SamplerOptions;

/// Windows of 32 tokens in some layers.
const MODELS: [&str; 3] = ["gemma3-dense", "gpt-oss-moe", "gemma2-dense"];
const CONTEXT: usize = 1024;

fn model(name: &str) -> Arc<Model> {
    let bytes = fixture::bytes(&fixture::json(name)).expect("well formed");
    Arc::new(Model::new(Gguf::from_bytes(bytes).expect("a file")).expect("a model that runs"))
}

fn options(swa_full: bool) -> Options {
    Options { context: CONTEXT, batch: 48, threads: 2, swa_full, ..Options::default() }
}

fn session(model: &Arc<Model>, device: Option<Device>, swa_full: bool) -> Session {
    Session::new(model.clone(), device, options(swa_full)).expect("a session")
}

fn windows_change_nothing(device: Option<Device>) {
    for name in MODELS {
        let model = model(name);
        let cells = options(false).cells(model.spec());
        assert!(cells.window_pages > 0 && cells.window_pages < cells.pages, "{name}: {cells:?}");
        let (mut windowed, mut full) = (session(&model, device.clone(), false), session(&model, device.clone(), true));
        let text = tokens(&model, 1, 700);
        let rows = [0, 31, 32, 33, 100, 383, 384, 699];
        let [a, b] = [&mut windowed, &mut full].map(|session| session.logits(&text, &rows).expect("logits"));
        assert_eq!(a, b, "{name}: logits");
        let [a, b] = [&mut windowed, &mut full].map(|session| {
            let prompt = [&session.cached_tokens().to_vec()[..], &tokens(&model, 2, 20)].concat();
            greedy(session, &prompt, 90).tokens
        });
        assert_eq!(a, b, "{name}: an answer");
    }
}

#[test]
fn windows_change_nothing_on_the_cpu() {
    windows_change_nothing(None);
}

#[test]
fn windows_change_nothing_on_the_gpu() {
    let Some(device) = device::open("windows_change_nothing_on_the_gpu") else { return };
    windows_change_nothing(Some(device));
}

#[test]
fn another_answer_begins_where_the_first_began() {
    for name in MODELS {
        let model = model(name);
        let mut session = session(&model, None, false);
        let prompt = tokens(&model, 3, 400);
        let first = greedy(&mut session, &prompt, 100);
        let again = greedy(&mut session, &prompt, 100);
        assert_eq!(first.tokens, again.tokens, "{name}");
        assert!(again.prompt_tokens <= 2, "{name}: {} tokens were computed again", again.prompt_tokens);
        // A turn later, and back to the first: its anchor is still there.
        let next = [&prompt[..], &first.tokens, &tokens(&model, 4, 60)].concat();
        let second = greedy(&mut session, &next, 50);
        assert!(second.prompt_tokens <= 62, "{name}: {}", second.prompt_tokens);
        let again = greedy(&mut session, &prompt, 100);
        assert_eq!((first.tokens, again.prompt_tokens <= 2), (again.tokens, true), "{name}");
        // To where there is no anchor: what is needed is computed again.
        let branch = [&prompt[..200], &tokens(&model, 5, 10)].concat();
        let branched = greedy(&mut session, &branch, 20).tokens;
        let mut fresh = self::session(&model, None, true);
        assert_eq!(branched, greedy(&mut fresh, &branch, 20).tokens, "{name}: a branch");
    }
}

#[test]
fn requests_share_what_windows_still_have() {
    for name in MODELS {
        let model = model(name);
        let answers = |swa_full: bool| {
            let options = Options { sequences: 8, ..options(swa_full) };
            let mut batcher = Session::new(model.clone(), None, options).expect("a session").into_batcher();
            let system = tokens(&model, 6, 300);
            let mut handles = Vec::new();
            for i in 0..12 {
                let text = [&system[..], &tokens(&model, 50 + i, 5 + 9 * i as usize)].concat();
                let request = Request { ignore_end: true, ..Request::new(text, 30) };
                let sampling = SamplerOptions { seed: Some(i), ..SamplerOptions::default() };
                handles.push(batcher.submit(Request { sampling, ..request }).expect("taken"));
            }
            while batcher.step().expect("a step") {}
            let of = |handle: &mut _| -> Vec<u32> {
                let handle: &mut wgpu_llm::low_level::run::batcher::Handle = handle;
                let mut all = Vec::new();
                while let Some(event) = handle.try_next() {
                    match event {
                        Event::Token { token, .. } => all.push(token),
                        Event::Failed { error } => panic!("{error}"),
                        _ => {}
                    }
                }
                all
            };
            handles.iter_mut().map(of).collect::<Vec<_>>()
        };
        assert_eq!(answers(false), answers(true), "{name}");
    }
}

/// What a model like Gemma 3 would have: a layer of six sees everything, the others 1024 tokens.
#[test]
fn a_windowed_layer_keeps_its_window() {
    let spec: Spec = fixture::Fixture::load("gemma3-dense").spec;
    let window = spec.window().expect("some layers have one");
    let (context, batch) = (32_768, 512);
    let cells = Cells::of(&spec, 1, context, context, batch);
    let [windowed, all] = [true, false].map(|w| spec.layers.iter().filter(|l| (l.window > 0) == w).count());
    assert!(windowed > 0 && all > 0);
    let kept = (window + batch).next_multiple_of(PAGE_CELLS);
    let want = all * context + windowed * kept;
    let own = (window + batch - 1).div_ceil(PAGE_CELLS) + 1;
    let got = |window_pages: usize| PAGE_CELLS * (all * cells.pages + windowed * window_pages);
    assert!(got(own) as f64 <= 1.1 * want as f64, "{} cells, at most {want} are wanted", got(own));
    assert!(got(cells.window_pages) as f64 <= 1.25 * got(own) as f64, "anchors take more than a quarter: {cells:?}");
    assert!(cells.window_pages > own, "there are anchors");
}

#[test]
fn what_windows_leave_is_predicted() {
    for name in MODELS {
        let model = model(name);
        let mut bytes = Vec::new();
        for swa_full in [false, true] {
            let options = options(swa_full);
            let mut session = session(&model, None, swa_full);
            let device_map = session.engine().device_map().clone();
            let predicted = Sizes::of(&model, None, &options).expect("sizes").predict(&device_map, None).expect("sums");
            let held = session.engine().memory()[0];
            let off = predicted.memory[0].cache.abs_diff(held.cache) as f64 / held.cache as f64;
            assert!(off <= 0.01, "{name}: {} bytes predicted, {} held", predicted.memory[0].cache, held.cache);
            let cells = options.cells(model.spec());
            assert!(held.cache as usize >= model.spec().cache_bytes(&cells, DType::F16.into()));
            bytes.push(held.cache);
        }
        assert!((bytes[0] as f64) < 0.8 * bytes[1] as f64, "{name}: {bytes:?}");
    }
}
