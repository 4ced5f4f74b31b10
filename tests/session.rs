//! Sessions: a prompt that is stopped, between two batches or within one, leaves a cache that goes on as if nothing had happened.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::Device;
use wgpu_llm::low_level::model::{Model, synth::Synthetic};
use wgpu_llm::low_level::ops::Serial;
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::quant::Precision;
use wgpu_llm::low_level::run::schedule::FinishReason;
use wgpu_llm::low_level::run::{Generation, Session};
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo};

const BATCH: usize = 8;

fn session(device: Option<Device>, gpu_layers: Option<usize>) -> Session {
    let bytes = fixture::bytes(&fixture::talker()).expect("well formed");
    let model = Model::new(Gguf::from_bytes(bytes).expect("a file")).expect("a model that runs");
    let options = Options { context: 256, batch: BATCH, threads: 2, gpu_layers, ..Options::default() };
    Session::new(Arc::new(model), device, options).expect("a session")
}

/// Six tokens after `prompt`, greedily.
fn generate(session: &mut Session, prompt: &[u32]) -> Generation {
    let info = VocabInfo { tokens: session.model().spec().vocab, context: session.context(), dry_breakers: &[] };
    let mut sampler = Sampler::new(&SamplerOptions::greedy(), &info).expect("valid options");
    session.generate(prompt, &mut sampler, 6, &mut |_| ControlFlow::Continue(())).expect("an answer")
}

#[test]
fn an_answer_is_rounded_to_eight_bits_only_where_that_is_asked_for() {
    let synthetic: Synthetic = "llama-tiny:q4_0".parse().expect("a model");
    let logits = |answer_precision: Precision| {
        let model =
            Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).expect("made")).expect("a model that runs");
        let options = Options { context: 64, threads: 1, answer_precision, ..Options::default() };
        let mut session = Session::new(Arc::new(model), None, options).expect("a session");
        let prompt = session.logits(&[1, 300, 400, 500], &[3]).expect("logits");
        (prompt, session.logits(&[7], &[0]).expect("logits"), session.answer_bits())
    };
    let (exact, rounded) = (logits(Precision::default()), logits(Precision::Eight));
    assert_eq!((exact.2, rounded.2), (16, 8));
    assert_eq!(exact.0, rounded.0, "prompts have a setting of their own");
    let (a, b) = (&exact.1[0], &rounded.1[0]);
    let (error, size) = a.iter().zip(b).fold((0.0, 0.0), |(e, s), (a, b)| (e + (a - b) * (a - b), s + a * a));
    assert!(error > 0.0 && error < 1e-3 * size, "{error} of {size}");
}

/// Has a prompt stopped when it is asked for the `asks`th time, counted from 0; gives how many of its tokens the cache kept.
fn stops_cleanly(device: Option<Device>, gpu_layers: Option<usize>, asks: &[usize]) -> Vec<usize> {
    let prompt: Vec<u32> = (0..45).map(|i| i * 7 % 90).collect();
    let other: Vec<u32> = prompt[..11].iter().copied().chain(20..50).collect();
    let mut fresh = session(device.clone(), gpu_layers);
    let mut want = |prompt: &[u32]| {
        fresh.truncate(0);
        generate(&mut fresh, prompt).tokens
    };
    let (want, want_other) = (want(&prompt), want(&other));

    let left = Arc::new(AtomicUsize::new(usize::MAX));
    let mut session = session(device, gpu_layers);
    let counter = left.clone();
    // It says yes once: 0 is followed by the largest number.
    session.stop_when(move || counter.fetch_sub(1, Ordering::Relaxed) == 0);
    let mut kept = Vec::new();
    for n in asks {
        left.store(*n, Ordering::Relaxed);
        session.truncate(0);
        let stopped = generate(&mut session, &prompt);
        let rest = session.cached_tokens().len();
        assert_eq!((stopped.finish, stopped.tokens.len(), stopped.prompt_tokens), (FinishReason::Cancelled, 0, rest));
        assert_eq!(session.cached_tokens(), &prompt[..rest], "what was not computed does not count as kept");
        let answer = generate(&mut session, &prompt);
        assert_eq!((&answer.tokens, answer.prompt_tokens), (&want, prompt.len() - rest), "the rest is computed");
        kept.push(rest);
    }

    left.store(2, Ordering::Relaxed);
    session.truncate(0);
    assert_eq!(generate(&mut session, &prompt).finish, FinishReason::Cancelled);
    assert_eq!(generate(&mut session, &other).tokens, want_other, "another prompt with the same beginning");

    left.store(0, Ordering::Relaxed);
    session.truncate(0);
    assert!(session.logits(&prompt, &[3]).unwrap_err().to_string().contains("stopped"));
    assert!(session.cached_tokens().is_empty());
    kept
}

