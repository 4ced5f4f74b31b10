//! What a handle has received, checked as it comes: nothing is lost, doubled or out of order.

use super::*;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(super) struct Choice {
    pub tokens: Vec<u32>,
    pub text: String,
    pub logprobs: Vec<TokenLogprobs>,
    pub finish: Option<FinishReason>,
    pub stop: Option<String>,
    pub usage: Usage,
    pub times: Times,
}

#[derive(Debug)]
pub(super) struct Record {
    pub request: Request,
    pub seed: u64,
    /// `None` once it was dropped.
    pub handle: Option<Handle>,
    pub cancelled: bool,
    pub queued: Option<usize>,
    pub started: Option<usize>,
    pub progress: Vec<(usize, usize)>,
    pub choices: Vec<Choice>,
    pub error: Option<crate::base::Error>,
}

impl Record {
    pub fn new(request: Request, handle: Handle) -> Self {
        let choices = (0..request.choices).map(|_| Choice::default()).collect();
        let (seed, handle, cancelled) = (handle.seed(), Some(handle), false);
        let (queued, started, progress, error) = (None, None, Vec::new(), None);
        Record { request, seed, handle, cancelled, queued, started, progress, choices, error }
    }

    /// Takes the events that are there by now.
    pub fn pump(&mut self) {
        while let Some(event) = self.handle.as_mut().and_then(Handle::try_next) {
            self.take(event);
        }
    }

    /// Takes all events to the end, on this thread.
    pub fn wait(&mut self) {
        while let Some(event) = self.handle.as_mut().and_then(Iterator::next) {
            self.take(event);
        }
    }

    pub fn take(&mut self, event: Event) {
        assert!(!self.has_ended(), "{event:?} after the end");
        match event {
            Event::Queued { position } => {
                assert!(self.queued.replace(position).is_none());
                assert!(self.started.is_none());
            }
            Event::Started { prompt, cached } => {
                assert!(self.started.replace(cached).is_none() && self.queued.is_some());
                assert!(prompt == self.request.prompt.len() && cached < prompt);
            }
            Event::Progress { done, cached, total } => {
                assert!(self.started.is_some() && total == self.request.prompt.len() && done <= total);
                assert!(cached <= done && self.progress.last().is_none_or(|last| last.0 < done && last.1 <= cached));
                self.progress.push((done, cached));
            }
            Event::Token { choice, index, token, text, logprobs } => {
                let total = self.request.prompt.len();
                assert_eq!(self.progress.last().map(|last| last.0), Some(total), "the prompt is computed");
                let choice = &mut self.choices[choice];
                assert!(choice.finish.is_none() && index == choice.tokens.len());
                choice.tokens.push(token);
                choice.text += &text;
                choice.logprobs.extend(logprobs);
            }
            Event::Done { choice, finish, stop, text, usage, times } => {
                let choice = &mut self.choices[choice];
                assert!(choice.finish.replace(finish).is_none());
                assert_eq!((usage.tokens, usage.prompt_tokens), (choice.tokens.len(), self.request.prompt.len()));
                assert!(usage.cached_tokens < usage.prompt_tokens);
                choice.text += &text;
                (choice.stop, choice.usage, choice.times) = (stop, usage, times);
            }
            Event::Failed { error } => self.error = Some(error),
        }
    }

    pub fn has_ended(&self) -> bool {
        self.error.is_some() || self.choices.iter().all(|choice| choice.finish.is_some())
    }

    /// The handle, too, reports that nothing follows.
    pub fn check_ended(&mut self) {
        assert!(self.has_ended(), "{self:?}");
        if let Some(handle) = &mut self.handle {
            let next = handle.poll_event(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(next, Poll::Ready(None)), "{next:?}");
        }
    }

    /// The only choice.
    pub fn only(&self) -> &Choice {
        assert!(self.choices.len() == 1 && self.error.is_none(), "{:?}", self.error);
        &self.choices[0]
    }
}
