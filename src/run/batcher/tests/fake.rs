//! An engine made of arrays. A cell holds the token of its row; a row's logits are a hash of all tokens that it reads through the
//! tables. So a token that is drawn is right only if all rows before it were, and tables and copies too.

use super::*;
use crate::base::{Error, Result, uniform};
use crate::ops::{DrawNumber, Sample, SampleParams, Threads};
use crate::run::schedule::{Step, TokenSource};
use crate::state::{Item, Pool};
use std::collections::{HashMap, VecDeque};
use std::sync::Weak;
use std::task::Poll;

/// Prompts that begin with it are poisoned from a length on: that of their second token.
pub(super) const POISON: u32 = 0;

fn mix(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Hash of what the last row of `tokens` reads.
fn read(windows: &[Option<usize>], tokens: &[u32]) -> u64 {
    let of = |window: &Option<usize>| &tokens[window.map_or(0, |window| tokens.len().saturating_sub(window))..];
    let all = windows.iter().flat_map(|window| of(window).iter());
    all.fold(tokens.len() as u64, |hash, token| mix(hash, *token as u64 + 1))
}

/// Logits of a row.
pub(super) fn logits(hash: u64) -> impl Iterator<Item = f32> {
    (0..VOCAB as u64).map(move |token| (mix(mix(hash, token), 7) >> 40) as f32 / (1 << 21) as f32)
}

/// The token that the device draws from a row at draw number `index`.
pub(super) fn device_draw(hash: u64, seed: u64, index: u32) -> u32 {
    (mix(mix(hash, seed), index as u64) >> 20) as u32 % VOCAB as u32
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Seen {
    pub steps: u64,
    /// Steps that were submitted before the one before was read.
    pub ahead: u64,
    /// Steps that waited for the tokens of the one before.
    pub resolved: u64,
    pub lost: u64,
    pub copies: u64,
}

pub(super) struct Fake {
    windows: Vec<Option<usize>>,
    /// By group and cell.
    cells: Vec<Vec<u32>>,
    /// Once in how many times it runs ahead; 0: never.
    pub ahead: usize,
    pub plans_ahead: bool,
    /// Once in how many submits and finishes the device is lost; 0: never.
    pub fails: usize,
    /// Whether nothing takes over if it is lost.
    pub fails_for_good: bool,
    /// Answers by the one token of a prompt.
    pub scripts: HashMap<u32, Vec<u32>>,
    /// Choices of this index are poisoned from their fourth token on.
    pub poisoned_choice: Option<u32>,
    /// Number of the step that panics; 0: none.
    pub panics_at: u64,
    pub threads: Option<&'static (dyn Threads + Send + Sync)>,
    pub seen: Seen,
    /// Kept as long as the engine lives.
    pub alive: Arc<()>,
    /// Numbers of the steps in flight, the oldest first. Those that were dropped do not count.
    flight: VecDeque<(u64, Weak<()>)>,
    /// Tokens of the step that was submitted last.
    last: Vec<u32>,
    dice: u64,
}

pub(super) struct Pending {
    number: u64,
    results: Results,
    held: Arc<()>,
}

impl Fake {
    pub fn new(spec: &PoolSpec) -> Self {
        Fake {
            windows: spec.groups.iter().map(|group| group.window).collect(),
            cells: spec.groups.iter().map(|group| vec![!0; group.pages * 64]).collect(),
            ahead: 1,
            plans_ahead: true,
            fails: 0,
            fails_for_good: false,
            scripts: HashMap::new(),
            poisoned_choice: None,
            panics_at: 0,
            threads: None,
            seen: Seen::default(),
            alive: Arc::default(),
            flight: VecDeque::new(),
            last: Vec::new(),
            dice: 0,
        }
    }

    pub fn groups(&self) -> usize {
        self.windows.len()
    }

    fn once_in(&self, n: usize, salt: u64) -> bool {
        n > 0 && (uniform(salt, self.dice) * n as f32) as usize == 0
    }

    fn maybe_lost(&mut self) -> Result<()> {
        self.dice += 1;
        match self.once_in(self.fails, 1) {
            true => Err(Error::new(ErrorKind::DeviceLost, "the device is lost")),
            false => Ok(()),
        }
    }

    /// The cell of a position, by the tables.
    fn cell(pool: &Pool, seq: crate::state::SeqId, group: usize, position: usize) -> usize {
        let page = pool.table(seq, group)[position / 64];
        assert_ne!(page, 0, "position {position} of group {group} is gone");
        page as usize * 64 + position % 64
    }

    /// Hash of what each row reads, and whether it is poisoned or its token is scripted.
    fn rows(&mut self, step: &Step, pool: &Pool, before: Option<&[u32]>) -> Vec<(u64, bool, Option<u32>)> {
        for copy in step.page_copies() {
            let (from, to) = (copy.from as usize * 64, copy.to as usize * 64);
            self.cells[copy.group].copy_within(from..from + copy.cells, to);
            self.seen.copies += 1;
        }
        let answers = step.answers().iter().map(|row| match row.token {
            TokenSource::Host(token) => (row.seq, row.position, token),
            TokenSource::Device { output } => (row.seq, row.position, before.expect("a step is before")[output]),
        });
        let prompts = step.pieces().iter().flat_map(|piece| {
            piece.positions.clone().zip(&step.prompt_items()[piece.items.clone()]).map(|(position, item)| match item {
                Item::Token(token) => (piece.seq, position, *token),
                Item::Media { .. } => unreachable!("prompts are tokens"),
            })
        });
        let rows: Vec<_> = answers.chain(prompts).collect();
        for (seq, position, token) in &rows {
            (0..self.groups()).for_each(|g| self.cells[g][Self::cell(pool, *seq, g, *position)] = *token);
        }
        let look = |(seq, position, _): &(_, usize, _)| {
            let (mut hash, mut all) = (*position as u64 + 1, Vec::new());
            for (g, window) in self.windows.iter().enumerate() {
                let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
                all = (first..=*position).map(|at| self.cells[g][Self::cell(pool, *seq, g, at)]).collect();
                hash = all.iter().fold(hash, |hash, token| mix(hash, *token as u64 + 1));
            }
            (
                hash,
                all.len() == position + 1 && is_poisoned(&all),
                self.scripts.get(&all[0]).and_then(|script| script.get(*position).copied()),
            )
        };
        rows.iter().map(look).collect()
    }
}

/// Whether the last row of these tokens is.
fn is_poisoned(tokens: &[u32]) -> bool {
    tokens.first() == Some(&POISON) && tokens.len() > 1 && tokens.len() >= tokens[1] as usize
}

impl Compute for Fake {
    type Pending = Pending;

    fn plans_ahead(&self) -> bool {
        self.plans_ahead
    }

    fn runs_ahead(&self, before: &Step, next: &Step) -> bool {
        assert!(before.number() < next.number() && self.flight.back().is_some_and(|last| last.0 == before.number()));
        self.once_in(self.ahead, 2)
    }

    async fn submit(&mut self, step: &Step, pool: &Pool, draws: &[Draw], drawn: Option<&[u32]>) -> Result<Pending> {
        self.maybe_lost()?;
        assert_ne!(step.number(), self.panics_at, "asked for");
        self.flight.retain(|(_, held)| held.strong_count() > 0);
        assert!(self.flight.len() < 2 && draws.len() == step.outputs().len());
        let waits = step.answers().iter().any(|row| matches!(row.token, TokenSource::Device { .. }));
        if let Some(drawn) = drawn {
            assert!(self.flight.is_empty() && drawn.iter().all(|token| (*token as usize) < VOCAB));
            let same = drawn.iter().zip(&self.last).all(|(a, b)| a == b || *b == Sample::POISONED);
            assert!(same && drawn.len() == self.last.len());
            self.seen.resolved += waits as u64;
        } else {
            assert!(!waits || self.flight.len() == 1);
            self.seen.ahead += !self.flight.is_empty() as u64;
        }
        let before = drawn.map(<[u32]>::to_vec).unwrap_or_else(|| self.last.clone());
        let rows = self.rows(step, pool, Some(&before));
        let mut results = Results::default();
        for (output, draw) in step.outputs().iter().zip(draws) {
            let (hash, poisoned, script) = rows[output.row];
            let poisoned = poisoned || (self.poisoned_choice == Some(output.choice.choice) && output.index >= 3);
            let token = match draw {
                Draw::Host => {
                    let row = logits(hash).map(|logit| if poisoned { f32::NAN } else { logit });
                    results.logits.extend(row);
                    !0
                }
                Draw::Device(_) if poisoned => Sample::POISONED,
                Draw::Device(SampleParams { seed, draw, .. }) => {
                    // If the request was dropped, the parameters are any.
                    let index = match draw {
                        DrawNumber::From(first) => step_index(step, output.row).wrapping_sub(*first),
                        DrawNumber::Is(_) => output.index as u32,
                    };
                    assert_eq!(index as usize, output.index, "draws are counted by position");
                    script.unwrap_or(device_draw(hash, *seed, index))
                }
            };
            results.tokens.push(token);
        }
        self.last = results.tokens.clone();
        let held = Arc::new(());
        self.flight.push_back((step.number(), Arc::downgrade(&held)));
        self.seen.steps += 1;
        Ok(Pending { number: step.number(), results, held })
    }

    async fn finish(&mut self, pending: Pending, results: &mut Results) -> Result<()> {
        self.maybe_lost()?;
        let mut asked = false;
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.flight.retain(|(_, held)| held.strong_count() > 0);
        assert_eq!(self.flight.pop_front().map(|(number, _)| number), Some(pending.number), "in order");
        drop(pending.held);
        assert!(results.tokens.is_empty() && results.logits.is_empty());
        *results = pending.results;
        Ok(())
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        assert_eq!(error.kind(), ErrorKind::DeviceLost);
        self.seen.lost += 1;
        self.flight.clear();
        self.last.clear();
        self.cells.iter_mut().for_each(|cells| cells.fill(!0));
        if self.fails_for_good { Err(error.help("buy another")) } else { Ok(()) }
    }

    fn threads(&self) -> Option<&dyn Threads> {
        self.threads.map(|threads| threads as &dyn Threads)
    }
}

/// Position of the token that a row draws.
fn step_index(step: &Step, row: usize) -> u32 {
    let answers = step.answers().iter().map(|row| row.position);
    let prompts = step.pieces().iter().flat_map(|piece| piece.positions.clone());
    answers.chain(prompts).nth(row).expect("a row") as u32 + 1
}

/// What a request gets alone: tokens, and why it ends, if not for the length of a sequence.
pub(super) fn expected(
    windows: &[Option<usize>],
    request: &Request,
    choice: usize,
    seed: u64,
    most: usize,
) -> (Vec<u32>, Option<FinishReason>) {
    let seed = super::super::intake::seed_of(seed, choice);
    let options = SamplerOptions { seed: Some(seed), ..request.sampling.clone() };
    let mut sampler = vocabulary().sampler(&options, 1000).expect("sound");
    let device = sampler.device_plan().is_some() && request.logprobs.is_none();
    let mut tokens = request.prompt.clone();
    let first = tokens.len();
    while tokens.len() - first < request.limit.min(most) {
        let hash = read(windows, &tokens);
        let index = (tokens.len() - first) as u32;
        let token = match device {
            _ if is_poisoned(&tokens) => return (tokens.split_off(first), Some(FinishReason::Failed)),
            true => device_draw(hash, seed, index),
            false => sampler.sample(&logits(hash).collect::<Vec<_>>(), &tokens).expect("numbers"),
        };
        if token == END && !request.ignore_end {
            return (tokens.split_off(first), Some(FinishReason::Stop));
        }
        sampler.accept(token);
        tokens.push(token);
    }
    let reached = tokens.len() - first == request.limit;
    (tokens.split_off(first), reached.then_some(FinishReason::Limit))
}
