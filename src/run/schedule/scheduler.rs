//! The scheduler: its books, and what callers ask of it.

use super::event::{Event, FinishReason};
use super::request::{ChoiceId, Request, RequestId, SubmitError};
use super::sequence::{Running, Sequence, Stops, Urgency};
use super::settings::Settings;
use super::step::Step;
use super::step_rates::StepRates;
use crate::state::{Item, PAGE_CELLS, Pool, PoolSpec};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use std::vec::Drain;

/// How many sequences there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Open in the pool.
    pub running: usize,
    /// Waiting to be.
    pub waiting: usize,
    /// Preemptions so far, lost devices aside.
    pub preemptions: u64,
}

/// Decides what each step computes, for many requests at a time.
///
/// It owns the books of the sequences' state ([`Pool`]); the engine that executes its steps owns the tensors. At most two
/// steps are in flight: planned, and not done.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) settings: Settings,
    pub(super) spec: PoolSpec,
    pub(super) stops: Option<Stops>,
    pub(super) pool: Pool,
    pub(super) waiting: BTreeMap<Urgency, Sequence>,
    /// The most urgent first.
    pub(super) running: Vec<Running>,
    /// Steps that are planned and not done, the oldest first.
    pub(super) flight: VecDeque<Step>,
    /// Steps that are done, for their memory.
    pub(super) spare: Vec<Step>,
    pub(super) events: Vec<Event>,
    pub(super) rates: StepRates,
    /// Numbers of the next request, step and admission.
    next: Numbers,
    /// The earliest deadline, or one before it.
    earliest: Option<Duration>,
    pub(super) preemptions: u64,
    /// The waiting sequence that did not fit, and how many pages were available: it is tried again if there are more.
    pub(super) blocked: Option<(Urgency, usize)>,
    /// The last sequence that had an answer row, if not all had one.
    pub(super) turn: Option<Urgency>,
    /// Outputs that were missing for a prompt's last row.
    pub(super) owed: usize,
    /// How many steps in a row short prompts overtook longer ones.
    pub(super) overtakes: u32,
    /// Prompts in the order in which they get rows of this step.
    pub(super) order: Vec<(i32, bool, Urgency)>,
}

#[derive(Debug, Default)]
struct Numbers {
    request: u64,
    step: u64,
    admission: u64,
}

impl Scheduler {
    /// An empty scheduler with an empty pool. Limits of 0 count as 1, but those of the queue and of snapshots.
    pub fn new(spec: PoolSpec, settings: Settings) -> Self {
        let settings = settings.clamped();
        let pool = Pool::new(&spec);
        let capacity = settings.sequences.min(1024);
        let stops =
            pool.needs_snapshots().then_some(Stops { interval: settings.snapshot_interval, states: spec.slots > 0 });
        let whole = spec.groups.iter().filter(|group| group.window.is_none());
        let cells = whole.map(|group| group.pages.saturating_sub(1) * PAGE_CELLS).min().unwrap_or(usize::MAX);
        Scheduler {
            rates: StepRates::new(settings.prompt_speed),
            settings: Settings { context: settings.context.min(cells), ..settings },
            spec,
            stops,
            pool,
            waiting: BTreeMap::new(),
            running: Vec::with_capacity(capacity),
            flight: VecDeque::with_capacity(super::plan::IN_FLIGHT),
            spare: Vec::with_capacity(super::plan::IN_FLIGHT),
            events: Vec::new(),
            next: Numbers::default(),
            earliest: None,
            preemptions: 0,
            blocked: None,
            turn: None,
            owed: 0,
            overtakes: 0,
            order: Vec::with_capacity(capacity),
        }
    }

