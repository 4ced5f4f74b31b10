//! An engine made of arrays. A cell is a hash of what its row reads: the cell before, the first cell of the window, the state
//! before, the item and its role. So a token that is drawn is right only if all rows before it were.

use super::*;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The token drawn from a value, for a choice's draw number `index`; prompts have none of these.
fn draw(value: u64, choice: u32, index: usize) -> u32 {
    (hash((value, choice, index)) % 900) as u32
}

/// Values of the rows of one sequence, computed alone.
struct Alone<'a> {
    windows: &'a [Option<usize>],
    values: Vec<u64>,
    state: Option<u64>,
    roles: bool,
}

impl Alone<'_> {
    fn feed(&mut self, item: Item, answer: bool) {
        let answer = answer && self.roles;
        let position = self.values.len();
        self.state = self.state.map(|state| hash((state, item, answer)));
        let read = |at: usize| self.values.get(at).copied().unwrap_or(0);
        let mut value = self.state.unwrap_or(hash((0u64, item, answer)));
        for window in self.windows {
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            value = hash((value, read(position.saturating_sub(1)), read(first)));
        }
        self.values.push(value);
    }
}

/// The first `n` tokens of an answer.
fn expected(mut alone: Alone<'_>, prompt: &[Item], choice: u32, n: usize) -> Vec<u32> {
    prompt.iter().for_each(|item| alone.feed(*item, false));
    let token = |index: usize| {
        let token = draw(alone.values[alone.values.len() - 1], choice, index);
        alone.feed(Item::Token(token), true);
        token
    };
    (0..n).map(token).collect()
}

/// What became of a choice.
#[derive(Debug, Default, Clone)]
pub(super) struct Answer {
    pub tokens: Vec<u32>,
    pub finish: Option<FinishReason>,
    pub preempted: usize,
    pub cached: Vec<usize>,
}

pub(super) struct Machine {
    pub scheduler: Scheduler,
    pub windows: Vec<Option<usize>>,
    /// By group and cell.
    cells: Vec<Vec<u64>>,
    /// By slot. The state after a row has its item hashed in, so that a row that is computed twice shows.
    states: Vec<u64>,
    /// Tokens drawn in the steps in flight, by output.
    drawn: VecDeque<Vec<u32>>,
    pub answers: HashMap<ChoiceId, Answer>,
    /// Whether cells depend on roles. Those of an answer are shared by prompts that have it in them.
    pub roles: bool,
    pub now: Duration,
}

impl Machine {
    pub fn new(spec: PoolSpec, settings: Settings) -> Self {
        let windows = spec.groups.iter().map(|group| group.window).collect();
        let cells = spec.groups.iter().map(|group| vec![!0; group.pages * 64]).collect();
        let states = vec![!0; spec.slots];
        let (scheduler, drawn, answers) = (Scheduler::new(spec, settings), VecDeque::new(), HashMap::new());
        Machine { scheduler, windows, cells, states, drawn, answers, roles: true, now: Duration::ZERO }
    }

    pub fn submit(&mut self, request: Request) -> RequestId {
        self.scheduler.submit(request).expect("it can run")
    }

    /// Plans a step, and computes it.
    pub fn plan(&mut self) -> bool {
        let planned = self.scheduler.plan(self.now);
        if planned {
            self.compute();
        }
        self.take_events();
        planned
    }

    /// The step that was planned last.
    pub fn step(&self) -> &Step {
        self.scheduler.newest().expect("a step is in flight")
    }

    fn compute(&mut self) {
        let Machine { scheduler, windows, cells, states, drawn, roles, .. } = self;
        let (step, pool) = (scheduler.newest().expect("planned"), scheduler.pool());
        for copy in step.page_copies() {
            let (from, to) = (copy.from as usize * 64, copy.to as usize * 64);
            cells[copy.group].copy_within(from..from + copy.cells, to);
        }
        for copy in step.slot_copies() {
            states[copy.to as usize] = copy.from.map_or(0, |from| states[from as usize]);
        }
        let before = drawn.back();
        let answers = step.answers().iter().map(|row| {
            let token = match row.token {
                TokenSource::Host(token) => token,
                TokenSource::Device { output } => before.expect("a step is in flight")[output],
            };
            (row.seq, row.position, Item::Token(token), *roles)
        });
        let prompts = step.pieces().iter().flat_map(|piece| {
            let items = &step.prompt_items()[piece.items.clone()];
            piece.positions.clone().zip(items).map(|(position, item)| (piece.seq, position, *item, false))
        });
        let mut values = Vec::new();
        for (seq, position, item, answer) in answers.chain(prompts) {
            let mut value = hash((0u64, item, answer));
            if let Some(slot) = pool.slot(seq) {
                states[slot as usize] = hash((states[slot as usize], item, answer));
                value = states[slot as usize];
            }
            let cell = |group: usize, at: usize| {
                let page = pool.table(seq, group)[at / 64];
                assert_ne!(page, 0, "position {at} of group {group} is gone");
                page as usize * 64 + at % 64
            };
            for group in 0..cells.len() {
                let first = windows[group].map_or(0, |window| (position + 1).saturating_sub(window));
                let read = |at: usize| if at < position { cells[group][cell(group, at)] } else { 0 };
                value = hash((value, read(position.saturating_sub(1)), read(first)));
            }
            (0..cells.len()).for_each(|group| cells[group][cell(group, position)] = value);
            values.push(value);
        }
        let tokens = step.outputs().iter().map(|output| draw(values[output.row], output.choice.choice, output.index));
        let tokens = tokens.collect();
        drawn.push_back(tokens);
    }

