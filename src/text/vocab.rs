//! A vocabulary whose every entry has been checked: what each token is, and which text names which token.

use super::source::VocabSource;
use super::special;
use crate::base::{Error, Result};
use std::collections::HashMap;

/// What a token is, as far as encoding and decoding care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Comes from merging ordinary text.
    Word,
    /// Ordinary too, but found as it stands before anything is merged (runs of spaces, for instance).
    Whole,
    /// One byte that nothing else spells.
    Byte(u8),
    /// Stands for what cannot be spelled.
    Unknown,
    /// Has a meaning to the model beyond its text: only templates produce it. `shown` ones are part of the answer's text
    /// (`<think>`, `<tool_call>`), the others are never printed unless asked for.
    Control {
        /// Whether it is printed.
        shown: bool,
    },
}

impl Class {
    /// Whether merging what a user wrote may end in this token.
    pub fn is_ordinary(self) -> bool {
        matches!(self, Class::Word | Class::Whole)
    }
}

/// The checked entries of a [`VocabSource`].
pub(super) struct Vocab<'a> {
    /// Texts by id, as spelled in the file.
    pub tokens: &'a [Vec<u8>],
    /// Classes by id.
    pub classes: Vec<Class>,
    /// Ids by text. Empty texts have no entry.
    pub ids: HashMap<&'a [u8], u32>,
}

impl<'a> Vocab<'a> {
    /// Checks lengths, types and texts. Fails on an empty vocabulary, lists of other lengths, unknown types,
    /// texts that occur twice, and byte tokens whose text is no byte.
    pub fn new(source: &'a VocabSource) -> Result<Vocab<'a>> {
        let tokens = &source.tokens[..];
        if tokens.is_empty() {
            return Err(Error::format("the vocabulary is empty"));
        }
        if tokens.len() > i32::MAX as usize {
            return Err(Error::format(format!("{} tokens are more than an id can count", tokens.len())));
        }
        if let Some(scores) = &source.scores {
            check_len("scores", scores.len(), tokens.len())?;
            if let Some(id) = scores.iter().position(|score| score.is_nan()) {
                return Err(Error::format("the score is not a number").at(format!("token {id}")));
            }
        }
        if let Some(types) = &source.token_types {
            check_len("token types", types.len(), tokens.len())?;
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        let mut classes = Vec::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            let kind = source.token_types.as_ref().map_or(1, |types| types[id]);
            classes.push(class(kind, token).map_err(|e| e.at(format!("token {id}")))?);
            if token.is_empty() {
                continue;
            }
            if let Some(first) = ids.insert(&token[..], id as u32) {
                let text = String::from_utf8_lossy(token);
                return Err(Error::format(format!("tokens {first} and {id} are both {text:?}")));
            }
        }
        Ok(Vocab { tokens, classes, ids })
    }

    /// The id of a text.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text.as_bytes()).copied()
    }

    /// The class of a token that exists.
    pub fn class(&self, id: u32) -> Class {
        self.classes[id as usize]
    }

    /// Every token with its id and class; empty texts are left out.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &'a [u8], Class)> {
        let named = self.tokens.iter().zip(&self.classes).enumerate();
        named.filter(|(_, (token, _))| !token.is_empty()).map(|(id, (token, class))| (id as u32, &token[..], *class))
    }
}

/// The token to fall back on for what has no token of its own.
#[derive(Debug, Clone)]
pub(super) struct Fallback {
    bytes: Box<[Option<u32>; 256]>,
    unknown: Option<u32>,
}

impl Fallback {
    /// Byte tokens and the unknown token. A control token is neither: users could then write one.
    pub fn new(vocab: &Vocab, unknown: Option<u32>) -> Fallback {
        let mut bytes = Box::new([None; 256]);
        for (id, class) in vocab.classes.iter().enumerate() {
            if let Class::Byte(byte) = class {
                bytes[*byte as usize].get_or_insert(id as u32);
            }
        }
        let harmless = |id: &u32| !matches!(vocab.class(*id), Class::Control { .. });
        Fallback { bytes, unknown: unknown.filter(harmless) }
    }

    /// A byte that single-byte words spell, where there is no byte token.
    pub fn or_words(mut self, word: impl Fn(u8) -> Option<u32>) -> Fallback {
        for byte in 0..=255u8 {
            let entry = &mut self.bytes[byte as usize];
            *entry = entry.or_else(|| word(byte));
        }
        self
    }

    /// Appends the byte tokens of `text`, or one unknown token for a byte without any. Where there is no unknown token either, the
    /// byte is left out, as in llama.cpp: gives the first of them, by its place in `text`.
    pub fn spell(&self, text: &[u8], out: &mut Vec<u32>) -> Option<usize> {
        let mut lost = None;
        for (at, &byte) in text.iter().enumerate() {
            match self.bytes[byte as usize].or(self.unknown) {
                Some(id) => out.push(id),
                None => lost = lost.or(Some(at)),
            }
        }
        lost
    }
}

/// The place in `text` of what is at byte `at` of `escaped`: the same text with `▁` for its spaces, after `added` characters more.
pub(super) fn unescaped(text: &str, escaped: &str, at: usize, added: usize) -> usize {
    let start = escaped.floor_char_boundary(at);
    let before = escaped[..start].chars().count().saturating_sub(added);
    text.char_indices().nth(before).map_or(text.len(), |(place, _)| place + (at - start))
}

fn check_len(what: &str, have: usize, want: usize) -> Result<()> {
    if have < want {
        return Err(Error::format(format!("{have} {what} for {want} tokens")));
    }
    Ok(())
}

/// The class by the file's token type; [`special`] refines it by the text.
fn class(kind: i32, token: &[u8]) -> Result<Class> {
    Ok(match kind {
        0 | 1 | 5 => Class::Word,
        2 => Class::Unknown,
        3 => Class::Control { shown: false },
        4 if special::is_markup(token) => Class::Control { shown: true },
        4 => Class::Whole,
        6 => Class::Byte(byte_of(token).ok_or_else(|| {
            let text = String::from_utf8_lossy(token);
            Error::format(format!("a byte token must be <0x00> … <0xFF>, but its text is {text:?}"))
        })?),
        _ => return Err(Error::format(format!("the token type {kind} is none of 0 … 6"))),
    })
}

/// The byte that `<0xXX>` names.
fn byte_of(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn places_in_escaped_text_are_found_again() {
        let (text, escaped) = ("a é ▁\u{4}", "▁a▁é▁▁\u{4}");
        let place = |part: &str| unescaped(text, escaped, escaped.rfind(part).unwrap(), 1);
        assert_eq!((place("a"), place("é"), place("\u{4}")), (0, 2, 8));
        let second = escaped.find('é').unwrap() + 1;
        assert_eq!((unescaped(text, escaped, second, 1), unescaped(text, text, 8, 0)), (3, 8));
    }
}