    /// Takes a request; it waits until [`Scheduler::plan`] admits it.
    ///
    /// # Errors
    /// If it can never run, or if too many wait. Then nothing was changed.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, SubmitError> {
        let (prompt, context) = (request.prompt.len(), self.context());
        let (asked, most) = (request.choices, self.settings.outputs);
        if prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if prompt > context {
            return Err(SubmitError::PromptTooLong { prompt, context });
        }
        if asked == 0 || asked > most {
            return Err(SubmitError::Choices { asked, most });
        }
        if self.waiting.len() >= self.settings.queue {
            return Err(SubmitError::QueueFull { waiting: self.waiting.len() });
        }
        let id = RequestId(self.next.request);
        self.next.request += 1;
        let urgency = Urgency { priority: request.priority, id: ChoiceId { request: id, choice: 0 } };
        let Request { prompt: items, limit, deadline, salt, cache_answer, sampling, .. } = request;
        let (choices, preemptions) = (asked as u32, 0);
        self.earliest = [self.earliest, deadline].into_iter().flatten().min();
        let sequence =
            Sequence { urgency, items, prompt, choices, limit, deadline, salt, cache_answer, sampling, preemptions };
        self.waiting.insert(urgency, sequence);
        Ok(id)
    }

    /// Ends all choices of a request that have not ended, at once; returns whether there were any. What was computed of it is
    /// cached. If it has rows in a step in flight, their outcomes are ignored.
    pub fn cancel(&mut self, request: RequestId) -> bool {
        self.finish_all(FinishReason::Cancelled, |sequence| sequence.urgency.id.request == request)
    }

    /// Ends what is past its deadline.
    pub(super) fn expire(&mut self, now: Duration) {
        let past = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        if past(self.earliest) {
            self.finish_all(FinishReason::Deadline, |sequence| past(sequence.deadline));
            let running = self.running.iter().map(|running| &running.sequence);
            self.earliest = running.chain(self.waiting.values()).filter_map(|sequence| sequence.deadline).min();
        }
    }

    /// Forgets all that lay on the device: it was lost. Steps in flight will never be done; what ran waits again, before all
    /// others of its priority, and goes on where it was.
    pub fn reset(&mut self) {
        self.pool = Pool::new(&self.spec);
        self.spare.extend(self.flight.drain(..));
        for running in self.running.drain(..) {
            self.events.push(Event::Preempted { choice: running.urgency().id });
            self.waiting.insert(running.urgency(), running.sequence);
        }
        self.blocked = None;
    }

    /// Takes out what happened since the last call. What nobody takes out is kept.
    pub fn drain_events(&mut self) -> Drain<'_, Event> {
        self.events.drain(..)
    }

    /// The books of pages and slots: tables for the rows of a step, and how full they are.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Drops all cached prefixes.
    pub fn forget_prefixes(&mut self) {
        self.pool.forget_prefixes();
        self.blocked = None;
    }

    /// The step that was planned last, if it is not done.
    pub fn newest(&self) -> Option<&Step> {
        self.flight.back()
    }

    /// The step that [`Scheduler::done`] is to be called for next.
    pub fn oldest(&self) -> Option<&Step> {
        self.flight.front()
    }

    /// The most items of a sequence: prompt and answer, whose last token needs no room.
    pub fn context(&self) -> usize {
        self.settings.context
    }

    /// How many sequences run and wait. Choices that have not begun count as one.
    pub fn counts(&self) -> Counts {
        Counts { running: self.running.len(), waiting: self.waiting.len(), preemptions: self.preemptions }
    }

    /// Whether nothing runs or waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// How many sequences are served before a request that waits; `None` if it does not wait.
    pub fn queue_position(&self, request: RequestId) -> Option<usize> {
        self.waiting.keys().position(|urgency| urgency.id.request == request)
    }

    /// The items of a choice that has not ended: the prompt, then what was drawn.
    pub fn items(&self, choice: ChoiceId) -> Option<&[Item]> {
        let running = self.running.iter().map(|running| &running.sequence);
        let found = running.chain(self.waiting.values()).find(|sequence| sequence.is_of(choice))?;
        Some(&found.items)
    }

    /// Rows of a prompt that are computed or found, and all of them; `None` if the choice does not run.
    pub fn progress(&self, choice: ChoiceId) -> Option<(usize, usize)> {
        let found = self.running.iter().find(|running| running.sequence.is_of(choice))?;
        Some((found.computed.min(found.sequence.prompt), found.sequence.prompt))
    }

    pub(super) fn next_step(&mut self) -> u64 {
        self.next.step += 1;
        self.next.step
    }

    pub(super) fn next_admission(&mut self) -> u64 {
        self.next.admission += 1;
        self.next.admission
    }

    /// Where a running sequence stands in the list.
    pub(super) fn index(&self, urgency: Urgency) -> Option<usize> {
        self.running.binary_search_by_key(&urgency, Running::urgency).ok()
    }

    /// A sequence that runs or waits.
    pub(super) fn sequence(&mut self, urgency: Urgency) -> Option<&mut Sequence> {
        match self.index(urgency) {
            Some(index) => Some(&mut self.running[index].sequence),
            None => self.waiting.get_mut(&urgency),
        }
    }

    /// Puts a sequence in the list of those that run.
    pub(super) fn insert(&mut self, running: Running) {
        let at = self.running.partition_point(|other| other.urgency() < running.urgency());
        self.running.insert(at, running);
    }
}
