//! One step of a batcher: planned, submitted, finished, and turned into events.

use super::batching::Batcher;
use super::compute::{Compute, Draw};
use crate::base::Result;
use crate::ops::{DrawNumber, SampleParams};
use crate::run::schedule::{Output, Sampling};
use std::time::Duration;
use web_time::Instant;

/// A step that is submitted and not finished.
pub(super) struct InFlight<P> {
    pending: P,
    submitted: Instant,
}

impl<C: Compute> Batcher<C> {
    /// As [`Batcher::step_async`], and blocks meanwhile.
    ///
    /// # Errors
    /// As [`Batcher::step_async`].
    pub fn step(&mut self) -> Result<bool> {
        pollster::block_on(self.step_async())
    }

    /// Computes a step; returns whether work is left. The next step may be submitted by then.
    ///
    /// If the future is dropped before it is done, the next call computes again what was under way.
    ///
    /// # Errors
    /// If the engine failed and nothing could take over: then every request has failed, and no more are taken.
    pub async fn step_async(&mut self) -> Result<bool> {
        self.inbox.check_open()?;
        if std::mem::replace(&mut self.interrupted, true) {
            self.reset();
        }
        self.receive();
        if let Err(error) = self.advance().await {
            self.recover(error).await?;
        }
        self.interrupted = false;
        Ok(!self.is_idle())
    }

    /// Sees to it that a step is submitted, and another behind it if possible; finishes the first.
    async fn advance(&mut self) -> Result<()> {
        if self.flight.is_empty() {
            if !self.plan() {
                return Ok(());
            }
            self.submit_step(false).await?;
        }
        let mut waits = false;
        if self.may_plan_ahead() && self.plan() {
            let steps = self.scheduler.oldest().zip(self.scheduler.newest());
            waits = steps.is_some_and(|(before, next)| !self.compute.runs_ahead(before, next));
            if !waits {
                self.submit_step(false).await?;
            }
        }
        let took = self.finish_step().await?;
        // The tables of a step that waits are good only until the step before is done with.
        let submitted = if waits { self.submit_step(true).await } else { Ok(()) };
        self.complete(took);
        submitted
    }

    /// Plans a step; returns whether there is one.
    fn plan(&mut self) -> bool {
        let planned = self.scheduler.plan(self.intake.now());
        self.report();
        planned
    }

    /// Whether a step may be planned before the one in flight is done: not if tokens of that one are drawn on the host.
    fn may_plan_ahead(&self) -> bool {
        let drawn_on_device = |output: &Output| output.sampling == Sampling::Device;
        let newest = self.scheduler.newest().filter(|_| self.flight.len() == 1 && self.compute.plans_ahead());
        newest.is_some_and(|step| step.outputs().iter().all(drawn_on_device))
    }

    /// Submits the step that was planned last. If the step before was `read`, its tokens are in the results.
    async fn submit_step(&mut self, read: bool) -> Result<()> {
        let Some(step) = self.scheduler.newest() else { return Ok(()) };
        let (draws, drawn) = (&mut self.memory.draws, &mut self.memory.drawn);
        draws.clear();
        for output in step.outputs() {
            let answers = self.requests.get(&output.choice.request).map(|active| &active.answers);
            let answer = answers.and_then(|answers| answers.get(output.choice.choice as usize));
            draws.push(answer.map_or_else(|| any_draw(output.sampling), |answer| answer.draw));
        }
        if read {
            let vocab = self.intake.vocabulary.size() as u32;
            // A token that is none ends its answer: what its row computes does not count.
            let sound = |token: &u32| if *token < vocab { *token } else { 0 };
            drawn.clear();
            drawn.extend(self.memory.results.tokens.iter().map(sound));
        }
        let drawn = read.then_some(&drawn[..]);
        let submitted = Instant::now();
        let pending = self.compute.submit(step, self.scheduler.pool(), draws, drawn).await?;
        self.flight.push_back(InFlight { pending, submitted });
        Ok(())
    }

    /// Waits for the oldest step, and leaves its results in memory; returns how long it took without the step before.
    async fn finish_step(&mut self) -> Result<Duration> {
        self.memory.results.clear();
        let Some(InFlight { pending, submitted }) = self.flight.pop_front() else { return Ok(Duration::ZERO) };
        self.compute.finish(pending, &mut self.memory.results).await?;
        let before = std::mem::replace(&mut self.finished, Instant::now());
        Ok(self.finished.duration_since(before.max(submitted)))
    }
}

/// How to draw a token that nobody wants any more.
fn any_draw(sampling: Sampling) -> Draw {
    match sampling {
        Sampling::Host => Draw::Host,
        Sampling::Device => {
            Draw::Device(SampleParams { temp: 0.0, top_k: 1, top_p: 1.0, min_p: 0.0, seed: 0, draw: DrawNumber::Is(0) })
        }
    }
}
