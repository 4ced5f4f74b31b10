//! A session: one sequence of tokens with its cache on the devices.

use super::Engine;
use super::books::{Books, pool_spec};
use super::recover::Recovering;
use crate::base::{Error, ErrorKind, Result};
use crate::gpu;
use crate::model::Model;
use crate::plan::Options;
use crate::quant::Precision;
use crate::simd::Level;
use crate::state::PAGE_CELLS;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Logits of one batch may take this many bytes: they must fit a binding of any device, with room for halves.
const LOGITS_BYTES: usize = 64 << 20;

/// One sequence: what was fed, and the engine that holds its cache.
pub struct Session {
    pub(super) engine: Engine,
    pub(super) model: Arc<Model>,
    pub(super) books: Books,
    options: Options,
    /// What a token was planned to take.
    expected: Option<Duration>,
    /// Tokens of answers after their first, and what they took.
    pub(super) answered: (usize, Duration),
    pub(super) recovering: Recovering,
    pause: Option<Pause>,
}

/// What a session awaits between two steps of the CPU: see [`Session::pause_with`].
pub type Pause = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// The error of a prompt that was stopped where its logits are needed.
pub(super) fn stopped() -> Error {
    Error::io("stopped", std::io::ErrorKind::Interrupted.into())
}

/// Whether it is that error.
pub(super) fn was_stopped(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<std::io::Error>());
    error.kind() == ErrorKind::Io && source.is_some_and(|e| e.kind() == std::io::ErrorKind::Interrupted)
}

impl Session {
    /// Bits to which the CPU rounds a prompt's activations: bf16 has 8, too.
    pub fn activation_bits(&self) -> u32 {
        match self.engine.precision() {
            Precision::Eight => 8,
            Precision::SixteenOrTiles if Level::best().tiles().is_some() => 8,
            Precision::Sixteen | Precision::SixteenOrTiles => 16,
        }
    }

    /// Bits to which an answer's activations may be rounded.
    pub fn answer_bits(&self) -> u32 {
        if self.options.answer_precision == Precision::Eight { 8 } else { 16 }
    }

    /// A session of `model` on `device`, or on the CPU without one. The context may be longer than the model was trained
    /// with. Fails if memory does not suffice.
    pub fn new(model: Arc<Model>, device: Option<gpu::Device>, options: Options) -> Result<Session> {
        pollster::block_on(Self::new_async(model, device, options))
    }

    /// As [`new`](Self::new), where nobody may wait for the GPU: in a browser.
    pub async fn new_async(model: Arc<Model>, device: Option<gpu::Device>, options: Options) -> Result<Session> {
        let engine = Engine::load(model.clone(), device, &options).await?;
        let (expected, answered) = Default::default();
        let recovering = Recovering::default();
        let books = Books::new(pool_spec(model.spec(), &engine.cells))?;
        Ok(Session { engine, model, books, options, expected, answered, recovering, pause: None })
    }

    /// Remembers what a token was planned to take.
    pub fn set_predicted_token_time(&mut self, token: Option<Duration>) {
        self.expected = token;
    }

