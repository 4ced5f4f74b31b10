//! Tokens that are drawn on the host, from the logits of their rows.

use super::event::TokenLogprobs;
use crate::base::Result;
use crate::ops::{Threads, for_chunks};
use crate::sample::Sampler;

/// What draws the tokens of one choice. It stays with the request if the choice is preempted, or its device lost.
#[derive(Debug)]
pub(super) struct HostSampler {
    pub sampler: Sampler,
    /// The prompt, then the answer so far.
    pub tokens: Vec<u32>,
    /// How many of the likeliest tokens are reported, if log-probabilities are.
    pub logprobs: Option<usize>,
}

/// A token that was drawn, or why none could be.
pub(super) type DrawResult = Result<(u32, Option<TokenLogprobs>)>;

/// One draw. The sampler is taken out of its answer meanwhile, so that threads can share the draws out.
#[derive(Debug)]
pub(super) struct HostDraw {
    /// Index among the outputs of the step.
    pub output: usize,
    /// Index among the rows of logits.
    pub row: usize,
    pub host: Box<HostSampler>,
    /// `None` before it is drawn, or if the row is missing.
    pub drawn: Option<DrawResult>,
}

impl HostSampler {
    /// Draws the next token from `logits` `[vocab]`.
    fn draw(&mut self, logits: &[f32]) -> DrawResult {
        let token = self.sampler.sample(logits, &self.tokens)?;
        Ok((token, self.logprobs.map(|top| TokenLogprobs::of(logits, token, top))))
    }

    /// The token is part of the answer.
    pub fn accept(&mut self, token: u32) {
        self.sampler.accept(token);
        self.tokens.push(token);
    }
}

/// Draws from `logits` `[n, vocab]`, shared out among `threads`, if there are any.
pub(super) fn draw_all(draws: &mut [HostDraw], logits: &[f32], vocab: usize, threads: Option<&dyn Threads>) {
    let draw = |draw: &mut HostDraw| {
        let row = draw.row * vocab..(draw.row + 1) * vocab;
        draw.drawn = logits.get(row).map(|logits| draw.host.draw(logits));
    };
    match threads {
        Some(threads) => for_chunks(threads, draws, 1, |_, chunk| chunk.iter_mut().for_each(draw)),
        None => draws.iter_mut().for_each(draw),
    }
}
