//! How requests end before their time, and that they disturb nobody.

use super::fake::{POISON, expected};
use super::*;
use std::task::{Context, Poll, Waker};

/// Two requests of which the first is being answered.
fn two() -> (Batcher<Fake>, Record, Record) {
    let mut batcher = batcher();
    let [a, b] = ["first", "second"].map(|prompt| request(prompt, 50));
    let mut records = [a, b].map(|request| Record::new(request.clone(), batcher.submit(request).expect("sound")));
    for _ in 0..5 {
        batcher.step().expect("it goes on");
    }
    records.iter_mut().for_each(Record::pump);
    let [a, b] = records;
    (batcher, a, b)
}

fn check_other(mut batcher: Batcher<Fake>, other: &mut Record) {
    run(&mut batcher, std::slice::from_mut(other));
    other.check_ended();
    let (tokens, finish) = expected(&[None], &other.request, 0, other.seed, 1000);
    assert_eq!((&other.only().tokens, other.only().finish), (&tokens, finish));
    check_empty(&mut batcher);
}

#[test]
fn a_cancelled_request_ends_before_the_next_step() {
    let (mut batcher, mut a, mut b) = two();
    let tokens = a.only().tokens.len();
    a.handle.iter().for_each(Handle::cancel);
    a.handle.iter().for_each(Handle::cancel);
    batcher.step().expect("it goes on");
    a.pump();
    a.check_ended();
    assert_eq!((a.only().finish, a.only().tokens.len()), (Some(FinishReason::Cancelled), tokens));
    assert!(tokens > 0);
    assert_eq!(batcher.counts().running, 1);
    check_other(batcher, &mut b);
}

#[test]
fn a_request_in_the_queue_is_cancelled_at_once() {
    let settings = Settings { sequences: 1, ..Settings::default() };
    let mut batcher = batcher_with(&[(None, 20)], settings, Fake::new(&spec(&[(None, 20)])));
    let [a, b] = ["first", "second"].map(|prompt| Request { choices: 2, ..request(prompt, 30) });
    let mut a = Record::new(a.clone(), batcher.submit(a).expect("sound"));
    batcher.step().expect("it goes on");
    let mut b = Record::new(b.clone(), batcher.submit(b).expect("sound"));
    b.handle.iter().for_each(|handle| handle.canceller().cancel());
    b.pump();
    b.check_ended();
    assert!(b.choices.iter().all(|choice| choice.finish == Some(FinishReason::Cancelled)));
    assert_eq!(b.queued, Some(1), "a choice of the other waits too");
    run(&mut batcher, std::slice::from_mut(&mut a));
    a.check_ended();
    check_empty(&mut batcher);
}

#[test]
fn a_dropped_handle_cancels_its_request() {
    let (mut batcher, a, mut b) = two();
    drop(a);
    assert!(!batcher.is_idle());
    batcher.step().expect("it goes on");
    assert_eq!(batcher.counts().running, 1);
    check_other(batcher, &mut b);
}

#[test]
fn a_request_ends_at_its_deadline() {
    let (mut batcher, _a, mut b) = two();
    let late = Request { deadline: Some(Duration::ZERO), ..request("late", 50) };
    let mut late = Record::new(late.clone(), batcher.submit(late).expect("sound"));
    let soon = Request { deadline: Some(Duration::from_millis(5)), ..request("soon", 10_000) };
    let mut soon = Record::new(soon.clone(), batcher.submit(soon).expect("sound"));
    run(&mut batcher, std::slice::from_mut(&mut soon));
    late.pump();
    assert_eq!((late.only().finish, late.started), (Some(FinishReason::Deadline), None));
    assert_eq!(soon.only().finish, Some(FinishReason::Deadline));
    let times = soon.only().times;
    assert!(times.queued + times.prompt + times.decode < Duration::from_secs(5), "{times:?}");
    check_other(batcher, &mut b);
}

#[test]
fn an_answer_ends_if_the_context_is_full() {
    let settings = Settings { context: 20, ..Settings::default() };
    let mut batcher = batcher_with(&[(None, 20)], settings, Fake::new(&spec(&[(None, 20)])));
    let record = run_one(&mut batcher, request("a prompt", 100));
    assert_eq!((record.only().finish, record.only().tokens.len()), (Some(FinishReason::Context), 13));
}

#[test]
fn a_prompt_without_an_answer_is_only_computed() {
    let mut batcher = batcher();
    let record = run_one(&mut batcher, Request { choices: 3, ..request("a prompt", 0) });
    assert!(record.choices.iter().all(|choice| choice.finish == Some(FinishReason::Limit) && choice.tokens.is_empty()));
    assert_eq!(run_one(&mut batcher, request("a prompt!", 1)).only().usage.cached_tokens, 8);
}

#[test]
fn logits_that_are_no_numbers_fail_one_request() {
    for sampling in [SamplerOptions::greedy(), on_host(1)] {
        let (mut batcher, mut a, mut b) = two();
        let prompt = vec![POISON, 12, byte(b'x')];
        let bad = Request { prompt, sampling, choices: 3, ignore_end: true, ..Request::new(vec![], 40) };
        let mut bad = Record::new(bad.clone(), batcher.submit(bad).expect("sound"));
        run(&mut batcher, std::slice::from_mut(&mut bad));
        bad.check_ended();
        let error = bad.error.as_ref().expect("it failed");
        assert_eq!(error.kind(), ErrorKind::Numeric, "{error}");
        assert!(bad.choices.iter().all(|choice| choice.tokens.len() == 9 && choice.finish.is_none()));
        a.pump();
        assert_eq!(a.only().finish, Some(FinishReason::Limit));
        check_other(batcher, &mut b);
    }
}

#[test]
fn a_request_fails_as_a_whole() {
    let (mut batcher, _a, mut b) = two();
    batcher.compute_mut().poisoned_choice = Some(1);
    let bad = Request { choices: 3, ..request("three", 2000) };
    let mut bad = Record::new(bad.clone(), batcher.submit(bad).expect("sound"));
    while !bad.has_ended() {
        batcher.step().expect("it goes on");
        bad.pump();
    }
    bad.check_ended();
    assert!(bad.choices.iter().all(|choice| choice.finish.is_none() && choice.tokens.len() >= 3));
    batcher.step().expect("it goes on");
    assert_eq!(batcher.counts().running, 2, "its other choices are cancelled");
    check_other(batcher, &mut b);
}

#[test]
fn a_sampler_that_bans_every_token_fails_one_request() {
    let (mut batcher, _a, mut b) = two();
    let logit_bias = (0..VOCAB as u32).map(|token| (token, f32::NEG_INFINITY)).collect();
    let sampling = SamplerOptions { logit_bias, ..SamplerOptions::default() };
    let record = run_one(&mut batcher, Request { sampling, ..request("x", 5) });
    assert!(record.error.expect("it failed").to_string().contains("every token is banned"));
    check_other(batcher, &mut b);
}

#[test]
fn a_dropped_batcher_leaves_nobody_waiting() {
    let (batcher, mut a, _b) = two();
    drop(batcher);
    a.pump();
    assert!(a.error.as_ref().expect("it failed").to_string().contains("the engine stopped"));
    let handle = a.handle.as_mut().expect("there");
    assert!(matches!(handle.poll_event(&mut Context::from_waker(Waker::noop())), Poll::Ready(None)));
}
