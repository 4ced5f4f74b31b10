//! The queue of events between a batcher and the handle of one request.

use super::event::Event;
use crate::base::{Error, ErrorKind};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

/// Both ends of a queue hold it.
#[derive(Debug, Default)]
pub(super) struct Channel {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    waker: Option<Waker>,
    /// Whether the request has run.
    started: bool,
    cancelled: bool,
    /// Nothing is added any more.
    ended: bool,
}

impl Channel {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that may panic runs under the lock.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Lets the receiver look again.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        self.arrived.notify_all();
    }

    /// Whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Asks for the end of the request; returns whether the batcher has to learn of it. If the request has never run, it ends at once,
    /// with `last`.
    pub fn cancel(&self, last: impl Iterator<Item = Event>) -> bool {
        let mut state = self.lock();
        if state.cancelled || state.ended {
            return false;
        }
        state.cancelled = true;
        if !state.started {
            state.events.extend(last);
            state.ended = true;
            self.wake(state);
        }
        true
    }

    /// Nobody receives any more; returns whether the batcher has to learn of it.
    pub fn abandon(&self) -> bool {
        let mut state = self.lock();
        let runs = !state.ended && !state.cancelled;
        (state.cancelled, state.ended) = (true, true);
        state.events.clear();
        runs
    }

    /// The next event, if it is there; `None` within if nothing follows.
    pub fn try_next(&self) -> Poll<Option<Event>> {
        self.lock().next()
    }

    /// Waits for the next event, on this thread.
    pub fn wait(&self) -> Option<Event> {
        let mut state = self.lock();
        loop {
            match state.next() {
                Poll::Ready(event) => return event,
                Poll::Pending => state = self.arrived.wait(state).unwrap_or_else(|e| e.into_inner()),
            }
        }
    }

    /// The next event; the task of `context` is woken when it is there.
    pub fn poll(&self, context: &Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.lock();
        let next = state.next();
        if next.is_pending() && state.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        next
    }
}

impl State {
    fn next(&mut self) -> Poll<Option<Event>> {
        match self.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if self.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// The batcher's end of a queue. If it is dropped before the request ended, the request fails: nobody waits in vain.
#[derive(Debug)]
pub(super) struct Sender(pub Arc<Channel>);

impl Sender {
    /// Adds an event, unless the request has ended.
    pub fn send(&self, event: Event) {
        let mut state = self.0.lock();
        if !state.ended {
            state.events.push_back(event);
            self.0.wake(state);
        }
    }

    /// From now on the request does not end by itself if it is cancelled.
    pub fn start(&self) {
        self.0.lock().started = true;
    }

    /// Nothing follows.
    pub fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        self.0.wake(state);
    }

    /// Ends the request with an error, unless it has ended.
    pub fn fail(&self, error: Error) {
        self.send(Event::Failed { error });
        self.end();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.0.lock().ended {
            self.fail(Error::new(ErrorKind::DeviceLost, "the engine stopped before the request was done"));
        }
    }
}
