//! A model that replies: a conversation becomes a prompt that fits the context, and tokens become a reply.

use super::{Conversation, Delta, ResponseStream};
use crate::base::{Error, Result};
use crate::model::Model;
use crate::run::schedule::FinishReason;
use crate::run::{Generation, Session};
use crate::sample::{Sampler, SamplerOptions};
use crate::text::{ChatTemplate, ReasoningStyle, StopStrings};
use std::ops::ControlFlow;

/// What is done if the context is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Nothing is forgotten: a prompt that does not fit is an error, and a reply ends where the context does.
    Stop,
    /// The oldest turns are forgotten before a reply; it ends where the context does.
    Forget,
    /// They are forgotten in the middle of a reply too, which goes on.
    #[default]
    ForgetAndGoOn,
}

/// What replies are to be like.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatOptions {
    /// Most tokens of a reply.
    pub limit: usize,
    /// What is done if the context is full.
    pub when_full: WhenFull,
    /// Texts that end a reply and are not part of it.
    pub stops: Vec<String>,
    /// Turns reasoning on or off, if the template can.
    pub think: Option<bool>,
    /// How tokens are drawn.
    pub sampling: SamplerOptions,
}

impl Default for ChatOptions {
    fn default() -> Self {
        let (when_full, stops) = Default::default();
        ChatOptions { limit: usize::MAX, when_full, stops, think: None, sampling: SamplerOptions::default() }
    }
}

/// How a model replies: its template and its sampler. The session, whose cache keeps what conversations have in common, is lent for each reply.
pub struct Chat {
    template: ChatTemplate,
    options: ChatOptions,
    // Kept from reply to reply: its random numbers go on, so that another reply is another one.
    sampler: Sampler,
}

/// A reply, and what became of the conversation.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The text.
    pub content: String,
    /// The model's reasoning before it.
    pub reasoning: String,
    /// Tokens, times, and why it ended.
    pub generation: Generation,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// How many of them the cache had.
    pub cached: usize,
    /// Turns that were forgotten to make room.
    pub forgotten: usize,
}

impl Reply {
    /// Whether it was stopped before its first word: the conversation is as if nothing had been asked.
    pub fn is_empty(&self) -> bool {
        let silent = self.content.is_empty() && self.reasoning.is_empty();
        silent && self.generation.finish == FinishReason::Cancelled
    }
}

impl Chat {
    /// Replies of `model` in sessions of `context` tokens. Fails if the sampling options make no sense for it.
    pub fn new(model: &Model, context: usize, template: ChatTemplate, options: ChatOptions) -> Result<Chat> {
        let sampler = model.sampler(&options.sampling, context)?;
        Ok(Chat { template, options, sampler })
    }

    /// Turns a conversation into a prompt.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// What replies are like.
    pub fn options(&self) -> &ChatOptions {
        &self.options
    }

    /// Replies as `options` say from now on, with the seed's random numbers from the beginning.
    pub fn set_options(&mut self, model: &Model, context: usize, options: ChatOptions) -> Result<()> {
        self.sampler = model.sampler(&options.sampling, context)?;
        self.options = options;
        Ok(())
    }

    /// Turns reasoning on or off from now on, if the template can.
    pub fn set_think(&mut self, think: Option<bool>) {
        self.options.think = think;
    }

    /// Replies to the last message of `conversation` and adds the reply to it; `on_delta` gets each token's text and may end the reply.
    ///
    /// If the context is full, the oldest turns are forgotten. If the reply is stopped, what there is of it stays; if that is nothing,
    /// nothing is added. After an error the conversation may have lost its oldest turns.
    pub fn reply(
        &mut self,
        session: &mut Session,
        conversation: &mut Conversation,
        on_delta: &mut dyn FnMut(Delta) -> ControlFlow<()>,
    ) -> Result<Reply> {
        pollster::block_on(self.reply_async(session, conversation, on_delta))
    }