#[test]
fn a_prompt_is_stopped_within_batches_on_the_cpu() {
    let kept = stops_cleanly(None, None, &[0, 1, 5, 20, 30, 40]);
    assert!(kept[..3] == [0, 0, 0] && kept[5] > BATCH && kept.is_sorted(), "{kept:?}");
}

#[test]
fn a_prompt_is_stopped_between_batches_on_the_gpu() {
    let Some(device) = device::open("a_prompt_is_stopped_between_batches_on_the_gpu") else { return };
    assert_eq!(stops_cleanly(Some(device), None, &[0, 2]), [0, 2 * BATCH]);
}

#[test]
fn a_prompt_is_stopped_where_layers_are_on_both_devices() {
    let Some(device) = device::open("a_prompt_is_stopped_where_layers_are_on_both_devices") else { return };
    let kept = stops_cleanly(Some(device), Some(2), &[0, 3, 20, 40]);
    assert!(kept[0] == 0 && kept[3] >= BATCH && kept.is_sorted(), "{kept:?}");
}

/// Frequency, presence and repetition penalties, and DRY without breakers, by their definitions, over the newest 40 tokens of `text`.
fn penalized(logits: &mut [f32], text: &[u32]) {
    let text = &text[text.len().saturating_sub(40)..];
    for id in 0..logits.len() as u32 {
        let count = text.iter().filter(|t| **t == id).count() as f32;
        if count > 0.0 {
            let logit = &mut logits[id as usize];
            *logit = if *logit <= 0.0 { *logit * 1.25 } else { *logit / 1.25 } - count * 0.5 - 0.25;
        }
    }
    let mut longest = vec![0; logits.len()];
    for end in 1..text.len() {
        let repeated = (1..=end).take_while(|n| text[end - n] == text[text.len() - n]).count();
        longest[text[end] as usize] = repeated.max(longest[text[end] as usize]);
    }
    for (logit, repeated) in logits.iter_mut().zip(longest).filter(|(_, repeated)| *repeated >= 2) {
        *logit -= 3.0 * 2f32.powi(repeated as i32 - 2);
    }
}

/// Ten tokens after `prompt`, the likeliest after what [`penalized`] takes from those before.
fn by_definition(session: &mut Session, prompt: &[u32]) -> Vec<u32> {
    let mut text = prompt.to_vec();
    for _ in 0..10 {
        session.truncate(0);
        let mut logits = session.logits(&text, &[text.len() - 1]).expect("logits").remove(0);
        penalized(&mut logits, &text);
        text.push(
            (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a }).expect("a vocabulary") as u32
        );
    }
    text.split_off(prompt.len())
}

#[test]
fn penalties_see_the_prompt_and_never_what_is_no_longer_there() {
    let options = SamplerOptions {
        repeat_penalty: 1.25,
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        repeat_last_n: 40,
        dry_multiplier: 3.0,
        dry_base: 2.0,
        dry_penalty_last_n: 40,
        dry_sequence_breakers: vec![],
        ..SamplerOptions::greedy()
    };
    let mut session = session(None, None);
    let info = VocabInfo { tokens: session.model().spec().vocab, context: session.context(), dry_breakers: &[] };
    let mut sampler = Sampler::new(&options, &info).expect("valid options");
    let mut generate = |session: &mut Session, prompt: &[u32]| {
        session.generate(prompt, &mut sampler, 10, &mut |_| ControlFlow::Continue(())).expect("an answer").tokens
    };
    let turn: Vec<u32> = (3..20).chain(5..9).collect();
    let plain = self::generate(&mut session, &turn).tokens;
    let want = by_definition(&mut session, &turn);
    assert_ne!(plain[..6], want[..6], "the penalties do something");
    session.truncate(0);
    assert_eq!(generate(&mut session, &turn), want);
    assert_eq!(generate(&mut session, &turn), want, "another answer: the first one is gone");
    let two: Vec<u32> = turn.iter().copied().chain(want).chain(30..41).collect();
    let answer = generate(&mut session, &two);
    assert_eq!(answer, by_definition(&mut session, &two));
    // The first turn is forgotten.
    let later: Vec<u32> = (30..41).chain(answer).chain(50..53).collect();
    let answer = generate(&mut session, &later);
    assert_eq!(answer, by_definition(&mut session, &later));
}
