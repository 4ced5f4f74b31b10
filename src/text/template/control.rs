//! The texts of a vocabulary's control tokens: what must not come out of a user's words.

use crate::base::{Error, Result};
use aho_corasick::{AhoCorasick, MatchKind};
use regex::Regex;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

/// Finds control tokens in text. Made once for a model, shared by its renderings.
#[derive(Debug)]
pub struct ControlTokens {
    finder: AhoCorasick,
    texts: Vec<String>,
    edges: BTreeSet<char>,
}

impl ControlTokens {
    /// For the texts of control tokens, in any order. Fails if there are too many for an automaton.
    pub fn new<T: Into<String>>(texts: impl IntoIterator<Item = T>) -> Result<ControlTokens> {
        let texts: BTreeSet<String> = texts.into_iter().map(T::into).filter(|text| !text.is_empty()).collect();
        let texts: Vec<String> = texts.into_iter().collect();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&texts);
        let finder = finder.map_err(|e| Error::format("no automaton for the control tokens").because(e))?;
        let edges = texts.iter().flat_map(|text| text.chars().next().into_iter().chain(text.chars().next_back()));
        Ok(ControlTokens { finder, edges: edges.collect(), texts })
    }

    /// For a vocabulary that is not known: everything in a template's source that looks like a control token.
    pub(super) fn guessed(source: &str, bos: &str, eos: &str) -> Result<ControlTokens> {
        static LIKELY: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"</?[^\s<>/'\x22{}]{1,60}>|\[/?[A-Z_]{2,40}\]").expect("a valid pattern"));
        let found = LIKELY.find_iter(source).map(|found| found.as_str());
        ControlTokens::new(found.chain([bos, eos]))
    }

    /// Where control tokens stand in a text, and which.
    pub(super) fn find(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        self.finder.find_iter(text).map(|found| (found.range(), found.pattern().as_usize())).collect()
    }

    /// Whether a text holds one.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.finder.is_match(text)
    }

    /// The text of a token that [`ControlTokens::find`] named.
    pub(super) fn text(&self, token: usize) -> &str {
        &self.texts[token]
    }

    /// Whether a word is a part of some token.
    pub(super) fn has_part(&self, word: &str) -> bool {
        self.texts.iter().any(|text| text.contains(word))
    }

    /// Whether tokens begin or end with a character.
    pub(super) fn is_edge(&self, c: char) -> bool {
        self.edges.contains(&c)
    }
}