    /// As [`reply`](Self::reply), if nobody may wait for the GPU: in a browser.
    pub async fn reply_async(
        &mut self,
        session: &mut Session,
        conversation: &mut Conversation,
        on_delta: &mut dyn FnMut(Delta) -> ControlFlow<()>,
    ) -> Result<Reply> {
        let model = session.model().clone();
        let limit = self.options.limit;
        let (mut forgotten, (mut prompt, opened)) = self.make_room(session, conversation, 0)?;
        let stops = StopStrings::new(self.options.stops.iter().cloned());
        let mut response = ResponseStream::new(model.tokenizer()?, &self.template, opened, stops);
        let (prompt_len, cached) = (prompt.len(), session.shared_with(&prompt));
        let mut on_token = |token| {
            let delta = response.push(token);
            let wanted = on_delta(delta);
            if response.is_stopped() { ControlFlow::Break(()) } else { wanted }
        };
        let mut generation = session.generate_async(&prompt, &mut self.sampler, limit, &mut on_token).await?;
        // In the middle of a reply: it goes on after a shorter conversation, if there is one.
        while self.options.when_full == WhenFull::ForgetAndGoOn
            && generation.finish == FinishReason::Context
            && generation.tokens.len() < limit
        {
            let replied = generation.tokens.len();
            let (more, (shorter, _)) = self.make_room(session, conversation, replied)?;
            if more == 0 {
                break;
            }
            forgotten += more;
            prompt = shorter;
            prompt.extend(&generation.tokens);
            let left = limit - replied;
            generation.append(session.generate_async(&prompt, &mut self.sampler, left, &mut on_token).await?);
        }
        if response.is_stopped() {
            generation.finish = FinishReason::Stop;
        }
        let rest = response.finish();
        if rest != Delta::default() {
            // The reply is at its end in any case.
            let _ = on_delta(rest);
        }
        let (content, reasoning) = response.into_texts();
        let reply = Reply { content, reasoning, generation, prompt: prompt_len, cached, forgotten };
        if !reply.is_empty() {
            conversation.reply(reply.content.clone(), reply.reasoning.clone());
        }
        Ok(reply)
    }

    /// Takes back what `session` has of anything but `conversation`: what stays is what a further reply would find computed.
    pub fn keep_only(&self, session: &mut Session, conversation: &Conversation) -> Result<()> {
        let (prompt, _) = self.prompt(session.model(), conversation)?;
        session.truncate(session.shared_with(&prompt));
        Ok(())
    }

    /// Tokens of the conversation as it stands, with the start of a reply; and the style of the reasoning that it begins in.
    fn prompt(&self, model: &Model, conversation: &Conversation) -> Result<Prompt> {
        model.prompt(&self.template, conversation.messages(), self.options.think)
    }

    /// Forgets the oldest turns until `replied` tokens of a reply and some more fit; returns how many were forgotten, and the prompt.
    /// Fails if the question alone is too long.
    fn make_room(&self, session: &Session, conversation: &mut Conversation, replied: usize) -> Result<(usize, Prompt)> {
        let (context, model) = (session.context(), session.model());
        let mut prompt = self.prompt(model, conversation)?;
        let used = |prompt: &Prompt| prompt.0.len() + replied;
        let forgets = self.options.when_full != WhenFull::Stop;
        let wanted = if forgets { room(context, 8).min(self.options.limit) } else { 0 };
        if used(&prompt) + wanted <= context {
            return Ok((0, prompt));
        }
        // What follows a forgotten turn is computed again: so more is made than is needed now, and that comes seldom.
        let (mut shorter, mut forgotten) = (conversation.clone(), 0);
        while forgets && used(&prompt) + room(context, 4) > context && shorter.forget_oldest() {
            forgotten += 1;
            prompt = self.prompt(model, &shorter)?;
        }
        if used(&prompt) > context && replied == 0 {
            let what = format!("this prompt takes {} tokens, and the context has {context}", used(&prompt));
            return Err(Error::usage(what).help("use a shorter prompt, or a larger context (-c)"));
        }
        *conversation = shorter;
        Ok((forgotten, prompt))
    }
}

/// Tokens, and the style of the reasoning that they end in.
type Prompt = (Vec<u32>, Option<ReasoningStyle>);

/// Tokens to keep free for a reply.
fn room(context: usize, part: usize) -> usize {
    (context / part).max(1)
}
