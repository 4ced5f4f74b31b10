//! A conversation to tokens, and tokens to what is shown.

use serde::{Deserialize, Serialize};
use wgpu_llm::base::{Error, Result};
use wgpu_llm::model::Model;
use wgpu_llm::sample::SamplerOptions;
use wgpu_llm::text::{
    ChatTemplate, DetokenizeOptions, Detokenizer, Message, Piece, ReasoningSplitter, ReasoningStyle, Tokenizer,
};

/// What an answer is to be like.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ChatOptions {
    /// Most tokens of the answer.
    pub limit: usize,
    /// Turns thinking on or off, where the template can.
    pub think: Option<bool>,
    /// How tokens are drawn.
    #[serde(flatten)]
    pub sampling: SamplerOptions,
}

impl Default for ChatOptions {
    fn default() -> Self {
        ChatOptions { limit: usize::MAX, think: None, sampling: SamplerOptions::default() }
    }
}

/// An answer, and how it came about.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub text: String,
    pub thought: String,
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

/// The prompt of as many of the last turns as leave a quarter of the context to the answer, or less where `limit` is less; and how
/// many turns were left out. The system's message always stays, and so does the last question.
pub fn fit(
    model: &Model,
    template: &ChatTemplate,
    mut messages: Vec<Message>,
    options: &ChatOptions,
    context: usize,
) -> Result<(Vec<u32>, Option<ReasoningStyle>, usize)> {
    let mut forgotten = 0;
    loop {
        let (ids, thought) = model.prompt(template, &messages, options.think)?;
        let wanted = ids.len() + (context / 4).clamp(1, options.limit.max(1));
        if wanted <= context || !Message::forget_oldest(&mut messages) {
            if ids.len() >= context {
                let what = format!("this prompt takes {} tokens, and the context has {context}", ids.len());
                return Err(Error::usage(what).help("use a shorter prompt, or a larger context"));
            }
            return Ok((ids, thought, forgotten));
        }
        forgotten += 1;
    }
}

/// An answer while it comes: whole characters, thoughts apart from the rest.
pub struct Voice<'t> {
    detokenizer: Detokenizer<'t>,
    splitter: ReasoningSplitter,
    pub answer: String,
    pub thought: String,
}

impl<'t> Voice<'t> {
    pub fn new(tokenizer: &'t Tokenizer, template: &ChatTemplate, thought: Option<ReasoningStyle>) -> Voice<'t> {
        let in_thought = thought.is_some();
        let style = thought.unwrap_or_else(|| ReasoningStyle::of_template(template.source()));
        // The marks of a thought may be control tokens: they have to be seen to be told apart.
        let show_special = style != ReasoningStyle::None;
        Voice {
            detokenizer: Detokenizer::new(tokenizer, DetokenizeOptions { show_special, continued: true }),
            splitter: ReasoningSplitter::new(style, in_thought),
            answer: String::new(),
            thought: String::new(),
        }
    }

    /// What a token adds: text of the answer, and of the thought before it.
    pub fn push(&mut self, token: u32) -> (String, String) {
        let pieces = self.splitter.push(self.detokenizer.push(token));
        self.take(pieces)
    }

    /// What is left at the end.
    pub fn finish(mut self) -> (String, String) {
        let rest = self.detokenizer.finish().to_string();
        let mut pieces = self.splitter.push(&rest);
        let splitter = std::mem::replace(&mut self.splitter, ReasoningSplitter::new(ReasoningStyle::None, false));
        pieces.extend(splitter.finish());
        self.take(pieces);
        (self.answer, self.thought)
    }

    fn take(&mut self, pieces: Vec<Piece>) -> (String, String) {
        let (mut answer, mut thought) = (String::new(), String::new());
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => thought += &text,
                // No tools are offered here: a call of one is an answer like any other.
                Piece::Content(text) | Piece::Call { text, .. } => answer += &text,
            }
        }
        self.answer += &answer;
        self.thought += &thought;
        (answer, thought)
    }
}
