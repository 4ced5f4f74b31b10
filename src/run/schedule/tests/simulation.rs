//! Everything at once, at random: submitted, cancelled, late, preempted, forked, lost; with windows, slots and few pages.

use super::*;
use crate::base::uniform;
use std::collections::BTreeMap;

/// Steps after which a sequence that nobody more urgent hinders must have had a row.
const PATIENCE: u64 = 250;

struct Random {
    seed: u64,
    step: u64,
}

impl Random {
    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        self.step += 1;
        (uniform(self.seed, self.step) * n as f32) as usize
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What is known of a request without asking the scheduler.
struct Known {
    request: Request,
    cancelled: bool,
}

/// What a run checks that it has seen.
#[derive(Debug, Default)]
struct Seen {
    steps: u64,
    preempted: u64,
    cached: usize,
    finished: BTreeMap<String, usize>,
}

struct Run {
    machine: Machine,
    random: Random,
    known: BTreeMap<RequestId, Known>,
    /// The step in which a running choice last had a row, or was admitted.
    served: BTreeMap<ChoiceId, u64>,
    seen: Seen,
}

impl Run {
    fn new(seed: u64, groups: &[(Option<usize>, usize)], slots: usize, settings: Settings) -> Self {
        let machine = Machine::new(spec(groups, slots), settings);
        let random = Random { seed, step: 0 };
        Run { machine, random, known: BTreeMap::new(), served: BTreeMap::new(), seen: Seen::default() }
    }

    fn operate(&mut self) {
        match self.random.below(100) {
            0..4 => self.submit(),
            4 if self.random.once_in(4) => self.cancel(),
            5 if self.random.once_in(20) => self.machine.reset(),
            6 if self.random.once_in(20) => self.machine.scheduler.forget_prefixes(),
            7..55 => self.plan(),
            _ => self.done(),
        }
    }

    fn submit(&mut self) {
        if self.machine.scheduler.counts().waiting > 12 {
            return;
        }
        let prompt = if self.machine.roles { self.prompt() } else { self.next_turn() };
        let random = &mut self.random;
        let request = Request {
            limit: [0, 1, 100, 250, 400][random.below(5)],
            choices: if random.once_in(5) { 1 + random.below(6) } else { 1 },
            priority: random.below(3) as i32 - 1,
            salt: [None, Some(0), Some(0), Some(1)][random.below(4)],
            cache_answer: true,
            deadline: random.once_in(6).then(|| self.machine.now + Duration::from_millis(random.below(3000) as u64)),
            sampling: if random.once_in(4) { Sampling::Host } else { Sampling::Device },
            prompt,
        };
        match self.machine.scheduler.submit(request.clone()) {
            Ok(id) => drop(self.known.insert(id, Known { request, cancelled: false })),
            Err(SubmitError::PromptTooLong { prompt, context }) => assert!(prompt > context),
            Err(error) => panic!("{error}"),
        }
    }

    /// A prompt that begins as others do.
    fn prompt(&mut self) -> Vec<Item> {
        let random = &mut self.random;
        let longest = if random.once_in(4) { 420 } else { 60 };
        let (text, n) = (random.below(4) as u32, 1 + random.below(longest));
        let shared = random.below(n + 1);
        let own = |i: usize| if i < shared { 1000 * text + i as u32 } else { 900_000 + random.seed as u32 };
        let mut prompt: Vec<_> = (0..n).map(own).map(|token| Item::Token(5000 + token)).collect();
        if shared < n {
            prompt[shared] = Item::Media { hash: random.step, row: 0 };
        }
        prompt
    }

    /// A conversation that goes on: another prompt, its answer, and some more.
    fn next_turn(&mut self) -> Vec<Item> {
        let more = self.prompt();
        let before = self.known.keys().nth_back(self.random.below(20));
        let Some(id) = before.filter(|_| !self.random.once_in(3)) else { return more };
        let answer = &self.machine.answer(*id).tokens;
        let mut turn = self.known[id].request.prompt.clone();
        turn.extend(answer.iter().map(|token| Item::Token(*token)));
        turn.extend(more.into_iter().take(20));
        turn
    }

