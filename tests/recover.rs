//! A GPU that fails in the middle of the work: the session goes on with the same tokens, on the GPU opened again or on the CPU, and
//! says so.

#[cfg(feature = "cli")]
#[path = "common/data.rs"]
mod data;
#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use wgpu_llm::low_level::base::{ErrorKind, Result};
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::{Device, FaultKind, InjectedFault, Memory};
use wgpu_llm::low_level::graph::Input;
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::plan::{DeviceMap, Options};
use wgpu_llm::low_level::run::schedule::FinishReason;
use wgpu_llm::low_level::run::{Generation, Session};
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo};

const BATCH: usize = 8;
const TOKENS: usize = 24;
/// Submissions for a prompt of [`prompt`]: five full batches, each with a look at whether it has run, and the rest.
const PROMPT_SUBMISSIONS: u64 = 11;

fn prompt() -> Vec<u32> {
    (0..45).map(|i| i * 7 % 90).collect()
}

/// What a session has told: device and count of failures.
type Told = Arc<Mutex<Vec<(Option<String>, usize, usize, String)>>>;

fn session(device: Option<Device>, gpu_layers: Option<usize>) -> (Session, Told) {
    // Without a tokenizer there is no token that ends an answer.
    let bytes = fixture::bytes(&fixture::json("llama-dense")).expect("well formed");
    let model = Model::new(Gguf::from_bytes(bytes).expect("a file")).expect("a model that runs");
    let options = Options { context: 256, batch: BATCH, threads: 2, gpu_layers, ..Options::default() };
    let mut session = Session::new(Arc::new(model), device, options).expect("a session");
    let told = Told::default();
    let sink = told.clone();
    session.when_recovered(move |r| {
        sink.lock().unwrap().push((r.device.clone(), r.failures, r.tokens, r.to_string()));
    });
    (session, told)
}

/// Ways of drawing: on the device the first two, on the host the last, which has a memory of its own.
fn ways() -> [SamplerOptions; 3] {
    let seeded = SamplerOptions { seed: Some(7), temp: 1.5, ..SamplerOptions::default() };
    let penalties = SamplerOptions { repeat_penalty: 1.3, ..seeded.clone() };
    [SamplerOptions::greedy(), seeded, penalties]
}

fn sampler(session: &Session, options: &SamplerOptions) -> Sampler {
    let info = VocabInfo { tokens: session.model().spec().vocab, context: session.context(), dry_breakers: &[] };
    Sampler::new(options, &info).expect("valid options")
}

fn generate(session: &mut Session, options: &SamplerOptions) -> Result<Generation> {
    let mut sampler = sampler(session, options);
    session.generate(&prompt(), &mut sampler, TOKENS, &mut |_| ControlFlow::Continue(()))
}

fn fault(kind: FaultKind, at: u64) -> InjectedFault {
    InjectedFault { kind, at }
}

/// Generates while `faults` happen, and compares with what comes without them; gives what was told.
fn goes_on(device: &Device, gpu_layers: Option<usize>, options: &SamplerOptions, faults: &[InjectedFault]) -> Told {
    let device = device.reopen().expect("it is there");
    let (mut session, told) = session(Some(device.clone()), gpu_layers);
    let want = generate(&mut session, options).expect("an answer");
    assert_eq!(want.tokens.len(), TOKENS, "nothing ends it");
    session.truncate(0);
    device.inject(faults.iter().copied());
    let got = generate(&mut session, options).unwrap_or_else(|e| panic!("{faults:?}: {e}"));
    assert_eq!(got.tokens, want.tokens, "{faults:?}");
    assert_eq!((got.finish, got.prompt_tokens), (want.finish, want.prompt_tokens), "{faults:?}");
    let fed: Vec<u32> = prompt().into_iter().chain(want.tokens).collect();
    assert_eq!(session.cached_tokens(), &fed[..fed.len() - 1], "{faults:?}");
    told
}

