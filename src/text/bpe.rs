//! Byte-pair encoding: words of a pre-tokenizer, merged in the order of the merge list.
//! Source: arXiv 1508.07909, and the `tokenizers` crate for ties. Merging here costs O(n log n) for any word.
//!
//! Words are handled as plain bytes; the printable spelling of the file ([`bytemap`]) is undone when it is loaded.

use super::bytemap;
use super::merge::{Merger, Pairs, Symbol};
use super::pre::{Rules, Spelling};
use super::pretokenize::PreTokenizer;
use super::tokenizer::Model;
use super::vocab::{Fallback, Vocab, unescaped};
use crate::base::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;

/// The id of a symbol that is no token.
const NONE: u32 = u32::MAX;

/// A BPE model with its pre-tokenizer.
#[derive(Debug)]
pub(super) struct Bpe {
    pre: PreTokenizer,
    rules: Rules,
    words: HashMap<Box<[u8]>, u32>,
    /// Rank and merged token by the two tokens' ids.
    merges: HashMap<(u32, u32), (u32, u32)>,
    bytes: [u32; 256],
    fallback: Fallback,
}

impl Bpe {
    /// Builds the model. A merge of what is no token, or into none, can never happen and is left out.
    /// Fails if there is no merge list.
    pub fn new(vocab: &Vocab, merges: Option<&[Vec<u8>]>, unknown: Option<u32>, rules: &Rules) -> Result<Bpe> {
        let listed = merges.ok_or_else(|| {
            Error::format("the file has no tokenizer.ggml.merges").help("convert the model again with its merge list")
        })?;
        let respell = |text: &[u8]| match rules.spelling {
            Spelling::Bytes => bytemap::decode(text),
            Spelling::Spaces => Some(text.to_vec()),
        };
        let ordinary = vocab.iter().filter(|(.., class)| class.is_ordinary());
        let words: HashMap<Box<[u8]>, u32> =
            ordinary.filter_map(|(id, token, _)| Some((respell(token)?.into_boxed_slice(), id))).collect();
        let mut ranks = HashMap::with_capacity(listed.len());
        let mut joined = vec![];
        for (rank, merge) in listed.iter().enumerate() {
            let Some((left, right)) = halves(merge) else { continue };
            let (Some(left), Some(right)) = (respell(left), respell(right)) else { continue };
            joined.clear();
            joined.extend_from_slice(&left);
            joined.extend_from_slice(&right);
            let id = |text: &[u8]| words.get(text).copied();
            if let (Some(left), Some(right), Some(merged)) = (id(&left), id(&right), id(&joined)) {
                ranks.entry((left, right)).or_insert((rank as u32, merged));
            }
        }
        let byte = |byte: u8| words.get(&[byte][..]).copied();
        let mut bytes = [NONE; 256];
        for (value, id) in (0..=255).zip(&mut bytes) {
            *id = byte(value).unwrap_or(NONE);
        }
        let fallback = Fallback::new(vocab, unknown);
        Ok(Bpe { pre: PreTokenizer::new(rules.splits), rules: *rules, fallback, bytes, merges: ranks, words })
    }

    /// Appends a word's tokens; gives the place of the first byte that has none.
    fn word(&self, word: &str, merger: &mut Merger, out: &mut Vec<u32>) -> Option<usize> {
        let spaces = self.rules.spelling == Spelling::Spaces;
        // A run of line ends is one token where there is one: the merge list cannot say so, its lines being words.
        let whole = self.rules.ignore_merges || (spaces && word.bytes().all(|byte| byte == b'\n'));
        if let Some(&id) = self.words.get(word.as_bytes()).filter(|_| whole) {
            out.push(id);
            return None;
        }
        merger.clear();
        if spaces {
            let mut buffer = [0; 4];
            for c in word.chars() {
                let text = c.encode_utf8(&mut buffer).as_bytes();
                merger.push(text.len(), self.words.get(text).copied().unwrap_or(NONE));
            }
        } else {
            word.bytes().for_each(|byte| merger.push(1, self.bytes[byte as usize]));
        }
        merger.run(word.as_bytes(), self);
        let mut lost = None;
        for symbol in merger.symbols() {
            match symbol.id {
                NONE => {
                    let at = self.fallback.spell(&word.as_bytes()[symbol.range()], out);
                    lost = lost.or(at.map(|at| symbol.range().start + at));
                }
                id => out.push(id),
            }
        }
        lost
    }
}

impl Pairs for Bpe {
    fn pair(&self, _: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        self.merges.get(&(left.id, right.id)).copied()
    }
}

impl Model for Bpe {
    fn encode(&self, text: &str, _: bool, out: &mut Vec<u32>) -> Option<usize> {
        let escaped = match self.rules.spelling {
            Spelling::Bytes => Cow::Borrowed(text),
            Spelling::Spaces => Cow::Owned(text.replace(' ', "▁")),
        };
        let (mut merger, mut lost) = (Merger::default(), None);
        for word in self.pre.words(&escaped) {
            let at = self.word(&escaped[word.clone()], &mut merger, out);
            lost = lost.or(at.map(|at| word.start + at));
        }
        lost.map(|at| unescaped(text, &escaped, at, 0))
    }
}

/// The two sides of a merge. They are parted by the first space that does not begin the line.
fn halves(merge: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = 1 + merge.get(1..)?.iter().position(|&byte| byte == b' ')?;
    Some((&merge[..space], &merge[space + 1..]))
}
