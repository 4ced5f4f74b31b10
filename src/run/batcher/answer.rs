//! One choice of a request while it is drawn.

use super::compute::Draw;
use super::event::{Event, Times, TokenLogprobs, Usage};
use super::host::HostSampler;
use super::text::AnswerText;
use crate::base::Error;
use crate::run::schedule::{FinishReason, Outcome};
use crate::text::Tokenizer;
use std::time::Duration;
use web_time::Instant;

/// What a batcher knows of a choice.
#[derive(Debug)]
pub(super) struct ChoiceState {
    pub draw: Draw,
    /// What draws its tokens, unless the device does.
    pub host: Option<Box<HostSampler>>,
    /// `None` without a tokenizer.
    pub text: Option<AnswerText>,
    /// What the token adds whose outcome was reported to the scheduler.
    ready: (String, Option<TokenLogprobs>),
    /// Why it failed.
    pub error: Option<Error>,
    pub ended: bool,
    /// When its first and its last token were drawn.
    span: Option<(Instant, Instant)>,
}

impl ChoiceState {
    pub fn new(draw: Draw, host: Option<Box<HostSampler>>, text: Option<AnswerText>) -> Self {
        ChoiceState { draw, host, text, ready: (String::new(), None), error: None, ended: false, span: None }
    }

    /// What comes of a drawn token: `ends` if it ends the answer and does not belong to it.
    pub fn take(
        &mut self,
        token: u32,
        logprobs: Option<TokenLogprobs>,
        ends: bool,
        tokenizer: Option<&Tokenizer>,
        now: Instant,
    ) -> Outcome {
        self.span = Some((self.span.map_or(now, |span| span.0), now));
        if ends {
            return Outcome::End;
        }
        self.host.iter_mut().for_each(|host| host.accept(token));
        let text = self.text.as_mut().zip(tokenizer).map(|(text, tokenizer)| text.push(tokenizer, token));
        self.ready = (text.unwrap_or_default(), logprobs);
        match self.text.as_ref().is_some_and(AnswerText::is_stopped) {
            true => Outcome::Last(token),
            false => Outcome::Token(token),
        }
    }

    /// The event of a token that the scheduler has added to the answer.
    pub fn token(&mut self, choice: usize, index: usize, token: u32) -> Event {
        let (text, logprobs) = std::mem::take(&mut self.ready);
        Event::Token { choice, index, token, text, logprobs }
    }

    /// The event of its end. `queued` is how long the request waited, `ran` since when it ran.
    pub fn done(
        &mut self,
        choice: usize,
        finish: FinishReason,
        usage: Usage,
        (queued, ran): (Duration, Option<Instant>),
        now: Instant,
    ) -> Event {
        let text = self.text.as_mut().map(AnswerText::finish).unwrap_or_default();
        let stop = self.text.as_mut().and_then(AnswerText::take_stop);
        let (first, last) = self.span.unwrap_or((now, now));
        let prompt = ran.map_or(Duration::ZERO, |ran| first.duration_since(ran));
        let times = Times { queued, prompt, decode: last.duration_since(first) };
        self.ended = true;
        Event::Done { choice, finish, stop, text, usage, times }
    }
}
