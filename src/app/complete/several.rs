//! Requests that are answered several at a time. A job hands them over one by one, and gets each answer as soon as it is there.

use crate::app::term;
use crate::base::ErrorKind::{Format, Numeric, Unsupported, Usage as Misuse};
use crate::base::{Error, Result};
use crate::chat::ResponseStream;
use crate::run::StepEngine;
use crate::run::batcher::{Batcher, Event, Handle, Request, Usage};
use crate::run::schedule::FinishReason;
use std::fmt;
use std::time::{Duration, Instant};

/// For each sequence that runs, so many requests are submitted: the next ones are at hand when one ends, and wait for each other if
/// they begin alike.
const SUBMITTED: usize = 4;

/// A request of a job.
pub struct Ask<'t, K> {
    /// What the job knows it by.
    pub key: K,
    /// The request, without stop strings: those are the response's.
    pub request: Request,
    /// Makes a text of its tokens.
    pub response: ResponseStream<'t>,
}

/// What became of a request.
pub struct Completed {
    /// The text.
    pub content: String,
    /// The model's reasoning before it.
    pub reasoning: String,
    /// The tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Those of them that other requests had computed.
    pub cached: usize,
    /// The seed of its random numbers.
    pub seed: u64,
}

/// Requests, and what is done with their answers. Both may end all the work with an error.
pub trait Job<'t> {
    /// What a request is known by.
    type Key;

    /// The next request; `None` after the last.
    fn next(&mut self) -> Result<Option<Ask<'t, Self::Key>>>;

    /// Takes an answer, or the error of a request that cannot be answered.
    fn answered(&mut self, key: Self::Key, answer: Result<Completed>) -> Result<()>;
}

/// How much was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    answers: usize,
    prompt: usize,
    cached: usize,
    tokens: usize,
    time: Duration,
}

/// A request that is submitted.
struct Open<'t, K> {
    key: K,
    handle: Handle,
    response: ResponseStream<'t>,
    tokens: Vec<u32>,
}

/// Answers all requests of a job, up to `parallel` at a time. Ctrl-C ends it, and so does an error that is not one request's alone;
/// what is under way then is given up.
pub fn run<'t, J: Job<'t>>(batcher: &mut Batcher<StepEngine>, parallel: usize, job: &mut J) -> Result<Totals> {
    let (start, most) = (Instant::now(), SUBMITTED * parallel);
    let mut open: Vec<Open<'t, J::Key>> = Vec::with_capacity(most);
    let (mut totals, mut more) = (Totals::default(), true);
    loop {
        while more && open.len() < most {
            term::check_interrupt()?;
            let Some(Ask { key, request, response }) = job.next()? else {
                more = false;
                break;
            };
            match batcher.submit(request) {
                Ok(handle) => open.push(Open { key, handle, response, tokens: Vec::new() }),
                Err(e) => job.answered(key, Err(of_request(e)?))?,
            }
        }
        if open.is_empty() {
            return Ok(Totals { time: start.elapsed(), ..totals });
        }
        term::check_interrupt()?;
        batcher.step()?;
        let mut i = 0;
        while let Some(request) = open.get_mut(i) {
            let Some(ended) = request.receive() else {
                i += 1;
                continue;
            };
            let request = open.remove(i);
            let (key, answer) = match ended {
                Ok((finish, usage)) => request.into_answer(finish, usage),
                Err(e) => (request.key, Err(of_request(e)?)),
            };
            answer.iter().for_each(|answer| totals.add(answer));
            job.answered(key, answer)?;
        }
    }
}

/// The error, if it concerns one request alone; else it ends the work.
pub fn of_request(error: Error) -> Result<Error> {
    if matches!(error.kind(), Misuse | Format | Numeric | Unsupported) { Ok(error) } else { Err(error) }
}

/// The error of a prompt that is longer than the context.
pub fn too_long(prompt: usize, context: usize) -> Error {
    Error::usage(format!("this prompt takes {prompt} tokens, and the context has {context}"))
        .help("use a shorter prompt, or a larger context (-c)")
}

impl<K> Open<'_, K> {
    /// Takes what came for it; returns how it ended, if it did.
    fn receive(&mut self) -> Option<Result<(FinishReason, Usage)>> {
        while let Some(event) = self.handle.try_next() {
            match event {
                // Behind a stop string, tokens may come that were under way.
                Event::Token { token, .. } if !self.response.is_stopped() => {
                    self.tokens.push(token);
                    self.response.push(token);
                    if self.response.is_stopped() {
                        self.handle.cancel();
                    }
                }
                Event::Done { finish, usage, .. } => return Some(Ok((finish, usage))),
                Event::Failed { error } => return Some(Err(error)),
                Event::Token { .. } | Event::Queued { .. } | Event::Started { .. } | Event::Progress { .. } => {}
            }
        }
        None
    }

    fn into_answer(mut self, finish: FinishReason, usage: Usage) -> (K, Result<Completed>) {
        self.response.finish();
        let finish = if self.response.is_stopped() { FinishReason::Stop } else { finish };
        let (content, reasoning) = self.response.into_texts();
        let (prompt, cached, seed) = (usage.prompt_tokens, usage.cached_tokens, self.handle.seed());
        (self.key, Ok(Completed { content, reasoning, tokens: self.tokens, finish, prompt, cached, seed }))
    }
}

impl Totals {
    fn add(&mut self, answer: &Completed) {
        self.answers += 1;
        self.prompt += answer.prompt;
        self.cached += answer.cached;
        self.tokens += answer.tokens.len();
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        let rate = |n: usize| n as f64 / seconds.max(1e-9);
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let computed = self.prompt - self.cached;
        write!(f, "{} answer{} in {seconds:.1} s: ", self.answers, plural(self.answers))?;
        write!(f, "{computed} prompt token{} at {:.1} t/s", plural(computed), rate(computed))?;
        if self.cached > 0 {
            write!(f, " ({} more were cached)", self.cached)?;
        }
        write!(f, ", {} new at {:.1} t/s", self.tokens, rate(self.tokens))
    }
}
