//! Answers of the likeliest tokens.

use std::ops::ControlFlow;
use wgpu_llm::low_level::run::{Generation, Session};
use wgpu_llm::low_level::sample::{Sampler, SamplerOptions, VocabInfo};

/// What `session` answers to `prompt`, each time with the likeliest token.
pub fn greedy(session: &mut Session, prompt: &[u32], limit: usize) -> Generation {
    let info = VocabInfo { tokens: session.model().spec().vocab, context: session.context(), dry_breakers: &[] };
    let mut sampler = Sampler::new(&SamplerOptions::greedy(), &info).expect("valid options");
    session.generate(prompt, &mut sampler, limit, &mut |_| ControlFlow::Continue(())).expect("an answer")
}
