//! Random prompts.

use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::ops::Random;

/// A prompt of random tokens.
pub fn tokens(model: &Model, seed: u64, len: usize) -> Vec<u32> {
    let (mut random, vocab) = (Random(seed), model.spec().vocab as u32);
    (0..len).map(|_| random.bits() % vocab).collect()
}
