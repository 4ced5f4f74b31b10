//! Devices that are lost, and steps that are given up.

use super::fake::expected;
use super::*;
use std::pin::pin;
use std::task::{Context, Waker};

/// Requests of all kinds, some of them not admitted at first.
fn requests() -> Vec<Request> {
    let kinds = [SamplerOptions { seed: Some(1), ..SamplerOptions::default() }, on_host(2)];
    let all = (0..6).map(|i| Request {
        sampling: kinds[i % 2].clone(),
        choices: 1 + i / 4,
        ..request(&format!("request {i}"), 12)
    });
    all.collect()
}

/// Answers them, `disturb` being called before each step; returns how many steps there were.
fn answer(mut disturb: impl FnMut(&mut Batcher<Fake>, usize)) -> usize {
    let mut batcher =
        batcher_with(&[(None, 20)], Settings { sequences: 4, ..Settings::default() }, Fake::new(&spec(&[(None, 20)])));
    let submit = |request: Request| Record::new(request.clone(), batcher.submit(request).expect("sound"));
    let mut records: Vec<_> = requests().into_iter().map(submit).collect();
    let mut steps = 0;
    loop {
        disturb(&mut batcher, steps);
        let left = batcher.step().expect("the engine recovers");
        batcher.compute_mut().fails = 0;
        records.iter_mut().for_each(Record::pump);
        steps += 1;
        if !left {
            break;
        }
    }
    for record in &mut records {
        record.check_ended();
        for (i, choice) in record.choices.iter().enumerate() {
            assert_eq!(choice.tokens, expected(&[None], &record.request, i, record.seed, 1000).0);
        }
    }
    check_empty(&mut batcher);
    steps
}

#[test]
fn a_lost_device_changes_no_token() {
    let steps = answer(|_, _| {});
    for lost in 0..steps {
        assert!(answer(|batcher, step| batcher.compute_mut().fails = (step == lost) as usize) > steps.min(lost + 1));
        answer(|batcher, step| batcher.compute_mut().fails = 2 * (step % (lost + 2) == 0) as usize);
    }
}

#[test]
fn what_is_computed_again_was_not_cached() {
    let mut batcher = batcher();
    let prompt = "z".repeat(200);
    let submit = |batcher: &mut Batcher<Fake>, priority| {
        let request = Request { priority, ..request(&prompt, 20) };
        let record = Record::new(request.clone(), batcher.submit(request).expect("sound"));
        (0..4).for_each(|_| assert!(batcher.step().expect("it goes on")));
        record
    };
    let mut records = [1, 0].map(|priority| submit(&mut batcher, priority));
    // Now the second goes first, and the first one finds its own prompt cached.
    batcher.compute_mut().fails = 1;
    batcher.step().expect("it recovers");
    batcher.compute_mut().fails = 0;
    run(&mut batcher, &mut records);
    assert_eq!(records.map(|record| record.only().usage.cached_tokens), [0, 199]);
    check_empty(&mut batcher);
}

#[test]
fn a_step_that_was_dropped_is_computed_again() {
    for dropped in 0..30 {
        answer(|batcher, step| {
            if step == dropped {
                let future = pin!(batcher.step_async());
                assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_pending());
            }
        });
    }
}

#[test]
fn every_request_fails_if_nothing_takes_over() {
    let mut batcher = batcher();
    let submit = |request: Request| Record::new(request.clone(), batcher.submit(request).expect("sound"));
    let mut records: Vec<_> = requests().into_iter().map(submit).collect();
    for _ in 0..4 {
        batcher.step().expect("it goes on");
    }
    (batcher.compute_mut().fails, batcher.compute_mut().fails_for_good) = (1, true);
    let error = batcher.step().expect_err("for good");
    assert_eq!(error.to_string(), "the device is lost; buy another");
    for record in &mut records {
        record.pump();
        record.check_ended();
        let failed = record.error.as_ref().expect("it failed");
        assert_eq!((failed.kind(), failed.to_string()), (ErrorKind::DeviceLost, error.to_string()));
    }
    let refused = batcher.submit(request("late", 1)).expect_err("nothing is taken");
    assert_eq!(refused.to_string(), error.to_string());
    assert_eq!(batcher.step().expect_err("nothing goes on").to_string(), error.to_string());
    check_empty(&mut batcher);
}