    fn cancel(&mut self) {
        let live = |id: &ChoiceId| self.machine.answers.get(id).is_none_or(|answer| answer.finish.is_none());
        let live: Vec<_> = self.known.keys().copied().filter(|id| live(&first(*id))).collect();
        if let Some(id) = live.get(self.random.below(live.len().max(1))) {
            let was_there = self.machine.scheduler.cancel(*id);
            self.known.get_mut(id).expect("known").cancelled |= was_there;
            assert!(!self.machine.scheduler.cancel(*id), "it has ended");
            self.machine.take_events();
        }
    }

    fn plan(&mut self) {
        self.machine.now += Duration::from_millis(10);
        let in_flight = self.machine.scheduler.oldest().is_some();
        if !self.machine.plan() {
            assert!(in_flight || self.machine.scheduler.is_idle(), "{:?}", self.machine.scheduler.counts());
            return;
        }
        self.seen.steps += 1;
        self.check_step();
        self.check_progress();
        self.machine.check();
    }

    fn check_step(&mut self) {
        let (scheduler, step) = (&self.machine.scheduler, self.machine.step());
        let settings = &scheduler.settings;
        assert!(step.rows() > 0 && step.answers().len() <= settings.answer_rows);
        assert!(step.prompt_items().len() <= settings.prompt_rows && step.outputs().len() <= settings.outputs);
        assert!(scheduler.running.len() <= settings.sequences);
        assert!(scheduler.running.is_sorted_by_key(|running| running.urgency()));
        let rows = step.answers().iter().map(|row| (row.choice, row.position, row.position + 1));
        let pieces = step.pieces().iter().map(|piece| (piece.choice, piece.positions.start, piece.positions.end));
        for (choice, start, end) in rows.clone().chain(pieces) {
            let prompt = self.known[&choice.request].request.prompt.len();
            let is_answer = rows.clone().any(|row| row == (choice, start, end));
            assert!(end <= scheduler.context());
            assert!(if is_answer { start >= prompt } else { end <= prompt }, "a row keeps its role");
            self.served.insert(choice, self.seen.steps);
        }
    }

    /// The most urgent class progresses: nobody in it runs for long without a row.
    fn check_progress(&mut self) {
        let scheduler = &self.machine.scheduler;
        let running = scheduler.running.iter().map(|running| running.urgency());
        let best = running.clone().chain(scheduler.waiting.keys().copied()).map(|urgency| urgency.priority).min();
        let hindered = |priority: i32| best.is_some_and(|best| priority > best);
        let now = self.seen.steps;
        let ids: Vec<_> = running.clone().map(|urgency| urgency.id).collect();
        self.served.retain(|id, _| ids.contains(id));
        for urgency in running {
            let last = self.served.entry(urgency.id).or_insert(now);
            if hindered(urgency.priority) {
                *last = now;
            }
            assert!(
                now - *last < PATIENCE,
                "{urgency:?} had no row since step {last}, now it is {now}: {:#?}",
                scheduler.running
            );
        }
    }

    fn done(&mut self) {
        if self.machine.scheduler.oldest().is_none() {
            return;
        }
        let random = &mut self.random;
        self.machine.done_with(|_, token| match random.below(1000) {
            0 => Outcome::Failed,
            1..3 => Outcome::End,
            3..5 => Outcome::Last(token),
            _ => Outcome::Token(token),
        });
        self.machine.check();
    }

