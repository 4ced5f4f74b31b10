//! Requests as they come in: what they ask for is checked, and all that is needed to answer them is made.

use super::active::Active;
use super::answer::ChoiceState;
use super::channel::{Channel, Sender};
use super::compute::Draw;
use super::handle::{Canceller, Handle};
use super::host::HostSampler;
use super::inbox::Inbox;
use super::request::Request;
use super::text::AnswerText;
use super::vocabulary::Vocabulary;
use crate::base::{Error, Result, fresh_seed};
use crate::ops::{DrawNumber, SampleParams};
use crate::run::schedule::{self, Sampling, SubmitError};
use crate::sample::SamplerOptions;
use crate::state::Item;
use std::sync::Arc;
use std::time::Duration;
use web_time::Instant;

/// Tokens of an answer that a host sampler has memory for from the beginning.
const EXPECTED: usize = 2048;

/// What requests are checked against.
pub(super) struct Intake {
    pub vocabulary: Arc<dyn Vocabulary>,
    /// The most tokens of a sequence.
    pub context: usize,
    /// The most choices of a request.
    pub choices: usize,
    /// The most sequences that wait.
    pub queue: usize,
    /// Where the scheduler's clock begins.
    pub start: Instant,
}

/// A request that was checked.
#[derive(Debug)]
pub(super) struct Job {
    pub active: Active,
    pub request: schedule::Request,
}

impl Intake {
    /// Checks a request; returns it as the batcher wants it, and the handle for its user.
    pub fn prepare(&self, request: Request, inbox: &Arc<Inbox>) -> Result<(Job, Handle)> {
        let submitted = Instant::now();
        self.check(&request)?;
        let (prompt, choices) = (request.prompt.len(), request.choices);
        let seed = request.sampling.seed.unwrap_or_else(fresh_seed);
        let answers = (0..choices).map(|choice| self.answer(&request, seed_of(seed, choice)));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        let on_device = answers.iter().all(|answer| answer.host.is_none());
        let channel = Arc::new(Channel::default());
        let canceller = Canceller { channel: channel.clone(), inbox: inbox.clone(), choices, prompt, submitted };
        let active = Active::new(Sender(channel), answers, prompt, request.ignore_end, submitted);
        let since = submitted.duration_since(self.start);
        let request = schedule::Request {
            prompt: request.prompt.into_iter().map(Item::Token).collect(),
            limit: request.limit,
            choices,
            priority: request.priority,
            salt: request.salt,
            cache_answer: request.cache_answer,
            deadline: request.deadline.map(|deadline| since.saturating_add(deadline)),
            sampling: if on_device { Sampling::Device } else { Sampling::Host },
        };
        Ok((Job { active, request }, Handle::new(canceller, seed)))
    }

    /// Now, by the scheduler's clock.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// What the scheduler refuses too is checked here, because clients want to know at once.
    fn check(&self, request: &Request) -> Result<()> {
        let Request { prompt, choices, logprobs, stops, .. } = request;
        let vocab = self.vocabulary.size();
        if prompt.is_empty() {
            return Err(refused(SubmitError::EmptyPrompt));
        }
        if prompt.len() > self.context {
            return Err(refused(SubmitError::PromptTooLong { prompt: prompt.len(), context: self.context }));
        }
        if !(1..=self.choices).contains(choices) {
            return Err(refused(SubmitError::Choices { asked: *choices, most: self.choices }));
        }
        if let Some(token) = prompt.iter().find(|token| **token as usize >= vocab) {
            return Err(Error::usage(format!("token {token} is outside the vocabulary of {vocab}")));
        }
        if logprobs.is_some_and(|top| top > Request::MAX_LOGPROBS) {
            let what = format!("log-probabilities of {} tokens were asked for", logprobs.unwrap_or_default());
            return Err(Error::usage(what).help(format!("ask for 0 to {}", Request::MAX_LOGPROBS)));
        }
        if self.vocabulary.tokenizer().is_none() && stops.iter().any(|stop| !stop.is_empty()) {
            return Err(Error::usage("stop strings need a tokenizer, and the model has none"));
        }
        Ok(())
    }

    /// A choice before its first token.
    fn answer(&self, request: &Request, seed: u64) -> Result<ChoiceState> {
        let options = SamplerOptions { seed: Some(seed), ..request.sampling.clone() };
        let sampler = self.vocabulary.sampler(&options, self.context)?;
        let text = self.vocabulary.tokenizer().map(|_| AnswerText::new(request.show_special, &request.stops));
        if let Some(plan) = sampler.device_plan().filter(|_| request.logprobs.is_none()) {
            let draw = Draw::Device(SampleParams {
                temp: plan.temp,
                top_k: plan.top_k,
                top_p: plan.top_p,
                min_p: plan.min_p,
                seed: plan.seed,
                draw: DrawNumber::From(request.prompt.len() as u32),
            });
            return Ok(ChoiceState::new(draw, None, text));
        }
        let mut tokens = Vec::with_capacity(request.prompt.len() + request.limit.min(EXPECTED));
        tokens.extend_from_slice(&request.prompt);
        let host = HostSampler { sampler, tokens, logprobs: request.logprobs };
        Ok(ChoiceState::new(Draw::Host, Some(Box::new(host)), text))
    }
}

/// The error of a request that the scheduler does not take; its source is the [`SubmitError`].
pub(super) fn refused(error: SubmitError) -> Error {
    Error::usage("the request was not taken").because(error)
}

/// The seed of a choice: the request's for the first one, a hash of both for others (SplitMix64, Steele et al., "Fast Splittable
/// Pseudorandom Number Generators", 2014).
pub(super) fn seed_of(seed: u64, choice: usize) -> u64 {
    if choice == 0 {
        return seed;
    }
    let z = seed.wrapping_add((choice as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
