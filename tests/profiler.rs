//! Profiles: nothing of them is there while nobody asks; kernels add up to the device's time; observers hear everything.

#[path = "common/data.rs"]
mod data;
#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::{Clock, Device};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::profile::statistics::{Group, Phase, tokens, totals};
use wgpu_llm::low_level::profile::{Observer, Profile, chrome, summary};
use wgpu_llm::low_level::profile::{Record, Run};
use wgpu_llm::low_level::run::Session;
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo};

const CPU: usize = 0;
const GPU: usize = 1;

fn tiny() -> Model {
    let bytes = fixture::bytes(&fixture::talker()).expect("well formed");
    Model::new(Gguf::from_bytes(bytes).expect("a file")).expect("a model that runs")
}

fn session(model: Model, device: Option<Device>, gpu_layers: Option<usize>, trace: bool) -> Session {
    let options = Options { context: 256, batch: 8, threads: 2, gpu_layers, trace, ..Options::default() };
    Session::new(Arc::new(model), device, options).expect("a session")
}

/// Greedy tokens after 20 others.
fn generate(session: &mut Session, limit: usize) -> Vec<u32> {
    let info = VocabInfo { tokens: session.model().spec().vocab, context: session.context(), dry_breakers: &[] };
    let mut sampler = Sampler::new(&SamplerOptions::greedy(), &info).expect("valid options");
    let prompt: Vec<u32> = (0..20).map(|i| i * 7 % 90).collect();
    session.truncate(0);
    session.generate(&prompt, &mut sampler, limit, &mut |_| ControlFlow::Continue(())).expect("an answer").tokens
}

fn profile(session: &mut Session) -> Profile {
    session.engine().trace().expect("collected").expect("there is one").clone()
}

/// What a trace file keeps.
fn through_a_file(profile: &Profile) -> Profile {
    let mut bytes = Vec::new();
    chrome::write(profile, &mut bytes).expect("memory takes all");
    chrome::from_json(&serde_json::from_slice(&bytes).expect("JSON")).expect("a trace")
}

/// The sum of a run's kernels on the GPU.
fn kernels(profile: &Profile, run: &Run) -> u64 {
    let events = profile.events_of(run.run).iter().filter(|e| profile.kernel(e).device == GPU);
    events.map(|e| e.length).sum()
}

#[test]
fn a_profiler_that_is_off_leaves_no_query_in_the_commands() {
    let name = "a_profiler_that_is_off_leaves_no_query_in_the_commands";
    let Some(device) = device::open(name) else { return };
    let mut session = session(tiny(), Some(device.clone()), None, false);
    let plain = generate(&mut session, 6);
    assert_eq!(device.counters().queries, 0);
    assert!(session.engine().trace().unwrap().is_none());

    session.engine().set_trace(true).unwrap();
    assert_eq!(generate(&mut session, 6), plain, "watching changes nothing");
    let asked = device.counters();
    assert!(asked.queries >= asked.dispatches / 2, "{asked:?}");
    let profile = session.engine().set_trace(false).unwrap().expect("it was on");
    assert_eq!(profile.runs.iter().map(|r| r.tokens).collect::<Vec<_>>()[..4], [8, 8, 4, 1]);

    assert_eq!(generate(&mut session, 6), plain);
    assert_eq!(device.counters().queries, asked.queries, "off again");
}

#[test]
fn timestamps_take_no_submission_of_their_own() {
    let Some(device) = device::open("timestamps_take_no_submission_of_their_own") else { return };
    let mut session = session(tiny(), Some(device.clone()), None, false);
    let mut submits = |on: bool| {
        session.engine().set_trace(on).unwrap();
        let before = device.counters().submits;
        generate(&mut session, 6);
        device.counters().submits - before
    };
    submits(true);
    assert_eq!(submits(true), submits(false));
}

#[test]
fn every_dispatch_is_timed_where_it_can_be() {
    let Some(device) = device::open("every_dispatch_is_timed_where_it_can_be") else { return };
    let mut session = session(tiny(), Some(device.clone()), None, true);
    generate(&mut session, 6);
    let figures = session.engine().decode_figures().unwrap();
    let profile = profile(&mut session);
    let run = profile.runs.last().unwrap();
    if device.times_dispatches() {
        assert_eq!(profile.events_of(run.run).len(), figures.dispatches);
    }
    for run in &profile.runs {
        assert!(run.start <= run.end && run.gpu > 0 && run.cpu == 0 && run.submit > 0, "{run:?}");
        let within = |e: &wgpu_llm::low_level::profile::Event| e.start >= run.start && e.start + e.length <= run.end;
        assert!(profile.events_of(run.run).iter().all(within), "{run:?}");
    }
    let working = profile.events.iter().filter(|e| e.bytes > 0.0 && e.flops > 0.0).count();
    assert!(2 * working > profile.events.len(), "most do a part of their node's work: {working}");
}

