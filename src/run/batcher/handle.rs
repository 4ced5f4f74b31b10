//! A request as its user holds it.

use super::channel::Channel;
use super::event::{Event, Times, Usage};
use super::inbox::Inbox;
use crate::run::schedule::FinishReason;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use web_time::Instant;

/// A request that was submitted: receives its events. The request is cancelled if the handle is dropped.
///
/// As an iterator it blocks until the next event, which another thread must cause: use it with
/// [`Batcher::spawn`](super::Batcher::spawn). A caller of [`Batcher::step`](super::Batcher::step) takes what there is with
/// [`Handle::try_next`].
#[derive(Debug)]
pub struct Handle {
    canceller: Canceller,
    seed: u64,
}

/// Cancels a request, from wherever it is.
#[derive(Debug, Clone)]
pub struct Canceller {
    pub(super) channel: Arc<Channel>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) choices: usize,
    pub(super) prompt: usize,
    pub(super) submitted: Instant,
}

impl Handle {
    pub(super) fn new(canceller: Canceller, seed: u64) -> Self {
        Handle { canceller, seed }
    }

    /// The next event, if there is one by now.
    pub fn try_next(&mut self) -> Option<Event> {
        match self.canceller.channel.try_next() {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// Waits for the next event; `None` if nothing follows.
    pub async fn next_event(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_event(context)).await
    }

    /// As [`Handle::next_event`], for those who write futures by hand.
    pub fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        self.canceller.channel.poll(context)
    }

    /// Ends the request: at once if it has never run, before the next step otherwise. Its choices that have not ended end with
    /// [`FinishReason::Cancelled`].
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// What cancels this request from another thread or task.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// The seed of the first choice: the one that was asked for, or the one that was picked.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

impl Iterator for Handle {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.canceller.channel.wait()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.canceller.channel.abandon() {
            self.canceller.inbox.notice_cancel();
        }
    }
}

impl Canceller {
    /// As [`Handle::cancel`].
    pub fn cancel(&self) {
        let done = |choice| Event::Done {
            choice,
            finish: FinishReason::Cancelled,
            stop: None,
            text: String::new(),
            usage: Usage { prompt_tokens: self.prompt, ..Usage::default() },
            times: Times { queued: self.submitted.elapsed(), ..Times::default() },
        };
        if self.channel.cancel((0..self.choices).map(done)) {
            self.inbox.notice_cancel();
        }
    }
}
