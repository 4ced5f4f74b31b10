//! Floor 5: from logits to a token.
//!
//! A [`Sampler`] is a chain of stages over the [`Candidates`], built from [`SamplerOptions`] as data: logit bias →
//! penalties → DRY → top-n-sigma → top-k → typical → top-p → min-p → XTC → temperature → draw. Mirostat takes the place
//! of the chain, adaptive-p that of the draw. Meaning and defaults are llama.cpp's, with these differences, all for
//! results that do not depend on the machine:
//! - ties go to the lower token id, sums run in f64, exp and ln are our own (`math.rs`);
//! - random numbers are a pure function of seed and step ([`uniform`]), the same on the GPU;
//! - banned tokens (-inf) count as probability 0 everywhere, where llama.cpp can get NaN from them;
//! - temperature 0 is greedy even if the order of samplers leaves temperature out.
//!
//! Stages that look back (penalties, DRY) read the sequence's own tokens, which the caller hands over at each draw: nobody keeps a
//! copy, so that none can be of a text that is no longer there.
//!
//! Once warm, drawing a token allocates nothing.

mod adaptive;
mod candidates;
mod device;
mod draw;
mod dry;
mod math;
mod mirostat;
mod options;
mod order;
mod penalties;
mod sampler;
mod tally;
mod temperature;
mod truncate;
mod xtc;

#[cfg(test)]
mod tests;

pub use crate::base::{RngDomain, SeededRng, uniform};
pub use candidates::{Candidate, Candidates};
pub use device::DeviceSampling;
pub use dry::tokenize_breakers;
pub use options::SamplerOptions;
pub use order::{DEFAULT_ORDER, order_from_letters};
pub use sampler::{Sampler, VocabInfo};

/// One stage of the chain.
pub trait Stage: Send + std::fmt::Debug {
    /// As in an order string.
    fn name(&self) -> &'static str;

    /// Changes or removes candidates, or selects one. `text` is the sequence so far, prompt included, oldest token first; `rng` has
    /// the random numbers of this draw.
    fn apply(&mut self, candidates: &mut Candidates, text: &[u32], rng: &SeededRng);

    /// A token became part of the text.
    fn accept(&mut self, _token: u32) {}

    /// Forgets what earlier draws have left behind.
    fn reset(&mut self) {}

    /// `Some(k)` where the stage keeps the `k` highest logits and does nothing else.
    fn keeps_top(&self) -> Option<usize> {
        None
    }
}
