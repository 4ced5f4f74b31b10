//! Requests, as callers submit them.

use crate::state::Item;
use std::fmt;
use std::time::Duration;

/// Names a request; never used again. Later requests have greater ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(super) u64);

/// Names one answer of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChoiceId {
    /// The request.
    pub request: RequestId,
    /// Index of the choice, from 0.
    pub choice: u32,
}

/// Where a request's tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// On the device: the next row may be submitted before the token is known here.
    Device,
    /// On the host, from the row's logits: the next row waits for the token.
    Host,
}

/// A prompt to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The prompt, at least one item.
    pub prompt: Vec<Item>,
    /// The most tokens of an answer. 0: the prompt is only computed, so that it is cached.
    pub limit: usize,
    /// How many answers are drawn, at least 1.
    pub choices: usize,
    /// Requests with lower numbers go first.
    pub priority: i32,
    /// Requests with the same salt share prefixes (see [`Pool::open`](crate::state::Pool::open)); `None`: this one shares nothing.
    pub salt: Option<u64>,
    /// Whether later prompts may share what was computed of the answer. If not, and if all with this salt say so, a prompt shares only
    /// what was computed as part of a prompt: then what it finds cached changes no bit of its answer.
    pub cache_answer: bool,
    /// When the request ends, finished or not, on the clock of [`Scheduler::plan`](super::Scheduler::plan).
    pub deadline: Option<Duration>,
    /// Where its tokens are drawn.
    pub sampling: Sampling,
}

impl Request {
    /// One answer of up to `limit` tokens, drawn on the device, with priority 0, salt 0 and no deadline.
    pub fn new(prompt: Vec<Item>, limit: usize) -> Self {
        let (choices, priority, salt, cache_answer, deadline) = (1, 0, Some(0), true, None);
        Request { prompt, limit, choices, priority, salt, cache_answer, deadline, sampling: Sampling::Device }
    }
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubmitError {
    /// A model cannot start from nothing.
    EmptyPrompt,
    /// The prompt is longer than a sequence may become.
    PromptTooLong {
        /// Items of the prompt.
        prompt: usize,
        /// The most items of a sequence.
        context: usize,
    },
    /// No choices, or more than a step has outputs.
    Choices {
        /// How many were asked for.
        asked: usize,
        /// The most there may be.
        most: usize,
    },
    /// As many requests wait as may wait.
    QueueFull {
        /// How many that are.
        waiting: usize,
    },
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::EmptyPrompt => write!(f, "the prompt is empty"),
            SubmitError::PromptTooLong { prompt, context } => {
                write!(f, "the prompt has {prompt} tokens, which exceeds the available context size of {context}")
            }
            SubmitError::Choices { asked, most } => {
                write!(f, "{asked} choices were asked for: 1 to {most} are possible")
            }
            SubmitError::QueueFull { waiting } => write!(f, "{waiting} requests wait already"),
        }
    }
}

impl std::error::Error for SubmitError {}
