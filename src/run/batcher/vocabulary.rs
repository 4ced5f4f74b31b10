//! What a batcher must know of a model's tokens.

use crate::base::Result;
use crate::model::Model;
use crate::sample::{Sampler, SamplerOptions, VocabInfo};
use crate::text::Tokenizer;

/// The tokens of a model: how many there are, which text they stand for, and how they are drawn.
pub trait Vocabulary: Send + Sync {
    /// Length of a row of logits: the tokens, with the model's padding.
    fn size(&self) -> usize;

    /// The tokenizer. Without one no token ends an answer, and answers have no text.
    fn tokenizer(&self) -> Option<&Tokenizer>;

    /// A sampler by `options` for sequences of up to `context` tokens.
    ///
    /// # Errors
    /// If the options make no sense for the model.
    fn sampler(&self, options: &SamplerOptions, context: usize) -> Result<Sampler> {
        Sampler::new(options, &VocabInfo { tokens: self.size(), context, dry_breakers: &[] })
    }
}

impl Vocabulary for Model {
    fn size(&self) -> usize {
        self.spec().vocab
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer().ok()
    }

    fn sampler(&self, options: &SamplerOptions, context: usize) -> Result<Sampler> {
        self.sampler(options, context)
    }
}