#[test]
fn an_answer_goes_on_after_the_device_is_lost_at_any_moment() {
    let Some(device) = device::open("an_answer_goes_on_after_the_device_is_lost_at_any_moment") else { return };
    for options in &ways() {
        // In the prompt, with its last batch, with the first tokens in flight, late.
        for at in [1, 2, 6, PROMPT_SUBMISSIONS, PROMPT_SUBMISSIONS + 1, PROMPT_SUBMISSIONS + 2, 30] {
            let told = goes_on(&device, None, options, &[fault(FaultKind::Lost, at)]);
            let told = told.lock().unwrap();
            let [(Some(_), 1, _, text)] = &told[..] else { panic!("lost once, at {at}: {told:?}") };
            assert!(text.contains("was lost: waiting for it failed; it was opened again"), "{text}");
        }
    }
}

#[test]
fn an_answer_goes_on_where_layers_are_on_both_devices() {
    let Some(device) = device::open("an_answer_goes_on_where_layers_are_on_both_devices") else { return };
    for options in &ways() {
        for at in [1, 9, 20] {
            let told = goes_on(&device, Some(2), options, &[fault(FaultKind::Lost, at)]);
            assert!(matches!(told.lock().unwrap()[..], [(Some(_), 1, ..)]), "{told:?}");
        }
    }
}

#[test]
fn three_losses_in_ten_minutes_and_the_session_stays_on_the_cpu() {
    let Some(device) = device::open("three_losses_in_ten_minutes_and_the_session_stays_on_the_cpu") else { return };
    for options in &ways() {
        // The second while the prompt is computed anew, the third late in the answer.
        let losses = [PROMPT_SUBMISSIONS + 3, 5, PROMPT_SUBMISSIONS + 9].map(|at| fault(FaultKind::Lost, at));
        let told = goes_on(&device, None, options, &losses);
        let told = told.lock().unwrap();
        let [(Some(_), 1, ..), (Some(_), 2, ..), (None, 3, tokens, text)] = &told[..] else { panic!("{told:?}") };
        assert!(*tokens > prompt().len(), "{text}");
        assert!(text.contains("failure 3 within ten minutes: from now on the work is done on the CPU"), "{text}");
    }
}

#[test]
fn too_little_memory_in_the_middle_of_an_answer() {
    let Some(device) = device::open("too_little_memory_in_the_middle_of_an_answer") else { return };
    let [greedy, ..] = ways();
    let told = goes_on(&device, None, &greedy, &[fault(FaultKind::OutOfMemory, 20)]);
    let told = told.lock().unwrap();
    assert!(matches!(&told[..], [(Some(_), 1, _, text)] if text.contains("out of memory")), "{told:?}");
    let told = goes_on(&device, None, &greedy, &[20, 15].map(|at| fault(FaultKind::OutOfMemory, at)));
    assert!(matches!(told.lock().unwrap()[..], [(Some(_), 1, ..), (None, 2, ..)]), "{told:?}");
}

#[test]
fn too_little_memory_for_a_plan_makes_another() {
    let Some(device) = device::open("too_little_memory_for_a_plan_makes_another") else { return };
    for options in &ways() {
        let (mut session, told) = session(Some(device.reopen().expect("it is there")), None);
        let layers = session.model().spec().layers.len();
        session.when_short_of_memory(move |_| Some(DeviceMap::last(layers, 2)));
        let want = generate(&mut session, options).unwrap();
        session.truncate(0);
        let before = session.engine().device().expect("a GPU").counters().bytes;
        session.engine().device().expect("a GPU").inject([fault(FaultKind::OutOfMemory, 20)]);
        assert_eq!(generate(&mut session, options).unwrap().tokens, want.tokens);
        let device = session.engine().device().cloned().expect("still there");
        assert_eq!(session.engine().device_map().gpu_layers(), 2);
        assert!(device.counters().bytes < before, "{before} {:?}", device.counters());
        let told = told.lock().unwrap();
        let [(Some(_), 1, _, text)] = &told[..] else { panic!("{told:?}") };
        let want = format!("is out of memory; it was opened again, with 2 of {} layers there, and", layers + 1);
        assert!(text.contains(&want), "{text}");
    }
    // Who knows no other plan has the same again, or nothing there.
    for on_gpu in [true, false] {
        let (mut session, told) = session(Some(device.reopen().expect("it is there")), None);
        let layers = session.model().spec().layers.len();
        session.when_short_of_memory(move |_| (!on_gpu).then(|| DeviceMap::cpu(layers)));
        session.engine().device().expect("a GPU").inject([fault(FaultKind::OutOfMemory, 20)]);
        assert_eq!(generate(&mut session, &SamplerOptions::greedy()).unwrap().tokens.len(), TOKENS);
        assert_eq!(session.engine().device().is_some(), on_gpu);
        let told = told.lock().unwrap();
        let how = if on_gpu { "opened again, and" } else { "on the CPU from now on" };
        assert!(matches!(&told[..], [(_, 1, _, text)] if text.contains(how)), "{told:?}");
    }
}

