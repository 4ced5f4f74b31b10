//! Generation: a prompt in, tokens out one by one, until the model ends, the limit is reached or the caller has enough.

use super::Session;
use super::engine::{Engine, PendingToken};
use super::schedule::FinishReason;
use super::session::was_stopped;
use crate::base::{Error, ErrorKind, Result};
use crate::ops::{DrawNumber, Sample, SampleParams};
use crate::sample::{DeviceSampling, Sampler};
use std::ops::ControlFlow;
use web_time::{Duration, Instant};

/// What was generated, and how long it took.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The new tokens, without the one that ended the answer.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Prompt tokens that had to be computed; the rest lay in the cache.
    pub prompt_tokens: usize,
    /// Time until the first new token.
    pub prompt_time: Duration,
    /// Time from the first new token to the last.
    pub decode_time: Duration,
}

impl Generation {
    /// Adds what came `after` it in another call: its tokens, times and end.
    pub fn append(&mut self, after: Generation) {
        self.tokens.extend(after.tokens);
        self.finish = after.finish;
        self.prompt_tokens += after.prompt_tokens;
        self.prompt_time += after.prompt_time;
        self.decode_time += after.decode_time;
    }
}

impl Session {
    /// Continues `prompt` by up to `limit` tokens, handing each to `on_token`. What `prompt` shares with the tokens in the cache is
    /// not computed again. Stopped within the prompt ([`stop_when`](Self::stop_when)), it gives no tokens.
    ///
    /// Where the sampler's chain is one that the device can do, tokens stay there: each is read back while the next is computed.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        sampler: &mut Sampler,
        limit: usize,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generation> {
        pollster::block_on(self.generate_async(prompt, sampler, limit, on_token))
    }