#[test]
fn lesser_clocks_time_nodes_or_whole_submissions() {
    let Some(best) = device::open("lesser_clocks_time_nodes_or_whole_submissions") else { return };
    let mut plain = session(tiny(), Some(best.clone()), None, false);
    let want = generate(&mut plain, 6);
    for clock in [Clock::Passes, Clock::Host] {
        let mut device = best.reopen().expect("it is there");
        device.restrict_clock(clock);
        assert_eq!(device.clock(), clock.min(best.clock()));
        let mut session = session(tiny(), Some(device.clone()), None, true);
        assert_eq!(generate(&mut session, 6), want);
        let figures = session.engine().decode_figures().unwrap();
        let profile = profile(&mut session);
        let facts = &profile.facts.devices[GPU];
        assert_eq!(facts.timing.contains("whole submissions"), device.clock() == Clock::Host, "{facts:?}");
        assert_eq!(device.counters().queries > 0, device.has_timestamps());
        for run in &profile.runs {
            // The device's clock is matched with the host's run by run.
            let mut before = run.start;
            let events = profile.events_of(run.run);
            assert!(run.start <= run.end && run.gpu > 0 && kernels(&profile, run) > 0, "{run:?}");
            // One after the other, whatever tells the time.
            for event in events {
                assert!(event.start >= before && event.start + event.length <= run.end, "{clock:?} {run:?} {event:?}");
                before = event.start;
            }
            if device.clock() == Clock::Host && run.tokens == 1 {
                let [event] = events else { panic!("{events:?}") };
                assert_eq!(profile.kernel(event).name(), "submission/whole all layers");
                assert!(event.bytes >= figures.weight_bytes as f64 / 2.0 && event.flops > 0.0, "{event:?}");
            }
        }
        assert_eq!(through_a_file(&profile), profile);
    }
}

#[test]
fn both_devices_and_their_layers_are_told() {
    let Some(device) = device::open("both_devices_and_their_layers_are_told") else { return };
    for gpu_layers in [None, Some(2)] {
        let device = Some(device.clone()).filter(|_| gpu_layers.is_some());
        let mut session = session(tiny(), device, gpu_layers, true);
        generate(&mut session, 6);
        let profile = profile(&mut session);
        let used = |d: usize| profile.events.iter().any(|e| profile.kernel(e).device == d);
        assert_eq!((used(CPU), used(GPU)), (true, gpu_layers.is_some()));
        let placement = &profile.facts.placement;
        assert_eq!(placement.iter().filter(|l| l.device == GPU).count(), gpu_layers.unwrap_or(0));
        assert_eq!(placement.iter().map(|l| l.weights).sum::<u64>(), profile.facts.weights);
        let cpu = tokens(&profile, Phase::Answer);
        assert!(cpu.cpu > 0.0 && cpu.mean >= cpu.cpu, "{cpu:?}");
        assert!(profile.memory().iter().all(|m| m.weights > 0 && m.cache > 0), "{:?}", profile.memory());
        // The same names on either device.
        let names: Vec<&str> = profile.kernels.iter().map(|k| k.label.as_str()).collect();
        assert!(names.contains(&"ffn_down") && names.contains(&"attention"), "{names:?}");
    }
}

#[test]
fn an_observer_hears_all_that_the_trace_holds_and_files_keep_it() {
    let mut session = session(tiny(), None, None, false);
    let (sender, receiver) = mpsc::channel::<Record>();
    session.engine().observe(Box::new(sender)).unwrap();
    generate(&mut session, 6);
    let mine = profile(&mut session);
    let mut heard = Profile::default();
    receiver.try_iter().for_each(|record| heard.observe(&record));
    assert_eq!(heard, mine);
    assert_eq!(through_a_file(&mine), mine);
    let summary = summary::to_json(&mine);
    let all = totals(&mine, Group::Kernel, Phase::Answer);
    assert_eq!(summary["answer"]["kernels"].as_array().unwrap().len(), all.len());
    assert_eq!(summary["answer"]["kernels"][0]["total_ns"], all[0].total);
    // The one who listened has gone: nobody minds.
    drop(receiver);
    generate(&mut session, 6);
}

#[test]
fn kernels_add_up_to_a_tokens_time_on_the_device() {
    let name = "kernels_add_up_to_a_tokens_time_on_the_device";
    let Some(device) = device::open(name) else { return };
    let Some(file) = data::find("SmolLM2-135M-Instruct.Q4_1.gguf", name) else { return };
    let model = Model::open(&file).expect("a model");
    let mut session = session(model, Some(device), None, true);
    generate(&mut session, 10);
    let profile = profile(&mut session);
    for run in &profile.runs {
        let (sum, gpu) = (kernels(&profile, run) as f64, run.gpu as f64);
        assert!((sum / gpu - 1.0).abs() < 0.05, "kernels take {sum} ns of {gpu} ns: {run:?}");
    }
    // And that time is what a reader waits for, but for what the host does between two tokens.
    let answer = tokens(&profile, Phase::Answer);
    assert!(answer.gpu <= 1.02 * answer.mean && answer.gpu > 0.5 * answer.mean, "{answer:?}");
}
