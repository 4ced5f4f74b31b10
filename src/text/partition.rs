//! Finds the tokens that are recognised as they stand, and keeps what users wrote apart from what templates wrote.

use super::source::VocabSource;
use super::vocab::{Class, Vocab};
use crate::base::{Error, Result};
use aho_corasick::{AhoCorasick, MatchKind};
use std::ops::Range;

/// A part of a prompt, by who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment<'a> {
    /// What a user (or a tool, or a document) wrote: never a control token, whatever it says.
    Text(&'a str),
    /// What the chat template wrote: names of control tokens in it become those tokens.
    Template(&'a str),
}

impl<'a> Segment<'a> {
    /// The text, whoever wrote it.
    pub fn as_str(&self) -> &'a str {
        match self {
            Segment::Text(text) | Segment::Template(text) => text,
        }
    }
}

/// A piece of the joined text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fragment {
    /// A token that stood there.
    Token(u32),
    /// Text still to be tokenized; never empty.
    Text(Range<usize>),
}

/// More than this many bytes of special tokens' texts are refused: the automaton takes some hundred bytes for each.
const MAX_TEXTS: usize = 4 << 20;

/// The matchers of a vocabulary.
#[derive(Debug)]
pub(super) struct Partition {
    template: Option<Matcher>,
    user: Option<Matcher>,
    /// Tokens that swallow the white space after them, ascending.
    strip_after: Vec<u32>,
}

#[derive(Debug)]
struct Matcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

impl Partition {
    /// Builds the matchers. Fails if the special tokens' texts together exceed 4 MiB.
    pub fn new(vocab: &Vocab, source: &VocabSource) -> Result<Partition> {
        let template = |class| matches!(class, Class::Control { .. } | Class::Unknown | Class::Whole);
        let phi3 =
            source.name.as_deref().map(str::to_lowercase).is_some_and(|n| n.contains("phi-3") || n.contains("phi3"));
        // Phi-3's special tokens are declared so in its tokenizer.json, which GGUF has no place for.
        let keeps = ["<unk>", "<s>", "<|endoftext|>"];
        let strips = |token: &[u8], class| template(class) && !keeps.iter().any(|keep| keep.as_bytes() == token);
        let strip_after = vocab.iter().filter(|(_, token, class)| phi3 && strips(token, *class)).map(|(id, ..)| id);
        Ok(Partition {
            strip_after: strip_after.collect(),
            template: Matcher::new(vocab, template)?,
            user: Matcher::new(vocab, |class| class == Class::Whole)?,
        })
    }

    /// Joins the segments and cuts out the tokens that stand in them. Text on both sides of a segment's border is one
    /// fragment, as if one hand had written it, but no control token is found across a border or in user text.
    pub fn fragments(&self, segments: &[Segment]) -> (String, Vec<Fragment>) {
        let mut joined = String::with_capacity(segments.iter().map(|segment| segment.as_str().len()).sum());
        let mut fragments = vec![];
        let mut rest = segments;
        let mut open = 0; // where the text after the last token begins
        while let Some(first) = rest.first() {
            let by_user = matches!(first, Segment::Text(_));
            let same = rest.iter().take_while(|segment| matches!(segment, Segment::Text(_)) == by_user).count();
            let start = joined.len();
            rest[..same].iter().for_each(|segment| joined.push_str(segment.as_str()));
            rest = &rest[same..];
            let matcher = if by_user { &self.user } else { &self.template };
            for (id, found) in matcher.iter().flat_map(|matcher| matcher.find(&joined[start..])) {
                close(&mut fragments, open, start + found.start);
                fragments.push(Fragment::Token(id));
                open = start + found.end;
            }
        }
        close(&mut fragments, open, joined.len());
        self.strip(&joined, &mut fragments);
        (joined, fragments)
    }

    fn strip(&self, joined: &str, fragments: &mut Vec<Fragment>) {
        if self.strip_after.is_empty() {
            return;
        }
        let mut after = false;
        fragments.retain_mut(|fragment| match fragment {
            Fragment::Token(id) => {
                after = self.strip_after.binary_search(id).is_ok();
                true
            }
            Fragment::Text(range) => {
                if std::mem::take(&mut after) {
                    let text = &joined[range.clone()];
                    range.start += text.len() - text.trim_ascii_start().len();
                }
                range.start < range.end
            }
        });
    }
}

fn close(fragments: &mut Vec<Fragment>, open: usize, end: usize) {
    if open < end {
        fragments.push(Fragment::Text(open..end));
    }
}

impl Matcher {
    fn new(vocab: &Vocab, wanted: impl Fn(Class) -> bool) -> Result<Option<Matcher>> {
        let (mut ids, mut texts) = (vec![], vec![]);
        for (id, token, _) in vocab.iter().filter(|(.., class)| wanted(*class)) {
            // A pattern that is not UTF-8 could match from within a character.
            if std::str::from_utf8(token).is_ok() {
                ids.push(id);
                texts.push(token);
            }
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let total: usize = texts.iter().map(|text| text.len()).sum();
        if total > MAX_TEXTS {
            return Err(Error::format(format!(
                "{total} bytes of special tokens' texts, at most {MAX_TEXTS} are allowed"
            )));
        }
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(texts);
        let automaton = automaton.map_err(|e| Error::format("no automaton for the special tokens").because(e))?;
        Ok(Some(Matcher { automaton, ids }))
    }

    fn find(&self, text: &str) -> impl Iterator<Item = (u32, Range<usize>)> {
        self.automaton.find_iter(text).map(|found| (self.ids[found.pattern().as_usize()], found.range()))
    }
}
