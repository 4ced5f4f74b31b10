//! What a request's handle reports.

use crate::base::Error;
use crate::run::schedule::FinishReason;
use std::time::Duration;

/// Something that happened to a request, in the order in which it did.
///
/// A request that was taken ends either with a [`Done`](Event::Done) for each of its choices, or with one [`Failed`](Event::Failed).
#[derive(Debug)]
pub enum Event {
    /// The request waits.
    Queued {
        /// How many sequences are served before it.
        position: usize,
    },
    /// The request runs for the first time.
    Started {
        /// Tokens of the prompt.
        prompt: usize,
        /// Those of them that were cached.
        cached: usize,
    },
    /// More of the prompt is computed.
    Progress {
        /// Tokens of the prompt that are computed or were cached.
        done: usize,
        /// Those that were cached; may grow if another request computes the same beginning.
        cached: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// A token of an answer.
    Token {
        /// Index of the choice.
        choice: usize,
        /// Number of the token in the answer, from 0.
        index: usize,
        /// The token.
        token: u32,
        /// What is certain to be text of the answer by now: whole characters, and nothing that may be the beginning of a stop string.
        /// Often empty.
        text: String,
        /// Log-probabilities, if the request asked for them.
        logprobs: Option<TokenLogprobs>,
    },
    /// A choice ended; nothing else follows for it.
    Done {
        /// Index of the choice.
        choice: usize,
        /// Why.
        finish: FinishReason,
        /// The stop string that ended it.
        stop: Option<String>,
        /// The end of its text, which was held back.
        text: String,
        /// How many tokens were counted.
        usage: Usage,
        /// How long it took.
        times: Times,
    },
    /// The request failed as a whole; nothing else follows.
    Failed {
        /// Why.
        error: Error,
    },
}

/// Tokens of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that need not be computed: others had computed them.
    pub cached_tokens: usize,
    /// Tokens of the answer, without the one that ended it.
    pub tokens: usize,
}

/// What a choice's time went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// From its submission until it first ran, or ended.
    pub queued: Duration,
    /// From then until its first token was drawn, or it ended.
    pub prompt: Duration,
    /// From its first token to its last.
    pub decode: Duration,
}

/// Natural logarithms of probabilities by the model's logits, before any stage of the sampler. None is below
/// [`TokenLogprobs::LEAST`].
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// That of the token that was drawn.
    pub chosen: f64,
    /// The likeliest tokens with theirs, the likeliest first, of equal ones the lower token first.
    pub top: Vec<(u32, f64)>,
}

impl TokenLogprobs {
    /// Stands for everything below, and for minus infinity, which JSON does not have.
    pub const LEAST: f64 = -9999.0;
}
