//! SentencePiece's BPE as llama.cpp reads it: merge the neighbours whose joined text has the highest score.
//! Spaces are `▁`; text after a special token gets one in front; characters without a token become byte tokens.

use super::merge::{Merger, Pairs, Symbol};
use super::tokenizer::Model;
use super::vocab::{Fallback, Vocab, unescaped};
use crate::base::{Error, Result};
use std::collections::HashMap;

/// The id of a symbol that is no token.
const NONE: u32 = u32::MAX;

/// An SPM model.
#[derive(Debug)]
pub(super) struct Spm {
    /// Rank (lower for a higher score) and id by text.
    words: HashMap<Box<[u8]>, (u32, u32)>,
    longest: usize,
    fallback: Fallback,
    space_prefix: bool,
}

impl Spm {
    /// Builds the model. Fails if there are no scores.
    pub fn new(vocab: &Vocab, scores: Option<&[f32]>, unknown: Option<u32>, space_prefix: bool) -> Result<Spm> {
        let scores = scores.ok_or_else(|| {
            Error::format("the file has no tokenizer.ggml.scores").help("convert the model again with its scores")
        })?;
        let ordinary = vocab.iter().filter(|(.., class)| class.is_ordinary());
        let words: HashMap<Box<[u8]>, (u32, u32)> =
            ordinary.map(|(id, token, _)| (token.into(), (rank(scores[id as usize]), id))).collect();
        let fallback = Fallback::new(vocab, unknown).or_words(|byte| words.get(&[byte][..]).map(|&(_, id)| id));
        Ok(Spm { longest: words.keys().map(|word| word.len()).max().unwrap_or(0), words, fallback, space_prefix })
    }
}

/// A number that is lower the higher the score is: the bits of an IEEE float order it, negative ones in reverse.
fn rank(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // −0 becomes 0
    if bits >> 31 == 1 { bits } else { !bits & (u32::MAX >> 1) }
}

impl Pairs for Spm {
    fn pair(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        let joined = left.range().start..right.range().end;
        // Longer than any token: not worth hashing, and it keeps long runs linear.
        if joined.len() > self.longest {
            return None;
        }
        self.words.get(&text[joined]).copied()
    }
}

impl Model for Spm {
    fn encode(&self, text: &str, after_special: bool, out: &mut Vec<u32>) -> Option<usize> {
        let mut escaped = String::with_capacity(text.len() + text.len() / 2);
        let added = self.space_prefix && after_special;
        if added {
            escaped.push('▁');
        }
        text.chars().for_each(|c| escaped.push(if c == ' ' { '▁' } else { c }));
        let bytes = escaped.as_bytes();
        let mut merger = Merger::default();
        let mut buffer = [0; 4];
        for c in escaped.chars() {
            let text = c.encode_utf8(&mut buffer).as_bytes();
            merger.push(text.len(), self.words.get(text).map_or(NONE, |&(_, id)| id));
        }
        merger.run(bytes, self);
        let mut lost = None;
        for symbol in merger.symbols() {
            match symbol.id {
                NONE => {
                    let at = self.fallback.spell(&bytes[symbol.range()], out);
                    lost = lost.or(at.map(|at| symbol.range().start + at));
                }
                id => out.push(id),
            }
        }
        lost.map(|at| unescaped(text, &escaped, at, usize::from(added)))
    }
}

#[cfg(test)]
mod tests {
    use super::rank;

    #[test]
    fn higher_scores_rank_lower() {
        let scores = [f32::INFINITY, 3.5, 1e-30, 0.0, -1e-30, -1.0, -1000.0, f32::MIN, f32::NEG_INFINITY];
        assert!(scores.is_sorted_by_key(|&score| rank(score)));
        assert!(scores.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(-0.0), rank(0.0));
    }
}