    /// Ends the oldest step in flight; an output's outcome is what `outcome` makes of its token.
    pub fn done_with(&mut self, mut outcome: impl FnMut(&Output, u32) -> Outcome) {
        let step = self.scheduler.oldest().expect("a step is in flight");
        let tokens = self.drawn.pop_front().expect("computed");
        let outcomes: Vec<_> =
            step.outputs().iter().zip(tokens).map(|(output, token)| outcome(output, token)).collect();
        let number = step.number();
        self.scheduler.done(number, Duration::ZERO, &outcomes).expect("the oldest step");
        self.take_events();
    }

    /// Ends the oldest step in flight; all answers go on.
    pub fn done(&mut self) {
        self.done_with(|_, token| Outcome::Token(token));
    }

    /// Plans, computes and ends a step.
    pub fn turn(&mut self) -> bool {
        let planned = self.plan();
        if planned {
            self.done();
        }
        planned
    }

    /// Steps until nothing is left; returns how many.
    pub fn finish(&mut self) -> usize {
        let steps = (0..100_000).take_while(|_| self.turn()).count();
        assert!(self.scheduler.is_idle(), "{:?} after {steps} steps", self.scheduler.counts());
        steps
    }

    /// The device is lost, with all that lay on it.
    pub fn reset(&mut self) {
        self.scheduler.reset();
        self.drawn.clear();
        self.cells.iter_mut().for_each(|cells| cells.fill(!0));
        self.states.fill(!0);
        self.take_events();
    }

    pub fn take_events(&mut self) {
        for event in self.scheduler.drain_events() {
            let (Event::Admitted { choice, .. }
            | Event::Shared { choice, .. }
            | Event::Token { choice, .. }
            | Event::Preempted { choice }
            | Event::Finished { choice, .. }) = event;
            let answer = self.answers.entry(choice).or_default();
            assert_eq!(answer.finish, None, "{event:?} after the end");
            match event {
                Event::Admitted { cached, .. } | Event::Shared { cached, .. } => answer.cached.push(cached),
                Event::Preempted { .. } => answer.preempted += 1,
                Event::Token { index, token, .. } => {
                    assert_eq!(index, answer.tokens.len(), "tokens come once and in order");
                    answer.tokens.push(token);
                }
                Event::Finished { reason, tokens, .. } => {
                    assert_eq!(tokens, answer.tokens.len());
                    answer.finish = Some(reason);
                }
            }
        }
    }

    /// What became of a request's first choice.
    pub fn answer(&self, request: RequestId) -> Answer {
        self.answers.get(&first(request)).cloned().unwrap_or_default()
    }

    /// The first `n` tokens of an answer to a prompt, if nothing else runs.
    pub fn expected(&self, prompt: &[Item], choice: u32, n: usize) -> Vec<u32> {
        let state = (!self.states.is_empty()).then_some(0);
        let alone = Alone { windows: &self.windows, values: Vec::new(), state, roles: self.roles };
        expected(alone, prompt, choice, n)
    }

    /// The books agree with themselves.
    pub fn check(&self) {
        self.scheduler.pool().check().unwrap_or_else(|e| panic!("{e}"));
    }

    /// Every page is free once the tree is empty.
    pub fn check_empty(&mut self) {
        assert_eq!(self.scheduler.pool().sequences(), 0);
        self.check();
        for forgotten in [false, true] {
            for group in 0..self.windows.len() {
                let usage = self.scheduler.pool().usage(group);
                assert_eq!(usage.free + usage.evictable, usage.pages, "pages of group {group} are lost");
                assert!(!forgotten || usage.free == usage.pages);
            }
            self.scheduler.forget_prefixes();
        }
        self.check();
    }
}
