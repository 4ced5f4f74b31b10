//! A request that the scheduler has taken, and that has not ended.

use super::answer::ChoiceState;
use super::channel::Sender;
use super::event::{Event, Usage};
use crate::base::{Error, ErrorKind};
use crate::run::schedule::{ChoiceId, Event as Happened, FinishReason};
use web_time::Instant;

/// What a batcher knows of a request.
#[derive(Debug)]
pub(super) struct Active {
    pub sender: Sender,
    pub answers: Vec<ChoiceState>,
    pub ignore_end: bool,
    /// Tokens of the prompt, and those of them that were cached.
    prompt: usize,
    cached: usize,
    /// Tokens of the prompt that are reported as computed.
    done: usize,
    submitted: Instant,
    /// When it first ran.
    ran: Option<Instant>,
    /// Whether it was preempted, or lost its device: from then on its own cells may be found in the cache.
    preempted: bool,
}

/// Whether a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goes {
    On,
    /// All its choices have ended.
    Done,
    /// It failed: what is left of it must be cancelled.
    Failed,
}

impl Active {
    pub fn new(sender: Sender, answers: Vec<ChoiceState>, prompt: usize, ignore_end: bool, submitted: Instant) -> Self {
        let (cached, done, ran, preempted) = (0, 0, None, false);
        Active { sender, answers, ignore_end, prompt, cached, done, submitted, ran, preempted }
    }

    /// A choice that has not ended.
    pub fn answer(&mut self, choice: ChoiceId) -> Option<&mut ChoiceState> {
        self.answers.get_mut(choice.choice as usize).filter(|answer| !answer.ended)
    }

    /// So many tokens of the prompt are computed.
    pub fn progress(&mut self, done: usize) {
        if done > self.done {
            self.done = done;
            self.sender.send(Event::Progress { done, cached: self.cached, total: self.prompt });
        }
    }

    /// Reports what happened in the scheduler to one of its choices.
    pub fn report(&mut self, happened: Happened, now: Instant) -> Goes {
        match happened {
            Happened::Admitted { cached, .. } if self.ran.is_none() => {
                self.ran = Some(now);
                (self.cached, self.done) = (cached, cached);
                self.sender.start();
                self.sender.send(Event::Started { prompt: self.prompt, cached });
            }
            Happened::Shared { choice, cached } if choice.choice == 0 && !self.preempted => {
                self.cached = cached;
                self.progress(cached);
            }
            Happened::Preempted { .. } => self.preempted = true,
            Happened::Token { choice, index, token } => {
                if let Some(answer) = self.answer(choice) {
                    let event = answer.token(choice.choice as usize, index, token);
                    self.sender.send(event);
                }
            }
            Happened::Finished { choice, reason: FinishReason::Failed, .. } => {
                let error = self.answer(choice).and_then(|answer| answer.error.take());
                self.sender.fail(error.unwrap_or_else(no_room));
                return Goes::Failed;
            }
            Happened::Finished { choice, reason, tokens } => return self.finish(choice, reason, tokens, now),
            Happened::Admitted { .. } | Happened::Shared { .. } => {}
        }
        Goes::On
    }

    fn finish(&mut self, choice: ChoiceId, finish: FinishReason, tokens: usize, now: Instant) -> Goes {
        let queued = self.ran.unwrap_or(now).duration_since(self.submitted);
        let waited = (queued, self.ran);
        let usage = Usage { prompt_tokens: self.prompt, cached_tokens: self.cached, tokens };
        if let Some(answer) = self.answer(choice) {
            let done = answer.done(choice.choice as usize, finish, usage, waited, now);
            self.sender.send(done);
        }
        if self.answers.iter().any(|answer| !answer.ended) {
            return Goes::On;
        }
        self.sender.end();
        Goes::Done
    }
}

fn no_room() -> Error {
    Error::new(ErrorKind::OutOfMemory, "there is no room for the state of even one sequence")
        .help("use a smaller context (-c)")
}