#[test]
fn a_device_that_does_not_answer_is_given_up() {
    let Some(device) = device::open("a_device_that_does_not_answer_is_given_up") else { return };
    let [greedy, ..] = ways();
    let told = goes_on(&device, None, &greedy, &[fault(FaultKind::Silent, 20)]);
    let told = told.lock().unwrap();
    assert!(matches!(&told[..], [(Some(_), 1, _, text)] if text.contains("no answer for 4 s")), "{told:?}");
}

#[test]
fn the_next_request_works_after_a_loss_between_two() {
    let Some(device) = device::open("the_next_request_works_after_a_loss_between_two") else { return };
    let (mut session, told) = session(Some(device.clone()), None);
    let [greedy, ..] = ways();
    let want = generate(&mut session, &greedy).unwrap();
    device.destroy();
    let begin = Instant::now();
    let got = generate(&mut session, &greedy).unwrap();
    assert!(begin.elapsed() < Duration::from_secs(60), "no wait for a device that is gone: {:?}", begin.elapsed());
    assert_eq!(got.tokens, want.tokens);
    let told = told.lock().unwrap();
    let [(Some(_), 1, tokens, _)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(*tokens, prompt().len() - 1, "what the prompt shares with the cache");
    assert!(session.engine().device().is_some_and(|d| d.check().is_ok()));
}

#[test]
fn a_session_that_has_gone_to_the_cpu_keeps_nothing_on_the_gpu() {
    let Some(device) = device::open("a_session_that_has_gone_to_the_cpu_keeps_nothing_on_the_gpu") else { return };
    let (mut session, told) = session(Some(device.clone()), None);
    let [greedy, ..] = ways();
    device.inject([1, 1, 1].map(|at| fault(FaultKind::Lost, at)));
    let first = generate(&mut session, &greedy).unwrap();
    assert!(matches!(told.lock().unwrap()[..], [.., (None, 3, ..)]), "{told:?}");
    assert!(session.engine().device().is_none() && device.counters().bytes == 0, "{:?}", device.counters());
    let before = device.counters().submits;
    session.truncate(0);
    assert_eq!(generate(&mut session, &greedy).unwrap().tokens, first.tokens);
    assert_eq!((device.counters().submits, told.lock().unwrap().len()), (before, 3));
}

#[test]
fn logits_of_a_text_go_on_too() {
    let Some(device) = device::open("logits_of_a_text_go_on_too") else { return };
    let (mut session, told) = session(Some(device.clone()), None);
    let (text, rows) = (prompt(), [3, 20, 44]);
    let want = session.logits(&text, &rows).unwrap();
    session.truncate(0);
    device.inject([fault(FaultKind::Lost, 5)]);
    let got = session.logits(&text, &rows).unwrap();
    assert_eq!(told.lock().unwrap().len(), 1);
    let most = want.iter().flatten().zip(got.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(got.len() == rows.len() && most < 1e-4, "{most}");
}

#[test]
fn computing_anew_can_be_stopped() {
    let Some(device) = device::open("computing_anew_can_be_stopped") else { return };
    let (mut session, told) = session(Some(device.clone()), None);
    let [greedy, ..] = ways();
    let want = generate(&mut session, &greedy).unwrap();
    session.truncate(0);
    let stop = Arc::new(AtomicBool::new(false));
    let (asked, pressed) = (stop.clone(), stop.clone());
    session.stop_when(move || asked.load(Ordering::Relaxed));
    session.when_recovered(move |_| pressed.store(true, Ordering::Relaxed));
    device.inject([fault(FaultKind::Lost, PROMPT_SUBMISSIONS + 6)]);
    let part = generate(&mut session, &greedy).unwrap();
    assert_eq!(part.finish, FinishReason::Cancelled);
    assert!(part.tokens.len() > 2 && want.tokens.starts_with(&part.tokens), "{part:?}");
    assert!(session.cached_tokens().is_empty(), "nothing was computed anew");
    stop.store(false, Ordering::Relaxed);
    assert_eq!(generate(&mut session, &greedy).unwrap().tokens, want.tokens);
    assert!(told.lock().unwrap().is_empty(), "another listener has taken its place");
}

#[test]
fn a_trace_goes_on_and_keeps_the_names_of_devices() {
    let Some(device) = device::open("a_trace_goes_on_and_keeps_the_names_of_devices") else { return };
    let name = device.info().name.clone();
    let (mut session, told) = session(Some(device.clone()), None);
    session.engine().set_trace(true).unwrap();
    device.inject([PROMPT_SUBMISSIONS + 4, 1, 1].map(|at| fault(FaultKind::Lost, at)));
    let [greedy, ..] = ways();
    assert_eq!(generate(&mut session, &greedy).unwrap().tokens.len(), TOKENS);
    assert!(matches!(told.lock().unwrap()[..], [.., (None, 3, ..)]), "{told:?}");
    let profile = session.engine().set_trace(false).unwrap().expect("it was on");
    let of =
        |kind: &str| profile.events.iter().filter(|e| profile.device(profile.kernel(e).device).kind == kind).count();
    assert!(of("CPU") > 0 && of("GPU") > 0, "{} {}", of("CPU"), of("GPU"));
    assert!(profile.facts.devices.iter().any(|d| d.name == name));
    assert!(profile.facts.placement.iter().all(|l| profile.device(l.device).kind == "CPU"));
}

#[test]
fn a_wait_for_a_lost_device_ends_with_a_typed_error() {
    let Some(device) = device::open("a_wait_for_a_lost_device_ends_with_a_typed_error") else { return };
    for kind in [FaultKind::Lost, FaultKind::OutOfMemory] {
        let device = device.reopen().unwrap();
        device.inject([fault(kind, 1)]);
        let begin = Instant::now();
        let mut memory = Memory::new(&device, 16);
        let error = memory.read_input(Input::Tokens, 4).and_then(|pending| pending.wait()).unwrap_err();
        let want = if kind == FaultKind::Lost { ErrorKind::DeviceLost } else { ErrorKind::OutOfMemory };
        assert_eq!(error.kind(), want, "{error}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
}

/// What the program prints and says of a small model in `dir`, with `args`.
#[cfg(feature = "cli")]
fn program(dir: &std::path::Path, args: &[&str]) -> (String, String) {
    std::fs::write(dir.join("model.gguf"), fixture::bytes(&fixture::talker()).expect("well formed")).unwrap();
    let common = ["-m", "model.gguf", "--device", "gpu", "--seed", "3", "-n", "40", "-p", "zyxwvut", "-ub", "4"];
    run(dir, &[args, &common].concat())
}

/// What the program prints and says, its home being `dir`, with `args`.
#[cfg(feature = "cli")]
fn run(dir: &std::path::Path, args: &[&str]) -> (String, String) {
    use std::process::{Command, Stdio};
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HOME", dir).env("HF_HUB_OFFLINE", "1").current_dir(dir).args(args);
    let output = command.stdin(Stdio::null()).output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[cfg(feature = "cli")]
#[test]
fn the_program_goes_on_and_says_so() {
    if device::open("the_program_goes_on_and_says_so").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str]| program(dir.path(), args);
    // Drawn on the device, and on the host.
    for (command, more) in [("complete", "--temp=0"), ("chat", "--temp=0"), ("complete", "--repeat-penalty=1.2")] {
        let (want, quiet) = run(&[command, more]);
        assert!(!want.trim().is_empty() && !quiet.contains("warning"), "{want:?} {quiet}");
        let (got, told) = run(&[command, more, "--inject-faults", "lost@5,oom@2"]);
        assert_eq!(got, want, "on the same GPU it is the same answer");
        assert_eq!(told.matches("it was opened again, and the work goes on").count(), 2, "{told}");
        // The CPU rounds otherwise, and this model's choices are close: its words may be others.
        let (got, told) = run(&[command, more, "--inject-faults", "lost@5,lost@2,lost@2"]);
        assert!(got.len() > 20 && got[..2] == want[..2], "{got:?} {want:?}");
        assert!(told.contains("failure 3 within ten minutes: from now on the work is done on the CPU"), "{told}");
        assert!(!told.contains("panicked"), "{told}");
    }
}

#[cfg(feature = "cli")]
#[test]
fn a_gpu_that_fails_while_a_model_is_loaded_is_opened_again_or_left_alone() {
    if device::open("a_gpu_that_fails_while_a_model_is_loaded_is_opened_again_or_left_alone").is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let run = |args: &[&str]| program(dir.path(), &[&["complete", "--temp=0"], args].concat());
    let (want, _) = run(&[]);
    let (got, told) = run(&["--inject-faults", "lost@0"]);
    assert_eq!(got, want);
    assert!(told.contains("was lost: made to fail; opening it again"), "{told}");
    // What comes later still comes.
    let (got, told) = run(&["--inject-faults", "lost@0,lost@5"]);
    assert_eq!(got, want);
    assert!(told.contains("opening it again") && told.contains("it was opened again, and the work goes on"), "{told}");
    let (got, told) = run(&["--inject-faults", "lost@0,lost@0"]);
    assert!(got.len() > 20, "{got:?}");
    assert!(told.contains("made to fail; going on with the CPU") && told.contains("on the CPU ("), "{told}");
    // So small a model is not tried again with less.
    let (_, told) = run(&["--inject-faults", "oom@0"]);
    assert!(told.contains("out of memory; going on with the CPU"), "{told}");
}

#[cfg(feature = "cli")]
#[test]
fn a_gpu_that_runs_out_of_memory_in_an_answer_gets_less() {
    let test = "a_gpu_that_runs_out_of_memory_in_an_answer_gets_less";
    let Some(path) = data::find("SmolLM2-135M-Instruct.Q4_1.gguf", test).filter(|_| device::open(test).is_some())
    else {
        return;
    };
    let (dir, path) = (tempfile::tempdir().expect("a folder"), path.to_string_lossy().into_owned());
    let common =
        ["complete", "--device", "gpu", "--temp=0", "-c", "1024", "-n", "5", "-p", "The capital of France is", "-m"];
    let complete = |more: &[&str]| run(dir.path(), &[&common[..], &[path.as_str()], more].concat());
    let (want, told) = complete(&["-ngl", "all"]);
    assert!(want.contains("Paris") && told.contains("all 31 layers there"), "{want} {told}");
    let (got, told) = complete(&["--inject-faults", "oom@4"]);
    assert_eq!(got, want);
    let layers = told.split_once("opened again, with ").and_then(|(_, rest)| rest.split(' ').next());
    assert!(layers.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| (1..31).contains(&n)), "{told}");
    // Who says how many gets as many.
    let (got, told) = complete(&["-ngl", "all", "--inject-faults", "oom@4"]);
    assert!(got == want && told.contains("it was opened again, and the work goes on"), "{got} {told}");
}