    /// What a token was planned to take and what it took on average, where both are known.
    pub fn token_times(&self) -> Option<(Duration, Duration)> {
        let (tokens, time) = self.answered;
        Some((self.expected?, time.checked_div(tokens as u32)?))
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The GPU in use.
    pub fn device(&self) -> Option<&gpu::Device> {
        self.engine.device()
    }

    /// Threads in use on the CPU.
    pub fn threads(&self) -> usize {
        self.engine.threads()
    }

    /// Tokens of context.
    pub fn context(&self) -> usize {
        self.options.context
    }

    /// Tokens that the caches have room for, of all sequences together.
    pub fn cache_tokens(&self) -> usize {
        self.engine.cells.pages * PAGE_CELLS
    }

    /// Tokens that one batch takes at most.
    pub fn batch(&self) -> usize {
        self.options.batch
    }

    /// The tokens in the cache.
    pub fn cached_tokens(&self) -> &[u32] {
        self.books.tokens()
    }

    /// The engine, for its graphs and figures.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// From now on `stop` is asked before each batch of a prompt, and on the CPU within it, before each step: where it says yes, the
    /// rest is not computed. The batches that were done stay in the cache.
    pub fn stop_when(&mut self, stop: impl Fn() -> bool + Send + 'static) {
        self.engine.stop = Some(Box::new(stop));
    }

    /// From now on `pause` is awaited before each batch of a prompt and each token of an answer that the CPU computes, which never waits
    /// for anything: in a browser, nobody would be heard meanwhile.
    pub fn pause_with(&mut self, pause: Pause) {
        self.pause = Some(pause);
    }

    /// Pauses, if that is wanted; returns whether the work was stopped meanwhile.
    pub(super) async fn pauses(&self) -> bool {
        let Some(pause) = self.pause.filter(|_| !self.engine.runs_ahead()) else { return false };
        pause().await;
        self.stops()
    }

    pub(super) fn stops(&self) -> bool {
        self.engine.stop.as_ref().is_some_and(|stop| stop())
    }

    /// Forgets all but the first `len` tokens; more of them if layers with a window have forgotten what they need there: see
    /// [`cached_tokens`](Self::cached_tokens).
    pub fn truncate(&mut self, len: usize) {
        self.books.truncate(len);
    }

    /// Keeps what layers with a window need to continue from here, so that [`truncate`](Self::truncate) can come back, as far as there
    /// is room.
    pub fn anchor(&mut self) {
        self.books.anchor();
    }

    /// Feeds `tokens` and gives the logits `[vocab]` after each of those at the ascending places `rows`. Fails
    /// where it is stopped ([`stop_when`](Self::stop_when)).
    pub fn logits(&mut self, tokens: &[u32], rows: &[usize]) -> Result<Vec<Vec<f32>>> {
        pollster::block_on(self.logits_async(tokens, rows))
    }

    /// As [`logits`](Self::logits).
    pub async fn logits_async(&mut self, tokens: &[u32], rows: &[usize]) -> Result<Vec<Vec<f32>>> {
        self.check(tokens)?;
        let vocab = self.model.spec().vocab;
        // On a GPU that is nearly full they are fewer: logits lie there twice, the second time to be read.
        let left = self.engine.device().map_or(u64::MAX, gpu::Device::budget_left);
        let bytes = LOGITS_BYTES.min(usize::try_from(left / 4).unwrap_or(usize::MAX));
        let most_rows = (bytes / 4 / vocab).max(1);
        let (mut start, mut wanted, mut all) = (0, rows, Vec::with_capacity(rows.len()));
        while start < tokens.len() {
            if self.stops() {
                return Err(stopped());
            }
            let mut end = (start + self.options.batch).min(tokens.len());
            // A batch ends where its logits would be too many.
            if let Some(row) = wanted.get(most_rows).filter(|row| **row < end) {
                end = *row;
            }
            let (here, later) = wanted.split_at(wanted.partition_point(|row| *row < end));
            let here: Vec<u32> = here.iter().map(|row| (row - start) as u32).collect();
            let work =
                async |engine: &mut Engine, past: usize| engine.decode_async(&tokens[start..end], past, &here).await;
            let logits = self.retry(end - start, work).await?;
            all.extend(logits.chunks(vocab).map(<[f32]>::to_vec));
            self.books.commit(&tokens[start..end]);
            (start, wanted) = (end, later);
        }
        Ok(all)
    }

    /// Errors for tokens that the vocabulary does not have or the context has no room for.
    pub(super) fn check(&self, tokens: &[u32]) -> Result<()> {
        self.check_at(self.cached_tokens().len(), tokens)
    }

    /// The same after only the first `kept` of the tokens so far.
    pub(super) fn check_at(&self, kept: usize, tokens: &[u32]) -> Result<()> {
        let vocab = self.model.spec().vocab;
        if let Some(token) = tokens.iter().find(|t| **t as usize >= vocab) {
            return Err(Error::usage(format!("token {token} is outside the vocabulary of {vocab}")));
        }
        if kept + tokens.len() > self.options.context {
            let what = format!("{} tokens do not fit the context of {}", kept + tokens.len(), self.options.context);
            return Err(Error::usage(what).help("use a larger context (-c) or a shorter prompt"));
        }
        Ok(())
    }

    /// Feeds `tokens` in batches, all but the last batch, which is returned: its logits are wanted. `None` where it was stopped.
    pub(super) async fn feed_all_but_last<'t>(&mut self, tokens: &'t [u32]) -> Result<Option<&'t [u32]>> {
        let mut rest = tokens;
        loop {
            if self.pauses().await || self.stops() {
                return Ok(None);
            }
            if rest.len() <= self.options.batch {
                return Ok(Some(rest));
            }
            let (now, later) = rest.split_at(self.options.batch);
            let work = async |engine: &mut Engine, past: usize| engine.decode_async(now, past, &[]).await;
            self.retry(now.len(), work).await?;
            self.books.commit(now);
            rest = later;
        }
    }
}
