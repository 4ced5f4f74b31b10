//! Floor 2: text to token ids and back: vocabularies, pre-tokenizers, merges, streaming detokenization.
//!
//! Only template text may name control tokens; what users write never becomes one ([`Segment`]).

mod arena;
mod bpe;
mod bytemap;
mod charsmap;
mod detokenize;
mod kind;
mod merge;
mod partition;
mod pre;
mod pretokenize;
mod source;
mod special;
mod spm;
mod tokenizer;
mod unigram;
mod vocab;
mod wordpiece;

pub use detokenize::{DetokenizeOptions, Detokenizer};
pub use partition::Segment;
pub use pre::pre_tokenizer_names;
pub use source::{MetadataKeys, SpecialIds, VocabSource};
pub use tokenizer::Tokenizer;

#[cfg(test)]
mod test_vocab;
#[cfg(test)]
mod tests;
