//! The model's part: a conversation in, an answer out, within what the context holds.

use super::talk::Talk;
use super::voice::Voice;
use crate::app::args::Length;
use crate::app::sampling::SamplingArgs;
use crate::base::{Error, Result};
use crate::run::{Answer, Session, Stop};
use crate::sample::{Sampler, SamplerOptions};
use crate::text::{ChatTemplate, ReasoningStyle};
use std::time::Duration;

/// A model that answers.
pub struct Speaker {
    /// The session; its cache keeps what conversations have in common.
    pub session: Session,
    /// Turns a conversation into a prompt.
    pub template: ChatTemplate,
    /// How tokens are drawn.
    pub options: SamplerOptions,
    /// Turns thinking on or off, where the template can.
    pub think: Option<bool>,
    /// How long an answer may become.
    pub length: Length,
    // Kept from answer to answer: its random numbers go on, so that another answer is another one.
    chain: Sampler,
}

/// An answer and what became of the conversation.
pub struct Told {
    /// Tokens, times, and why it ended.
    pub answer: Answer,
    /// Turns that were forgotten to make room.
    pub forgotten: usize,
    /// Whether there is an answer: Ctrl-C may come before its first word.
    pub said: bool,
}

impl Speaker {
    /// Fails where the sampling options make no sense for the model.
    pub fn new(session: Session, template: ChatTemplate, sampling: &SamplingArgs, length: Length) -> Result<Speaker> {
        let options = sampling.options()?;
        let chain = session.model().sampler(&options, session.context())?;
        Ok(Speaker { session, template, options, think: None, length, chain })
    }

    /// Draws as `options` say from now on.
    pub fn set_options(&mut self, options: SamplerOptions) -> Result<()> {
        self.chain = self.session.model().sampler(&options, self.session.context())?;
        self.options = options;
        Ok(())
    }

    /// Answers the last question on stdout and adds the answer to `talk`. Where the context is full, the oldest turns are
    /// forgotten. What was said until Ctrl-C stays; where that is nothing, there is no answer.
    pub fn answer(&mut self, talk: &mut Talk) -> Result<Told> {
        let model = self.session.model().clone();
        let mut forgotten = self.make_room(talk, 0)?;
        let (mut prompt, thought) = self.prompt(talk)?;
        let style = ReasoningStyle::of_template(self.template.source());
        let mut voice = Voice::new(model.tokenizer()?, style, thought);
        let (mut tokens, mut prompt_tokens) = (Vec::new(), 0);
        let (mut prompt_time, mut decode_time) = (Duration::ZERO, Duration::ZERO);
        let stop = loop {
            let left = self.length.limit() - tokens.len();
            let part = self.session.generate(&prompt, &mut self.chain, left, &mut |token| voice.say(token))?;
            tokens.extend(part.tokens);
            prompt_tokens += part.prompt_tokens;
            prompt_time += part.prompt_time;
            decode_time += part.decode_time;
            let may_go_on = self.length != Length::UntilFull && tokens.len() < self.length.limit();
            if part.stop != Stop::Context || !may_go_on {
                break part.stop;
            }
            // In the middle of an answer: it goes on after a shorter conversation, where there is one.
            let more = self.make_room(talk, tokens.len())?;
            if more == 0 {
                break Stop::Context;
            }
            forgotten += more;
            prompt = self.prompt(talk)?.0;
            prompt.extend(&tokens);
        };
        let (answer, thought) = voice.finish()?;
        let said = stop != Stop::Interrupted || !answer.is_empty() || !thought.is_empty();
        if said {
            talk.answer(answer, thought);
        }
        Ok(Told { answer: Answer { tokens, stop, prompt_tokens, prompt_time, decode_time }, forgotten, said })
    }

    /// Tokens of the conversation as it stands, with the start of an answer; and the thought that it begins in.
    fn prompt(&self, talk: &Talk) -> Result<(Vec<u32>, Option<ReasoningStyle>)> {
        self.session.model().prompt(&self.template, talk.messages(), self.think)
    }

    /// Forgets the oldest turns until `said` tokens of an answer and some more fit; gives how many were forgotten. Fails where the
    /// question alone is too long.
    fn make_room(&self, talk: &mut Talk, said: usize) -> Result<usize> {
        let context = self.session.context();
        let needed = |talk: &Talk| Ok::<usize, Error>(self.prompt(talk)?.0.len() + said);
        let mut used = needed(talk)?;
        if used + room(context, 8).min(self.length.limit()) <= context {
            return Ok(0);
        }
        // What follows a forgotten turn is computed again: so more is made than is needed now, and that comes seldom.
        let (mut shorter, mut forgotten) = (talk.clone(), 0);
        while used + room(context, 4) > context && shorter.forget_oldest() {
            forgotten += 1;
            used = needed(&shorter)?;
        }
        if used > context && said == 0 {
            let what = format!("this prompt takes {used} tokens, and the context has {context}");
            return Err(Error::usage(what).help("use a shorter prompt, or a larger context (-c)"));
        }
        *talk = shorter;
        Ok(forgotten)
    }
}

/// Tokens to keep free for an answer.
fn room(context: usize, part: usize) -> usize {
    (context / part).max(1)
}
