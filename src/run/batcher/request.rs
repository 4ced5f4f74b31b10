//! Requests, as users submit them.

use crate::sample::SamplerOptions;
use std::time::Duration;

/// A prompt to be continued, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The prompt's tokens, at least one.
    pub prompt: Vec<u32>,
    /// The most tokens of an answer. 0: the prompt is only computed, so that it is cached.
    pub limit: usize,
    /// How tokens are drawn. Without a seed, each request gets one of its own.
    pub sampling: SamplerOptions,
    /// Texts that end an answer and are not part of it. Empty ones are ignored.
    pub stops: Vec<String>,
    /// How many answers are drawn, at least 1. The first has the request's seed, the others have seeds that follow from it.
    pub choices: usize,
    /// Requests with lower numbers go first.
    pub priority: i32,
    /// Reports the log-probability of each token, and those of so many of the likeliest tokens, up to
    /// [`Request::MAX_LOGPROBS`]; `None`: no log-probabilities.
    pub logprobs: Option<usize>,
    /// Requests with the same salt share what was computed of common prefixes; `None`: this one shares nothing.
    pub salt: Option<u64>,
    /// Whether later prompts may share what was computed of the answer. An answer's tokens are computed in another way than a prompt's, so
    /// rounding may differ: if no request with this salt caches its answer, no answer depends on which requests came before.
    pub cache_answer: bool,
    /// When the request ends, finished or not, counted from its submission.
    pub deadline: Option<Duration>,
    /// Whether an answer goes on behind a token that ends answers: such a token is one like any other then.
    pub ignore_end: bool,
    /// Whether the names of control tokens are part of the text, such as `<|im_end|>`.
    pub show_special: bool,
}

impl Request {
    /// The most of the likeliest tokens that are reported beside a token.
    pub const MAX_LOGPROBS: usize = 20;

    /// One answer of up to `limit` tokens, with default sampling, priority 0, salt 0, and nothing else that ends it.
    pub fn new(prompt: Vec<u32>, limit: usize) -> Self {
        Request {
            prompt,
            limit,
            sampling: SamplerOptions::default(),
            stops: Vec::new(),
            choices: 1,
            priority: 0,
            logprobs: None,
            salt: Some(0),
            cache_answer: true,
            deadline: None,
            ignore_end: false,
            show_special: false,
        }
    }
}
