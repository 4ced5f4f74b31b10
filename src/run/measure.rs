//! Work to be timed: prompts of any tokens, and tokens after them, without a tokenizer that may end the answer.

use super::Session;
use super::generate::poisoned;
use super::session::stopped;
use crate::base::Result;
use crate::ops::{DrawNumber, Random, Sample, SampleParams};

/// What draws where the device draws: temperature alone, so that the next token is a surprise.
const DRAW: SampleParams =
    SampleParams { temp: 1.0, top_k: 40, top_p: 1.0, min_p: 0.0, seed: 0, draw: DrawNumber::From(0) };

impl Session {
    /// Feeds `n` random tokens in batches, as a prompt is fed, and waits for the logits of the last.
    pub fn measure_prompt(&mut self, n: usize) -> Result<()> {
        let tokens = self.random_tokens(n);
        self.check(&tokens)?;
        let last = pollster::block_on(self.feed_all_but_last(&tokens))?.ok_or_else(stopped)?;
        self.books.reserve(&mut self.engine, last.len())?;
        self.engine.decode(last, self.books.tokens().len(), &[last.len() as u32 - 1])?;
        self.books.commit(last);
        Ok(())
    }

    /// Feeds `n` tokens one by one and waits for the logits of each.
    ///
    /// Where tokens stay on the device, it draws them, and each is fed while the one before is on its way to the host:
    /// this is how answers are made there. Elsewhere they are random: drawing is the sampler's work, not the model's.
    pub fn measure_answer(&mut self, n: usize) -> Result<()> {
        let tokens = self.random_tokens(n);
        self.check(&tokens)?;
        if !self.engine.runs_ahead() {
            for token in tokens {
                self.books.reserve(&mut self.engine, 1)?;
                self.engine.decode(&[token], self.books.tokens().len(), &[0])?;
                self.books.commit(&[token]);
            }
            return Ok(());
        }
        let Some(first) = tokens.first() else { return Ok(()) };
        self.books.reserve(&mut self.engine, 1)?;
        let mut pending = self.engine.decode_and_sample(&[*first], self.books.tokens().len(), &DRAW)?;
        self.books.commit(&[*first]);
        for _ in 1..n {
            self.books.reserve(&mut self.engine, 1)?;
            let next = self.engine.sample_next()?;
            match std::mem::replace(&mut pending, next).wait()? {
                Sample::POISONED => return Err(poisoned()),
                token => self.books.commit(&[token]),
            }
        }
        pending.wait().map(drop)
    }

    fn random_tokens(&self, n: usize) -> Vec<u32> {
        let mut random = Random(self.cached_tokens().len() as u64);
        (0..n).map(|_| random.bits() % self.model.spec().vocab as u32).collect()
    }
}
