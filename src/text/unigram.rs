//! Unigram language model (T5, XLM-R): of all ways to spell a text, the one whose tokens' scores have the greatest sum.
//! Source: arXiv 1804.10959, SentencePiece.
//!
//! One pass over the text: an automaton reports the tokens that end at each byte, and each byte keeps its best way here.

use super::charsmap::CharsMap;
use super::source::VocabSource;
use super::tokenizer::Model;
use super::vocab::Vocab;
use crate::base::{Error, Result};
use aho_corasick::AhoCorasick;

/// How much worse than the worst token an unknown character is.
const UNKNOWN_PENALTY: f64 = 10.0;

/// More bytes of tokens' texts than this are refused: the automaton takes some dozens of bytes for each.
const MAX_TEXTS: usize = 64 << 20;

/// A unigram model with its normalizer.
#[derive(Debug)]
pub(super) struct Unigram {
    automaton: AhoCorasick,
    /// Id and score by the automaton's patterns.
    tokens: Vec<(u32, f64)>,
    unknown: u32,
    unknown_score: f64,
    charsmap: CharsMap,
    space_prefix: bool,
    join_spaces: bool,
}

/// The best way to spell the text up to some byte: its score, and the last token with its beginning.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: usize,
    id: u32,
}

impl Unigram {
    /// Builds the model. Fails without scores or an unknown token, and where the texts exceed 64 MiB.
    pub fn new(vocab: &Vocab, source: &VocabSource, unknown: Option<u32>) -> Result<Unigram> {
        let scores = source.scores.as_deref().ok_or_else(|| Error::format("the file has no tokenizer.ggml.scores"))?;
        let unknown = unknown.ok_or_else(|| Error::format("a unigram vocabulary must have an unknown token"))?;
        let ordinary = vocab.iter().filter(|(.., class)| class.is_ordinary());
        let (texts, tokens): (Vec<&[u8]>, Vec<(u32, f64)>) =
            ordinary.map(|(id, token, _)| (token, (id, f64::from(scores[id as usize])))).unzip();
        let total: usize = texts.iter().map(|text| text.len()).sum();
        if total > MAX_TEXTS {
            return Err(Error::format(format!("{total} bytes of tokens' texts, at most {MAX_TEXTS} are allowed")));
        }
        let worst = tokens.iter().map(|&(_, score)| score).fold(f64::INFINITY, f64::min);
        let automaton = AhoCorasick::new(texts).map_err(|e| Error::format("no automaton for the tokens").because(e))?;
        Ok(Unigram {
            automaton,
            tokens,
            unknown,
            unknown_score: worst.min(f64::from(f32::MAX)) - UNKNOWN_PENALTY,
            charsmap: CharsMap::new(source.charsmap.as_deref().unwrap_or_default())?,
            space_prefix: source.add_space_prefix.unwrap_or(false),
            join_spaces: source.remove_extra_whitespaces.unwrap_or(false),
        })
    }

    /// The text with the table's replacements and `▁` for spaces.
    fn normalize(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len() + text.len() / 2);
        let (mut rest, mut in_word, mut prefixed) = (text, false, false);
        while let Some(first) = rest.chars().next() {
            let (length, with) = self.charsmap.longest(rest).unwrap_or((first.len_utf8(), &rest[..first.len_utf8()]));
            for c in with.chars() {
                match c {
                    ' ' if self.join_spaces => {}
                    ' ' => out.push('▁'),
                    _ if !in_word && (self.join_spaces || (self.space_prefix && !prefixed)) => {
                        prefixed = true;
                        out.extend(['▁', c]);
                    }
                    _ => out.push(c),
                }
                in_word = c != ' ';
            }
            rest = &rest[length..];
        }
        out
    }

    /// The best last token for each byte where a character ends.
    fn best(&self, text: &str) -> Vec<Best> {
        let nothing = Best { score: f64::NEG_INFINITY, start: 0, id: self.unknown };
        let mut best = vec![nothing; text.len() + 1];
        best[0].score = 0.0;
        let mut found = self.automaton.find_overlapping_iter(text).peekable();
        let mut start = 0;
        for c in text.chars() {
            let end = start + c.len_utf8();
            let mut known = false;
            while let Some(token) = found.next_if(|token| token.end() <= end) {
                let (id, score) = self.tokens[token.pattern().as_usize()];
                // A token may end within a character only if it is no UTF-8.
                if token.end() < end || !text.is_char_boundary(token.start()) {
                    continue;
                }
                known |= token.start() == start;
                let score = best[token.start()].score + score;
                if score > best[end].score {
                    best[end] = Best { score, start: token.start(), id };
                }
            }
            let score = best[start].score + self.unknown_score;
            if !known && score > best[end].score {
                best[end] = Best { score, start, id: self.unknown };
            }
            start = end;
        }
        best
    }
}

impl Model for Unigram {
    fn encode(&self, text: &str, _: bool, out: &mut Vec<u32>) -> Option<usize> {
        let text = self.normalize(text);
        let best = self.best(&text);
        let first = out.len();
        let mut end = text.len();
        while end > 0 {
            let Best { start, id, .. } = best[end];
            // A run of unknown characters is one unknown token.
            if id != self.unknown || out.len() == first || out.last() != Some(&self.unknown) {
                out.push(id);
            }
            end = start;
        }
        out[first..].reverse();
        // What has no token is the unknown one: a unigram vocabulary always has it.
        None
    }
}