    /// Ends what is left, and compares every answer with that of its request alone.
    fn end(mut self) -> Seen {
        for _ in 0..100_000 {
            self.plan();
            self.done();
            if self.machine.scheduler.is_idle() {
                break;
            }
        }
        while self.machine.scheduler.oldest().is_some() {
            self.done();
        }
        assert!(self.machine.scheduler.is_idle(), "{:?}", self.machine.scheduler.counts());
        self.machine.check_empty();
        self.seen.preempted = self.machine.scheduler.counts().preemptions;
        for (id, known) in &self.known {
            for choice in 0..known.request.choices as u32 {
                let answer = &self.machine.answers[&ChoiceId { request: *id, choice }];
                verify(&self.machine, known, choice, answer);
                self.seen.cached += answer.cached.iter().sum::<usize>();
                let reason = format!("{:?}", answer.finish.expect("it ended"));
                *self.seen.finished.entry(reason).or_default() += 1;
            }
        }
        self.seen
    }
}

fn verify(machine: &Machine, known: &Known, choice: u32, answer: &machine::Answer) {
    let (request, tokens) = (&known.request, &answer.tokens);
    assert_eq!(*tokens, machine.expected(&request.prompt, choice, tokens.len()), "{request:?}, choice {choice}");
    let context = machine.scheduler.context();
    match answer.finish.expect("all that was submitted ends") {
        FinishReason::Limit => assert_eq!(tokens.len(), request.limit),
        FinishReason::Context => {
            assert!(tokens.len() < request.limit && request.prompt.len() + tokens.len() + 64 > context)
        }
        FinishReason::Cancelled => assert!(known.cancelled),
        FinishReason::Deadline => assert!(request.deadline.is_some()),
        FinishReason::Stop | FinishReason::Failed => {}
    }
}

fn run(seed: u64, groups: &[(Option<usize>, usize)], slots: usize, settings: Settings) {
    simulate(Run::new(seed, groups, slots, settings));
}

fn simulate(mut run: Run) {
    (0..60_000).for_each(|_| run.operate());
    let seen = run.end();
    assert!(seen.steps > 3000 && seen.cached > 1000, "{seen:?}");
    assert!(seen.preempted > 10, "{seen:?}");
    assert!(
        ["Limit", "Stop", "Cancelled", "Deadline", "Failed"].iter().all(|reason| seen.finished.contains_key(*reason))
    );
}

#[test]
fn every_request_gets_its_own_answer() {
    run(1, &[(None, 14)], 0, settings(8, 128, 64));
}

#[test]
fn every_request_gets_its_own_answer_in_small_steps() {
    let settings = Settings { answer_rows: 3, outputs: 6, context: 500, ..settings(6, 32, 16) };
    run(2, &[(None, 10)], 0, settings);
}

#[test]
fn every_request_gets_its_own_answer_with_a_window() {
    let settings = Settings { snapshot_interval: 128, ..settings(8, 64, 32) };
    run(3, &[(None, 16), (Some(100), 14)], 0, settings);
}

#[test]
fn every_request_gets_its_own_answer_with_windows_only() {
    run(4, &[(Some(64), 8), (Some(150), 10)], 0, Settings { context: 600, ..settings(8, 64, 64) });
}

#[test]
fn every_request_gets_its_own_answer_with_slots() {
    run(5, &[(None, 14)], 12, Settings { snapshot_interval: 100, ..settings(7, 128, 64) });
}

#[test]
fn every_request_gets_its_own_answer_with_windows_and_slots() {
    run(6, &[(Some(90), 10), (None, 13)], 10, Settings { outputs: 7, ..settings(16, 256, 128) });
}

#[test]
fn every_turn_of_a_conversation_gets_its_own_answer() {
    let pools: [(&[_], _); 3] = [(&[(None, 20)], 0), (&[(None, 20), (Some(100), 16)], 0), (&[(None, 20)], 14)];
    for ((groups, slots), seed) in pools.into_iter().zip(7..) {
        let mut run = Run::new(seed, groups, slots, settings(8, 128, 64));
        run.machine.roles = false;
        simulate(run);
    }
}
