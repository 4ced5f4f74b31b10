//! WordPiece (BERT): words cut at white space, punctuation and Han characters, then spelled in the longest tokens there are.
//! In GGUF a token that begins a word is written `▁word`, one that goes on is plain (`##ing` is `ing`).
//! Source: arXiv 1810.04805, tokenization.py of google-research/bert.

use super::tokenizer::Model;
use super::vocab::Vocab;
use crate::base::{Error, Result};
use regex::Regex;
use std::collections::HashMap;
use unicode_normalization::UnicodeNormalization;

/// Longer words are unknown, as in the original; it also keeps the search linear in the text.
const MAX_WORD_CHARS: usize = 100;

/// A WordPiece model.
#[derive(Debug)]
pub(super) struct WordPiece {
    words: HashMap<Box<[u8]>, u32>,
    longest: usize,
    unknown: u32,
    lowercase: bool,
    strip_accents: bool,
    dropped: Regex,
    accents: Regex,
    pieces: Regex,
}

impl WordPiece {
    /// Builds the model. Fails if there is no unknown token.
    pub fn new(vocab: &Vocab, unknown: Option<u32>, lowercase: bool, strip_accents: bool) -> Result<WordPiece> {
        let unknown = unknown.ok_or_else(|| Error::format("a WordPiece vocabulary must have an unknown token"))?;
        let ordinary = vocab.iter().filter(|(.., class)| class.is_ordinary());
        let words: HashMap<Box<[u8]>, u32> = ordinary.map(|(id, token, _)| (token.into(), id)).collect();
        let compile = |pattern: &str| Regex::new(pattern).expect("a constant pattern");
        Ok(WordPiece {
            longest: words.keys().map(|word| word.len()).max().unwrap_or(0),
            words,
            unknown,
            lowercase,
            strip_accents,
            dropped: compile(r"[\x00\u{FFFD}\p{C}--\s]+"),
            accents: compile(r"\p{Mn}+"),
            // Punctuation in the wider sense of the original (all ASCII symbols), Han characters, words.
            pieces: compile(
                r"[\p{P}$+<=>^`|~\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{F900}-\u{FAFF}\u{2F800}-\u{2FA1F}]|[^\s\p{P}$+<=>^`|~\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}\u{2B920}-\u{2CEAF}\u{F900}-\u{FAFF}\u{2F800}-\u{2FA1F}]+",
            ),
        })
    }

    /// The text without control characters and, if so wanted, without accents and capitals.
    fn normalize(&self, text: &str) -> String {
        let mut text = self.dropped.replace_all(text, "").into_owned();
        if self.strip_accents {
            text = self.accents.replace_all(&text.nfd().collect::<String>(), "").into_owned();
        }
        if self.lowercase {
            // By character: a whole-string mapping would look at the neighbours of a final sigma.
            text = text.chars().flat_map(char::to_lowercase).collect();
        }
        text
    }

    /// The longest tokens from the left, or `None` if some part is none.
    fn spell(&self, word: &str, out: &mut Vec<u32>) -> Option<()> {
        if word.chars().nth(MAX_WORD_CHARS).is_some() {
            return None;
        }
        let word = format!("▁{word}");
        let mut rest = word.as_bytes();
        while !rest.is_empty() {
            let lengths = (1..=rest.len().min(self.longest)).rev();
            let (id, length) = lengths.into_iter().find_map(|n| Some((*self.words.get(&rest[..n])?, n)))?;
            out.push(id);
            rest = &rest[length..];
        }
        Some(())
    }
}

impl Model for WordPiece {
    fn encode(&self, text: &str, _: bool, out: &mut Vec<u32>) -> Option<usize> {
        let text = self.normalize(text);
        for piece in self.pieces.find_iter(&text) {
            let before = out.len();
            if self.spell(piece.as_str(), out).is_none() {
                out.truncate(before);
                out.push(self.unknown);
            }
        }
        // What has no token is the unknown one, which a WordPiece vocabulary always has.
        None
    }
}
