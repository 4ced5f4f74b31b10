//! A conversation to tokens, and tokens to what is shown.

use serde::{Deserialize, Serialize};
use wgpu_llm::base::{Error, Result};
use wgpu_llm::model::Model;
use wgpu_llm::sample::{Sampler, SamplerOptions, VocabInfo, tokenize_breakers};
use wgpu_llm::text::{
    ChatTemplate, DetokenizeOptions, Detokenizer, Message, Piece, ReasoningSplitter, ReasoningStyle, RenderOptions,
    Role, Tokenizer,
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

/// The conversation's tokens with the start of an answer, and whether that begins in a thought.
pub fn prompt(
    model: &Model,
    template: &ChatTemplate,
    messages: &[Message],
    think: Option<bool>,
) -> Result<(Vec<u32>, bool)> {
    let folded;
    let messages = match template.capabilities().system {
        true => messages,
        false => {
            folded = Message::fold_system(messages);
            &folded
        }
    };
    let options = RenderOptions { enable_thinking: think, ..RenderOptions::default() };
    let prompt = template.render(messages, &options)?;
    let tokenizer = model.tokenizer()?;
    let mut ids = tokenizer.encode(&prompt.segments(), false)?;
    // Some templates begin with the first token, others leave it to the tokenizer; the last one would end the answer.
    if let Some(first) = tokenizer.added_first().filter(|first| ids.first() != Some(first)) {
        ids.insert(0, first);
    }
    Ok((ids, prompt.opens_thought()))
}

/// The prompt of as many of the last turns as leave a quarter of the context to the answer, or less where `limit` is less; and how
/// many turns were left out. The system's message always stays, and so does the last question.
pub fn fit(
    model: &Model,
    template: &ChatTemplate,
    mut messages: Vec<Message>,
    options: &ChatOptions,
    context: usize,
) -> Result<(Vec<u32>, bool, usize)> {
    let mut forgotten = 0;
    loop {
        let (ids, in_thought) = prompt(model, template, &messages, options.think)?;
        let wanted = ids.len() + (context / 4).clamp(1, options.limit.max(1));
        if wanted <= context || !forget_oldest(&mut messages) {
            if ids.len() >= context {
                let what = format!("this prompt takes {} tokens, and the context has {context}", ids.len());
                return Err(Error::usage(what).help("use a shorter prompt, or a larger context"));
            }
            return Ok((ids, in_thought, forgotten));
        }
        forgotten += 1;
    }
}

fn forget_oldest(messages: &mut Vec<Message>) -> bool {
    let from = messages.iter().take_while(|m| matches!(m.role, Role::System | Role::Developer)).count();
    let Some(next) = messages.iter().skip(from + 1).position(|m| m.role == Role::User) else { return false };
    messages.drain(from..from + 1 + next);
    true
}

/// The sampler of `model` under `options`.
pub fn sampler(model: &Model, options: &SamplerOptions, context: usize) -> Result<Sampler> {
    let breakers = if options.dry_multiplier > 0.0 {
        let tokenizer = model.tokenizer()?;
        let piece = |id: u32| tokenizer.token_bytes(id).into();
        let tokenize = |text: &[u8]| tokenizer.encode_text(&String::from_utf8_lossy(text), false).unwrap_or_default();
        tokenize_breakers(&options.dry_sequence_breakers, tokenizer.len() as u32, piece, tokenize)
    } else {
        Vec::new()
    };
    Sampler::new(options, &VocabInfo { tokens: model.spec().vocab, context, dry_breakers: &breakers })
}

/// An answer while it comes: whole characters, thoughts apart from the rest.
pub struct Voice<'t> {
    detokenizer: Detokenizer<'t>,
    splitter: ReasoningSplitter,
    pub answer: String,
    pub thought: String,
}

impl<'t> Voice<'t> {
    pub fn new(tokenizer: &'t Tokenizer, template: &ChatTemplate, in_thought: bool) -> Voice<'t> {
        let style = ReasoningStyle::of_template(template.source());
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