    /// As [`generate`](Self::generate), where nobody may wait for the GPU: in a browser.
    pub async fn generate_async(
        &mut self,
        prompt: &[u32],
        sampler: &mut Sampler,
        limit: usize,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generation> {
        if prompt.is_empty() {
            return Err(
                Error::usage("an empty prompt").help("give at least one token: a model cannot start from nothing")
            );
        }
        // Before anything is taken back: a prompt that is refused costs nothing.
        let shared = self.shared_with(prompt);
        self.check_at(shared, &prompt[shared..])?;
        self.truncate(shared);
        let new = &prompt[self.cached_tokens().len()..];
        let (start, before) = (Instant::now(), self.cached_tokens().len());
        let mut run = Run { first: None, tokens: Vec::new(), limit, on_token };
        let finish = match self.go_on(new, sampler, &mut run).await {
            // While what a GPU held was computed anew.
            Err(e) if was_stopped(&e) => FinishReason::Cancelled,
            finish => finish?,
        };
        let first = run.first.unwrap_or_else(Instant::now);
        let (prompt_time, decode_time) = (first - start, first.elapsed());
        self.answered.0 += run.tokens.len().saturating_sub(1);
        self.answered.1 += decode_time;
        self.engine.settle().await?;
        let prompt_tokens = self.cached_tokens().len().min(prompt.len()).saturating_sub(before);
        Ok(Generation { tokens: run.tokens, finish, prompt_tokens, prompt_time, decode_time })
    }

    /// How many of the tokens of `prompt` lie in the cache. The last one is computed in any case: its logits are wanted.
    pub fn shared_with(&self, prompt: &[u32]) -> usize {
        let shared = self.cached_tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count();
        self.books.restorable(shared.min(prompt.len().saturating_sub(1)))
    }

    async fn go_on(&mut self, new: &[u32], sampler: &mut Sampler, run: &mut Run<'_>) -> Result<FinishReason> {
        match (self.feed_all_but_last(new).await?, sampler.device_plan()) {
            (None, _) => Ok(FinishReason::Cancelled),
            (Some(_), _) if run.limit == 0 => Ok(FinishReason::Limit),
            (Some(last), Some(plan)) => self.on_device(last, sampler, &plan, run).await,
            (Some(last), None) => self.on_host(last, sampler, run).await,
        }
    }

    async fn on_device(
        &mut self,
        last: &[u32],
        sampler: &mut Sampler,
        plan: &DeviceSampling,
        run: &mut Run<'_>,
    ) -> Result<FinishReason> {
        let after = self.cached_tokens().len() + last.len();
        let params = SampleParams {
            temp: plan.temp,
            top_k: plan.top_k,
            top_p: plan.top_p,
            min_p: plan.min_p,
            seed: plan.seed,
            draw: DrawNumber::From((after as u32).wrapping_sub(sampler.step() as u32)),
        };
        // What is fed but not known to be in the cache, and the token drawn after it.
        let (mut under_way, mut pending) = (last.to_vec(), None::<PendingToken>);
        loop {
            if self.pauses().await {
                return Ok(FinishReason::Cancelled);
            }
            let room =
                self.cached_tokens().len() + under_way.len() < self.context() && run.tokens.len() + 1 < run.limit;
            // The token that is drawn is computed at once if the engine runs ahead.
            let cells = under_way.len() + usize::from(room);
            let work = async |engine: &mut Engine, past: usize| {
                let drawn = match pending.take() {
                    Some(pending) => pending,
                    None => engine.decode_and_sample_async(&under_way, past, &params).await?,
                };
                // The next token is under way before this one is looked at; if this one ends the answer, it was for nothing.
                let next = if room && engine.runs_ahead() { Some(engine.sample_next_async().await?) } else { None };
                Ok((drawn.wait_async().await?, next))
            };
            let (token, next) = self.retry(cells, work).await?;
            self.commit(&mut under_way, run);
            if token == Sample::POISONED {
                return Err(poisoned());
            }
            sampler.accept(token);
            sampler.take_step();
            if let Some(stop) = self.take(token, run)? {
                return Ok(stop);
            }
            under_way.push(token);
            pending = next;
        }
    }

    async fn on_host(&mut self, last: &[u32], sampler: &mut Sampler, run: &mut Run<'_>) -> Result<FinishReason> {
        let mut under_way = last.to_vec();
        loop {
            if self.pauses().await {
                return Ok(FinishReason::Cancelled);
            }
            let row = under_way.len() as u32 - 1;
            let work = async |engine: &mut Engine, past: usize| engine.decode_async(&under_way, past, &[row]).await;
            let logits = self.retry(under_way.len(), work).await?;
            self.commit(&mut under_way, run);
            let token = sampler.sample(&logits, self.cached_tokens())?;
            sampler.accept(token);
            if let Some(stop) = self.take(token, run)? {
                return Ok(stop);
            }
            under_way.push(token);
        }
    }

    /// Notes tokens that were computed. Behind the prompt there is an anchor, from which other answers can begin.
    fn commit(&mut self, tokens: &mut Vec<u32>, run: &Run) {
        self.books.commit(tokens);
        tokens.clear();
        if run.first.is_none() {
            self.books.anchor();
        }
    }

    /// Hands a token on; says whether it was the last.
    fn take(&self, token: u32, run: &mut Run) -> Result<Option<FinishReason>> {
        run.first.get_or_insert_with(Instant::now);
        if self.model.tokenizer().is_ok_and(|t| t.is_end(token)) {
            return Ok(Some(FinishReason::Stop));
        }
        run.tokens.push(token);
        if (run.on_token)(token).is_break() {
            return Ok(Some(FinishReason::Cancelled));
        }
        if run.tokens.len() >= run.limit {
            return Ok(Some(FinishReason::Limit));
        }
        Ok((self.cached_tokens().len() >= self.context()).then_some(FinishReason::Context))
    }
}

/// One generation under way.
struct Run<'a> {
    first: Option<Instant>,
    tokens: Vec<u32>,
    limit: usize,
    on_token: &'a mut dyn FnMut(u32) -> ControlFlow<()>,
}

pub(super) fn poisoned() -> Error {
    Error::new(ErrorKind::Numeric, "the model's logits are not numbers, so no token can be drawn")
        .help("the file may be damaged, or the device computes wrongly: run `wgpu-llm doctor`")
}
