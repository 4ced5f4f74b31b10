//! The batcher: many requests on one engine.

use super::active::{Active, Goes};
use super::compute::{Compute, Draw, Results};
use super::handle::Handle;
use super::host::HostDraw;
use super::inbox::{Inbox, again};
use super::intake::{Intake, Job, refused};
use super::request::Request;
use super::vocabulary::Vocabulary;
use super::{Event, step::InFlight};
use crate::base::{Error, ErrorKind, Result};
use crate::run::schedule::{ChoiceId, Counts, Event as Happened, Outcome, RequestId, Scheduler, Settings};
use crate::state::PoolSpec;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use web_time::Instant;

/// Answers many requests at a time: plans steps, has them computed, and turns what they draw into events.
pub struct Batcher<C: Compute> {
    pub(super) compute: C,
    pub(super) scheduler: Scheduler,
    pub(super) intake: Arc<Intake>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) requests: HashMap<RequestId, Active>,
    /// Requests that must be cancelled in the scheduler once every planned step is submitted.
    pub(super) unwanted: Vec<RequestId>,
    /// Steps that are submitted and not finished, the oldest first.
    pub(super) flight: VecDeque<InFlight<C::Pending>>,
    /// When the last step was finished.
    pub(super) finished: Instant,
    /// Whether a step is under way; found true if the future of a step was dropped.
    pub(super) interrupted: bool,
    /// Memory that is used again in each step.
    pub(super) memory: StepBuffers,
}

#[derive(Default)]
pub(super) struct StepBuffers {
    pub jobs: Vec<Job>,
    pub draws: Vec<Draw>,
    /// Tokens of the step before.
    pub drawn: Vec<u32>,
    pub results: Results,
    pub host_draws: Vec<HostDraw>,
    pub outcomes: Vec<Outcome>,
    /// Prompts that have rows in the step, with the end of their rows.
    pub pieces: Vec<(ChoiceId, usize)>,
}

impl<C: Compute> Batcher<C> {
    /// A batcher without requests, for an engine whose state tensors are those of `pool`.
    pub fn new(compute: C, vocabulary: Arc<dyn Vocabulary>, pool: PoolSpec, settings: Settings) -> Self {
        let (queue, choices, start) = (settings.queue, settings.outputs.clamp(1, u32::MAX as usize), Instant::now());
        let scheduler = Scheduler::new(pool, settings);
        let context = scheduler.context();
        Batcher {
            compute,
            scheduler,
            intake: Arc::new(Intake { vocabulary, context, choices, queue, start }),
            inbox: Arc::new(Inbox::new()),
            requests: HashMap::new(),
            unwanted: Vec::new(),
            flight: VecDeque::with_capacity(2),
            finished: start,
            interrupted: false,
            memory: StepBuffers::default(),
        }
    }

    /// Takes a request; it waits until a step admits it.
    ///
    /// # Errors
    /// If it asks for what cannot be, if it can never run, if too many wait, or if the engine failed for good. The source of the
    /// error is a [`SubmitError`](crate::run::schedule::SubmitError) if the scheduler refused it.
    pub fn submit(&mut self, request: Request) -> Result<Handle> {
        self.inbox.check_open()?;
        let (job, handle) = self.intake.prepare(request, &self.inbox)?;
        self.accept(job)?;
        Ok(handle)
    }

    /// Whether nothing is left to do.
    pub fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.flight.is_empty() && self.unwanted.is_empty() && self.inbox.is_empty()
    }

    /// How many sequences run and wait.
    pub fn counts(&self) -> Counts {
        self.scheduler.counts()
    }

    /// Drops all cached prefixes.
    pub fn forget_prefixes(&mut self) {
        self.scheduler.forget_prefixes();
    }

    /// The scheduler, with its books of pages and slots.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// The engine.
    pub fn compute(&self) -> &C {
        &self.compute
    }

    /// The engine, between two steps.
    pub fn compute_mut(&mut self) -> &mut C {
        &mut self.compute
    }

    /// Hands a request to the scheduler; if that refuses it, its handle receives the reason, too.
    fn accept(&mut self, job: Job) -> Result<()> {
        let Job { active, request } = job;
        let id = self.scheduler.submit(request).map_err(|error| {
            active.sender.fail(refused(error));
            refused(error)
        })?;
        let position = self.scheduler.queue_position(id).unwrap_or_default();
        active.sender.send(Event::Queued { position });
        self.requests.insert(id, active);
        Ok(())
    }

    /// Takes in what other threads left, and ends what is not wanted any more. No step may be planned and not submitted: the
    /// tables of its sequences must stay.
    pub(super) fn receive(&mut self) {
        let mut jobs = std::mem::take(&mut self.memory.jobs);
        let (cancels, forgets) = self.inbox.take(&mut jobs, self.scheduler.counts());
        for job in jobs.drain(..).filter(|job| !job.active.sender.0.is_cancelled()) {
            // Its handle receives the reason.
            let _ = self.accept(job);
        }
        self.memory.jobs = jobs;
        if cancels {
            let cancelled = self.requests.iter().filter(|(_, active)| active.sender.0.is_cancelled());
            self.unwanted.extend(cancelled.map(|(id, _)| *id));
        }
        for id in self.unwanted.drain(..) {
            self.scheduler.cancel(id);
        }
        if forgets {
            self.scheduler.forget_prefixes();
        }
        self.report();
    }

    /// Hands on what happened in the scheduler.
    pub(super) fn report(&mut self) {
        let now = Instant::now();
        for happened in self.scheduler.drain_events() {
            let (Happened::Admitted { choice, .. }
            | Happened::Shared { choice, .. }
            | Happened::Token { choice, .. }
            | Happened::Preempted { choice }
            | Happened::Finished { choice, .. }) = happened;
            let Some(active) = self.requests.get_mut(&choice.request) else { continue };
            let goes = active.report(happened, now);
            if goes == Goes::Failed {
                self.unwanted.push(choice.request);
            }
            if goes != Goes::On {
                self.requests.remove(&choice.request);
            }
        }
    }

    /// The device was lost, or a step was given up: all that is open is computed again.
    pub(super) fn reset(&mut self) {
        self.flight.clear();
        self.scheduler.reset();
        self.report();
    }

    /// Lets other devices take over after `error`.
    ///
    /// # Errors
    /// If none can: then every request has failed, and no more are taken.
    pub(super) async fn recover(&mut self, error: Error) -> Result<()> {
        let recovered = self.compute.recover(error).await;
        self.reset();
        recovered.inspect_err(|error| self.fail_all(error))
    }

    fn fail_all(&mut self, error: &Error) {
        let unseen = self.inbox.close(again(error));
        unseen.into_iter().for_each(|job| job.active.sender.fail(again(error)));
        for (id, active) in self.requests.drain() {
            active.sender.fail(again(error));
            self.unwanted.push(id);
        }
        self.receive();
    }
}

impl<C: Compute> Drop for Batcher<C> {
    fn drop(&mut self) {
        // Requests that nobody took out of the inbox fail as they are dropped.
        drop(self.inbox.close(Error::new(ErrorKind::DeviceLost, "the engine has stopped")));
    }
}
