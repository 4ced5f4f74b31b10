//! What the page says of an answer, and what it is told of one.

use serde::{Deserialize, Serialize};
use wgpu_llm::low_level::chat::{ChatOptions, Reply};
use wgpu_llm::low_level::run::schedule::FinishReason;
use wgpu_llm::low_level::sample::SamplerOptions;

/// What an answer is to be like.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct AnswerOptions {
    /// Most tokens of the answer.
    pub limit: usize,
    /// Turns thinking on or off, where the template can.
    pub think: Option<bool>,
    /// How tokens are drawn.
    #[serde(flatten)]
    pub sampling: SamplerOptions,
}

impl Default for AnswerOptions {
    fn default() -> Self {
        AnswerOptions { limit: usize::MAX, think: None, sampling: SamplerOptions::default() }
    }
}

impl From<AnswerOptions> for ChatOptions {
    fn from(AnswerOptions { limit, think, sampling }: AnswerOptions) -> Self {
        ChatOptions { limit, think, sampling, ..ChatOptions::default() }
    }
}

/// An answer, and how it came about.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub text: String,
    pub reasoning: String,
    pub tokens: Vec<u32>,
    /// `end`, `limit`, `context` or `stopped`.
    pub stop: &'static str,
    /// Tokens of the prompt that had to be computed.
    pub prompt_tokens: usize,
    pub prompt_seconds: f64,
    pub seconds: f64,
    /// Tokens in the cache.
    pub used: usize,
    /// Turns that were left out, so that the rest fits the context.
    pub forgotten: usize,
}

impl Answer {
    /// `reply` with `used` tokens in the cache after it.
    pub fn new(reply: Reply, used: usize) -> Answer {
        let generation = reply.generation;
        Answer {
            text: reply.content,
            reasoning: reply.reasoning,
            tokens: generation.tokens,
            stop: match generation.finish {
                FinishReason::Stop => "end",
                FinishReason::Limit => "limit",
                FinishReason::Context => "context",
                FinishReason::Cancelled | FinishReason::Deadline | FinishReason::Failed => "stopped",
            },
            prompt_tokens: generation.prompt_tokens,
            prompt_seconds: generation.prompt_time.as_secs_f64(),
            seconds: generation.decode_time.as_secs_f64(),
            used,
            forgotten: reply.forgotten,
        }
    }
}
