//! The batcher on its own thread.

use super::fake::expected;
use super::*;
use crate::run::schedule::SubmitError;
use std::error::Error as _;
use std::sync::Weak;

/// Waits for the end of the thread, which owns the engine.
fn wait_for_end(alive: &Weak<()>) {
    for _ in 0..5000 {
        if alive.strong_count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the thread runs on");
}

fn spawned(settings: Settings, change: impl FnOnce(&mut Fake)) -> (Client, Weak<()>) {
    let mut fake = Fake::new(&spec(&[(None, 30)]));
    change(&mut fake);
    let alive = Arc::downgrade(&fake.alive);
    (batcher_with(&[(None, 30)], settings, fake).spawn().expect("a thread"), alive)
}

fn verify(record: &mut Record) {
    record.check_ended();
    for (i, choice) in record.choices.iter().enumerate() {
        assert_eq!(choice.tokens, expected(&[None], &record.request, i, record.seed, 1000).0);
    }
}

#[test]
fn clients_on_many_threads_are_answered() {
    let (client, alive) = spawned(Settings { sequences: 5, ..Settings::default() }, |fake| fake.fails = 100);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let client = client.clone();
            scope.spawn(move || {
                for i in 0..8 {
                    let sampling = if i % 2 == 0 { on_host(i) } else { SamplerOptions::default() };
                    let request = Request { sampling, ..request(&format!("{thread} asks {i}"), 20) };
                    let mut record = Record::new(request.clone(), client.submit(request).expect("sound"));
                    match i {
                        3 => drop(record),
                        4 => {
                            let canceller = record.handle.as_ref().map(Handle::canceller);
                            scope.spawn(move || canceller.into_iter().for_each(|canceller| canceller.cancel()));
                            record.wait();
                            assert!(matches!(
                                record.only().finish,
                                Some(FinishReason::Cancelled | FinishReason::Limit)
                            ));
                        }
                        _ => {
                            record.wait();
                            verify(&mut record);
                        }
                    }
                }
            });
        }
    });
    assert!(client.counts().preemptions == 0 && alive.strong_count() == 1 && client.context() > 1000);
    client.forget_prefixes();
    drop(client);
    wait_for_end(&alive);
}

#[test]
fn the_thread_ends_when_all_clients_are_gone_and_all_work_is_done() {
    let (client, alive) = spawned(Settings::default(), |_| {});
    let request = Request { choices: 3, ..request("the last", 60) };
    let mut record = Record::new(request.clone(), client.clone().submit(request).expect("sound"));
    drop(client);
    record.wait();
    verify(&mut record);
    wait_for_end(&alive);
}

#[test]
fn a_client_can_have_prefixes_forgotten() {
    let (client, _alive) = spawned(Settings::default(), |_| {});
    let cached = [false, false, true].map(|forgets| {
        if forgets {
            client.forget_prefixes();
        }
        let request = request("the same", 2);
        let mut record = Record::new(request.clone(), client.submit(request).expect("sound"));
        record.wait();
        record.only().usage.cached_tokens
    });
    assert_eq!(cached, [0, 7, 0]);
}

#[test]
fn events_can_be_awaited() {
    let (client, _alive) = spawned(Settings::default(), |_| {});
    let submit = |prompt: &str| {
        let request = request(prompt, 30);
        Record::new(request.clone(), client.submit(request).expect("sound"))
    };
    let [mut a, mut b] = ["one", "two"].map(submit);
    pollster::block_on(async {
        for record in [&mut a, &mut b] {
            let mut handle = record.handle.take().expect("there");
            while let Some(event) = handle.next_event().await {
                record.take(event);
            }
        }
    });
    [a, b].iter_mut().for_each(verify);
}

#[test]
fn every_handle_reports_that_the_engine_failed_for_good() {
    let (client, alive) = spawned(Settings::default(), |fake| (fake.fails, fake.fails_for_good) = (40, true));
    let requests = (0..10).map(|i| request(&format!("request {i}"), 1000));
    let submit = |request: Request| Some(Record::new(request.clone(), client.submit(request).ok()?));
    let mut records: Vec<_> = requests.filter_map(submit).collect();
    records.iter_mut().for_each(Record::wait);
    wait_for_end(&alive);
    assert!(!records.is_empty());
    for record in &mut records {
        record.check_ended();
        assert!(record.error.as_ref().expect("it failed").to_string().contains("the device is lost; buy another"));
    }
    assert!(client.submit(request("late", 1)).expect_err("nothing is taken").to_string().contains("buy another"));
}

#[test]
fn nobody_waits_for_a_thread_that_panicked() {
    let (client, alive) = spawned(Settings::default(), |fake| fake.panics_at = 5);
    let request = request("prompt", 100);
    let mut record = Record::new(request.clone(), client.submit(request.clone()).expect("sound"));
    record.wait();
    record.check_ended();
    assert!(record.error.as_ref().expect("it failed").to_string().contains("the engine stopped"));
    wait_for_end(&alive);
    assert!(client.submit(request).expect_err("nothing is taken").to_string().contains("the engine has stopped"));
}

#[test]
fn a_full_queue_is_reported_at_once() {
    let (client, _alive) = spawned(Settings { queue: 0, ..Settings::default() }, |_| {});
    let error = client.submit(request("x", 1)).expect_err("full");
    let source = error.source().and_then(|source| source.downcast_ref::<SubmitError>());
    assert_eq!(source, Some(&SubmitError::QueueFull { waiting: 0 }));
}
