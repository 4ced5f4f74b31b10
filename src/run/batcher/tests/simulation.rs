//! Everything at once, at random: many requests, few pages, cancelled, dropped, late, poisoned, forked; and devices that are lost.

use super::fake::{POISON, Seen, expected};
use super::*;
use crate::base::uniform;
use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Waker};

struct Simulation {
    batcher: Batcher<Fake>,
    windows: Vec<Option<usize>>,
    records: Vec<Record>,
    dice: (u64, u64),
    /// Whether futures of steps are dropped now and then.
    interrupts: bool,
}

#[derive(Debug, Default)]
struct Ends {
    seen: Seen,
    preempted: u64,
    cached: usize,
    finishes: BTreeMap<String, usize>,
}

impl Simulation {
    fn new(seed: u64, groups: &[(Option<usize>, usize)], settings: Settings, change: fn(&mut Fake)) -> Self {
        let mut fake = Fake::new(&spec(groups));
        change(&mut fake);
        let batcher = batcher_with(groups, settings, fake);
        let windows = groups.iter().map(|group| group.0).collect();
        Simulation { batcher, windows, records: Vec::new(), dice: (seed, 0), interrupts: false }
    }

    fn below(&mut self, n: usize) -> usize {
        self.dice.1 += 1;
        (uniform(self.dice.0, self.dice.1) * n as f32) as usize
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Prompts that begin as others do.
    fn prompt(&mut self) -> Vec<u32> {
        let longest = if self.once_in(4) { 300 } else { 60 };
        let (text, n) = (self.below(3), 2 + self.below(longest));
        let shared = self.below(n + 1);
        let own = self.below(50);
        let token = |i: usize| 3 + (if i < shared { 17 * text + i * i } else { own + i }) as u32 % 256;
        let mut prompt: Vec<_> = (0..n).map(token).collect();
        if self.windows == [None] && self.once_in(12) {
            (prompt[0], prompt[1]) = (POISON, (n + self.below(20)).min(250) as u32);
        }
        prompt
    }

    fn submit(&mut self) {
        if self.batcher.counts().waiting > 12 {
            return;
        }
        let mut request = Request::new(self.prompt(), [0, 1, 60, 120, 250][self.below(5)]);
        request.choices = if self.once_in(5) { 1 + self.below(5) } else { 1 };
        request.priority = self.below(3) as i32 - 1;
        request.salt = [None, Some(0), Some(0), Some(1)][self.below(4)];
        let deadline = if self.once_in(4) { 0 } else { self.below(50_000) as u64 };
        request.deadline = self.once_in(10).then_some(Duration::from_micros(deadline));
        request.ignore_end = self.once_in(2);
        request.logprobs = self.once_in(6).then_some(2);
        let seed = Some(self.below(1000) as u64);
        request.sampling = match self.below(4) {
            0 => on_host(7),
            1 => SamplerOptions::greedy(),
            _ => SamplerOptions::default(),
        };
        request.sampling.seed = seed;
        let handle = self.batcher.submit(request.clone()).expect("it can run");
        self.records.push(Record::new(request, handle));
    }

    /// Cancels one of those that have not ended, or drops its handle.
    fn cancel(&mut self) {
        let open = |record: &Record| record.handle.is_some() && !record.has_ended();
        let open: Vec<_> = (0..self.records.len()).filter(|i| open(&self.records[*i])).collect();
        let (picked, drops) = (self.below(open.len().max(1)), self.once_in(2));
        if let Some(i) = open.get(picked) {
            let record = &mut self.records[*i];
            record.cancelled = true;
            match drops {
                true => record.handle = None,
                false => record.handle.iter().for_each(Handle::cancel),
            }
        }
    }

    fn step(&mut self) -> bool {
        let left = if self.interrupts && self.once_in(20) {
            let step = pin!(self.batcher.step_async());
            let _ = step.poll(&mut Context::from_waker(Waker::noop()));
            true
        } else {
            self.batcher.step().expect("the engine recovers")
        };
        self.batcher.scheduler().pool().check().unwrap_or_else(|e| panic!("{e}"));
        self.records.iter_mut().for_each(Record::pump);
        left
    }

    fn run(mut self, operations: usize) -> Ends {
        for _ in 0..operations {
            match self.below(100) {
                0..14 => self.submit(),
                14..17 => self.cancel(),
                17 if self.once_in(10) => self.batcher.forget_prefixes(),
                _ => drop(self.step()),
            }
        }
        self.interrupts = false;
        assert!((0..100_000).any(|_| !self.step()), "{:?}", self.batcher.counts());
        let mut ends = Ends { seen: self.batcher.compute().seen, ..Ends::default() };
        ends.preempted = self.batcher.counts().preemptions;
        check_empty(&mut self.batcher);
        let context = self.batcher.scheduler().context();
        for record in &mut self.records {
            if record.handle.is_some() {
                record.check_ended();
                verify(&self.windows, record, context, &mut ends);
            }
        }
        ends
    }
}

/// Compares a request with what it gets alone.
fn verify(windows: &[Option<usize>], record: &Record, context: usize, ends: &mut Ends) {
    let request = &record.request;
    let mut poisoned = false;
    for (i, choice) in record.choices.iter().enumerate() {
        let room = context + 1 - request.prompt.len();
        let (tokens, finish) = expected(windows, request, i, record.seed, room);
        poisoned |= finish == Some(FinishReason::Failed);
        assert_eq!(choice.tokens, tokens[..choice.tokens.len().min(tokens.len())], "{request:?}, choice {i}");
        let Some(reason) = choice.finish else { continue };
        let whole = choice.tokens.len() == tokens.len();
        match reason {
            FinishReason::Limit | FinishReason::Stop => {
                assert!(whole && finish == Some(reason), "{reason:?} {finish:?}")
            }
            FinishReason::Context => assert!(request.prompt.len() + choice.tokens.len() + 64 > context),
            FinishReason::Cancelled => assert!(record.cancelled),
            FinishReason::Deadline => assert!(request.deadline.is_some()),
            FinishReason::Failed => panic!("reported as a failure of the request"),
        }
        assert_eq!(choice.logprobs.len(), request.logprobs.map_or(0, |_| choice.tokens.len()));
        ends.cached += choice.usage.cached_tokens;
        *ends.finishes.entry(format!("{reason:?}")).or_default() += 1;
    }
    if let Some(error) = &record.error {
        assert!(poisoned && error.kind() == ErrorKind::Numeric, "{error}");
        *ends.finishes.entry("Failed".to_owned()).or_default() += 1;
    }
}

/// Steps take some hundred microseconds, so that the rows of prompts beside answers vary with the clock.
fn settings(sequences: usize, prompt_rows: usize) -> Settings {
    Settings { sequences, prompt_rows, step_time: Duration::from_micros(100), ..Settings::default() }
}

fn check(ends: &Ends) {
    let reasons = ["Limit", "Stop", "Cancelled", "Deadline"];
    assert!(reasons.iter().all(|reason| ends.finishes.contains_key(*reason)), "{ends:?}");
    assert!(ends.seen.steps > 1000 && ends.cached > 100, "{ends:?}");
}

#[test]
fn every_request_gets_what_it_gets_alone() {
    let ends = Simulation::new(1, &[(None, 10)], settings(8, 128), |_| {}).run(6000);
    check(&ends);
    assert!(ends.preempted > 3 && ends.seen.copies > 10 && ends.finishes.contains_key("Failed"), "{ends:?}");
    assert!(ends.seen.ahead > 500 && ends.seen.resolved == 0, "{ends:?}");
}

#[test]
fn every_request_gets_what_it_gets_alone_if_the_engine_does_not_run_ahead() {
    for (seed, plans) in [(2, true), (3, false)] {
        let change: fn(&mut Fake) = match plans {
            true => |fake| fake.ahead = 0,
            false => |fake| fake.plans_ahead = false,
        };
        let ends = Simulation::new(seed, &[(None, 10)], settings(6, 64), change).run(6000);
        check(&ends);
        assert!(ends.preempted > 3 && ends.seen.ahead == 0 && (ends.seen.resolved > 100) == plans, "{ends:?}");
    }
}

#[test]
fn every_request_gets_what_it_gets_alone_in_small_steps() {
    let settings = Settings { answer_rows: 3, outputs: 6, context: 400, ..settings(6, 32) };
    let ends = Simulation::new(4, &[(None, 9)], settings, |fake| fake.ahead = 2).run(6000);
    check(&ends);
    assert!(ends.seen.ahead > 100 && ends.seen.resolved > 100, "{ends:?}");
}

#[test]
fn every_request_gets_what_it_gets_alone_with_a_window() {
    let settings = Settings { snapshot_interval: 128, ..settings(8, 64) };
    check(&Simulation::new(5, &[(None, 16), (Some(100), 14)], settings, |fake| fake.ahead = 3).run(6000));
}

#[test]
fn every_request_gets_what_it_gets_alone_if_devices_are_lost() {
    let change = |fake: &mut Fake| (fake.fails, fake.ahead) = (60, 2);
    let ends = Simulation::new(6, &[(None, 14)], settings(8, 128), change).run(6000);
    check(&ends);
    assert!(ends.seen.lost > 50, "{ends:?}");
}

#[test]
fn every_request_gets_what_it_gets_alone_if_steps_are_dropped() {
    let change = |fake: &mut Fake| (fake.fails, fake.ahead) = (200, 2);
    let mut simulation = Simulation::new(7, &[(None, 14)], settings(8, 128), change);
    simulation.interrupts = true;
    check(&simulation.run(6000));
}
