//! Floor 2: text to token ids and back: vocabularies, pre-tokenizers, merges, streaming detokenization; and from a
//! conversation to text and back: messages, chat templates, reasoning told from answers.
//!
//! Only template text may name control tokens; what users write never becomes one ([`Segment`]).

mod arena;
mod bpe;
mod bytemap;
mod charsmap;
mod detokenize;
mod kind;
mod merge;
mod message;
mod partition;
mod pre;
mod pretokenize;
mod reasoning;
mod source;
mod special;
mod spm;
mod stop;
mod template;
mod tokenizer;
mod unigram;
mod vocab;
mod wordpiece;

pub(crate) use detokenize::take_whole;
pub use detokenize::{DetokenizeOptions, Detokenizer};
pub use message::{Content, FunctionCall, Message, Part, Role, ToolCall};
pub use partition::Segment;
pub use pre::pre_tokenizer_names;
pub use reasoning::{Piece, ReasoningSplitter, ReasoningStyle};
pub use source::{MetadataKeys, SpecialIds, VocabSource};
pub use stop::StopStrings;
pub use template::{Capabilities, ChatTemplate, Clock, ControlTokens, Prompt, RenderOptions};
pub use tokenizer::Tokenizer;

#[cfg(test)]
mod test_vocab;
#[cfg(test)]
mod tests;
