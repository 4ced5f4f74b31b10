//! The kinds of vocabularies (`tokenizer.ggml.model`) and what each takes for granted.

use super::bpe::Bpe;
use super::pre::{self, Bos, Rules, Spelling};
use super::source::{SpecialIds, VocabSource};
use super::spm::Spm;
use super::tokenizer::Model;
use super::unigram::Unigram;
use super::vocab::Vocab;
use super::wordpiece::WordPiece;
use crate::base::{Error, Result};

/// A kind of vocabulary.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Byte-pair encoding with the rules of its pre-tokenizer.
    Bpe(&'static Rules),
    /// SentencePiece, merged by score.
    Spm,
    /// SentencePiece, the likeliest spelling.
    Unigram,
    /// BERT's.
    WordPiece,
}

impl Kind {
    /// The kind that a file names. Fails for unknown models and pre-tokenizers.
    pub fn of(source: &VocabSource) -> Result<Kind> {
        match (source.model.as_str(), source.pre.as_deref()) {
            ("gpt2", Some(name)) => Ok(Kind::Bpe(known(name)?)),
            ("gpt2", None) => {
                tracing::warn!("the file names no pre-tokenizer: the default one may split text unlike the original");
                Ok(Kind::Bpe(known("default")?))
            }
            ("gemma4", _) => Ok(Kind::Bpe(known("gemma4")?)),
            ("llama", _) => Ok(Kind::Spm),
            ("t5", _) => Ok(Kind::Unigram),
            ("bert", _) => Ok(Kind::WordPiece),
            _ => Err(Error::unsupported("no such kind of tokenizer is supported")
                .help("supported are llama (SPM), gpt2 and gemma4 (BPE), t5 (unigram) and bert (WordPiece)")),
        }
    }

    /// Builds the model.
    pub fn model(self, vocab: &Vocab, source: &VocabSource, unknown: Option<u32>) -> Result<Box<dyn Model>> {
        Ok(match self {
            Kind::Bpe(rules) => Box::new(Bpe::new(vocab, source.merges.as_deref(), unknown, rules)?),
            Kind::Spm => Box::new(Spm::new(vocab, source.scores.as_deref(), unknown, self.adds_space(source))?),
            Kind::Unigram => Box::new(Unigram::new(vocab, source, unknown)?),
            Kind::WordPiece => {
                let lowercase = source.lowercase.unwrap_or(true);
                Box::new(WordPiece::new(vocab, unknown, lowercase, source.strip_accents.unwrap_or(lowercase))?)
            }
        })
    }

    /// How the vocabulary writes text down.
    pub fn spelling(self) -> Spelling {
        match self {
            Kind::Bpe(rules) => rules.spelling,
            _ => Spelling::Spaces,
        }
    }

    /// Whether the tokens of a text begin with a space that is not in the text.
    pub fn adds_space(self, source: &VocabSource) -> bool {
        match self {
            Kind::Bpe(_) => false,
            Kind::Spm => source.add_space_prefix.unwrap_or(true),
            Kind::Unigram => source.add_space_prefix == Some(true) || source.remove_extra_whitespaces == Some(true),
            Kind::WordPiece => true,
        }
    }

    /// The ids that roles have where the file does not say.
    pub fn default_ids(self) -> SpecialIds {
        let none = SpecialIds::default();
        match self {
            Kind::Bpe(_) => none,
            Kind::Spm => SpecialIds { bos: Some(1), eos: Some(2), unk: Some(0), ..none },
            Kind::Unigram => SpecialIds { eos: Some(1), unk: Some(2), pad: Some(0), ..none },
            Kind::WordPiece => {
                let (pad, unk, bos, sep, mask) = (Some(0), Some(100), Some(101), Some(102), Some(103));
                SpecialIds { bos, unk, sep, pad, mask, ..none }
            }
        }
    }

    /// The tokens that go around a text. Fails if the file asks for one and has none.
    pub fn first_and_last(self, source: &VocabSource, ids: &SpecialIds) -> Result<(Option<u32>, Option<u32>)> {
        let (add_bos, asked) = match self {
            Kind::Bpe(rules) => (rules.bos != Bos::IfSaid, source.add_bos.filter(|_| rules.bos != Bos::Always)),
            Kind::Spm | Kind::WordPiece => (true, source.add_bos),
            Kind::Unigram => (false, source.add_bos),
        };
        let last = match self {
            Kind::WordPiece => pick("sep", source.add_sep, true, ids.sep)?,
            Kind::Unigram => pick("eos", source.add_eos, true, ids.eos)?,
            Kind::Bpe(_) | Kind::Spm => pick("eos", source.add_eos, false, ids.eos)?,
        };
        Ok((pick("bos", asked, add_bos, ids.bos)?, last))
    }
}

fn pick(role: &str, stated: Option<bool>, default: bool, id: Option<u32>) -> Result<Option<u32>> {
    match (stated, id) {
        (Some(true), None) => {
            Err(Error::format(format!("tokenizer.ggml.add_{role}_token is true, but the file has no {role} token")))
        }
        (add, id) => Ok(id.filter(|_| add.unwrap_or(default))),
    }
}

fn known(name: &str) -> Result<&'static Rules> {
    pre::rules(name).ok_or_else(|| {
        Error::unsupported(format!("the pre-tokenizer {name:?} (tokenizer.ggml.pre) is unknown"))
            .help("text would be split wrongly without it: a newer version may know it")
    })
}
