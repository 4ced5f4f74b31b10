//! The tokenizer: a checked vocabulary, its model, and what is added around a text.

use super::arena::Arena;
use super::bytemap;
use super::detokenize::{DetokenizeOptions, Detokenizer};
use super::kind::Kind;
use super::partition::{Fragment, Partition, Segment};
use super::pre::Spelling;
use super::source::{SpecialIds, VocabSource};
use super::special::Roles;
use super::vocab::{Class, Vocab};
use crate::base::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// Characters that show where in a conversation something stands.
const CONTEXT: usize = 24;

/// Ordinary text to tokens: one of the algorithms.
pub(super) trait Model: std::fmt::Debug + Send + Sync {
    /// Appends the tokens of `text`. `after_special`: it begins the sequence or follows a special token.
    /// Bytes that the vocabulary has no token for are left out; gives the place of the first.
    fn encode(&self, text: &str, after_special: bool, out: &mut Vec<u32>) -> Option<usize>;
}

/// Text to token ids and back, after the vocabulary of a model file.
#[derive(Debug)]
pub struct Tokenizer {
    model: Box<dyn Model>,
    partition: Partition,
    classes: Vec<Class>,
    texts: Arena,
    pieces: Arena,
    roles: SpecialIds,
    ends: Vec<u32>,
    first: Option<u32>,
    last: Option<u32>,
    adds_space: bool,
    /// Whether it was told that a byte was left out: once is enough.
    told: AtomicBool,
}

impl Tokenizer {
    /// Checks a vocabulary and builds its tokenizer. The source is untrusted: unknown kinds and pre-tokenizers, lists
    /// that do not fit, doubled texts and broken byte tokens are errors.
    pub fn new(source: VocabSource) -> Result<Tokenizer> {
        let place = format!("tokenizer {:?}", source.model);
        Self::build(&source).map_err(|e| e.at(place))
    }

    fn build(source: &VocabSource) -> Result<Tokenizer> {
        let kind = Kind::of(source)?;
        let mut vocab = Vocab::new(source)?;
        let Roles { ids, ends } = Roles::new(source.ids, kind.default_ids(), &mut vocab);
        let model = kind.model(&vocab, source, ids.unk)?;
        let spelling = kind.spelling();
        let (mut texts, mut pieces) = (Arena::default(), Arena::default());
        for (token, class) in vocab.tokens.iter().zip(&vocab.classes) {
            texts.push(String::from_utf8_lossy(token).as_bytes())?;
            pieces.push(&piece(token, *class, spelling))?;
        }
        let (first, last) = kind.first_and_last(source, &ids)?;
        Ok(Tokenizer {
            model,
            partition: Partition::new(&vocab, source)?,
            classes: vocab.classes,
            texts,
            pieces,
            roles: ids,
            ends,
            first,
            last,
            adds_space: kind.adds_space(source),
            told: AtomicBool::new(false),
        })
    }

    /// The token ids of a prompt. With `add_special` it gets the model's first and last tokens (BOS, EOS, `[CLS]`,
    /// `[SEP]`) where it does not have them already. Bytes that the vocabulary has no token for are left out, which the log tells
    /// once. Fails if the prompt is longer than a gigabyte.
    pub fn encode(&self, segments: &[Segment], add_special: bool) -> Result<Vec<u32>> {
        let (joined, fragments) = self.partition.fragments(segments);
        if joined.len() >= (u32::MAX / 4) as usize {
            return Err(Error::usage(format!("a text of {} bytes is too long to tokenize", joined.len())));
        }
        let mut out = Vec::with_capacity(joined.len() / 4 + 2);
        let stands = |id: u32, at: Option<&Fragment>| at == Some(&Fragment::Token(id));
        if let Some(id) = self.first.filter(|&id| add_special && !stands(id, fragments.first())) {
            out.push(id);
        }
        let mut after_special = true;
        for fragment in &fragments {
            match fragment {
                Fragment::Token(id) => out.push(*id),
                Fragment::Text(range) => {
                    if let Some(lost) = self.model.encode(&joined[range.clone()], after_special, &mut out) {
                        self.tell_lost(&joined, range.start + lost, segments.len() > 1);
                    }
                }
            }
            // A user-defined token is a part of the text around it.
            after_special = matches!(fragment, Fragment::Token(id) if self.classes[*id as usize] != Class::Whole);
        }
        if let Some(id) = self.last.filter(|&id| add_special && !stands(id, fragments.last())) {
            out.push(id);
        }
        Ok(out)
    }

    /// Tells that the byte at `at` of `text` was left out. Offsets in a whole conversation mean nothing to who wrote a part of it.
    fn tell_lost(&self, text: &str, at: usize, conversation: bool) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let place = if conversation {
            let before = &text[..text.floor_char_boundary(at)];
            let start = before.char_indices().rev().take(CONTEXT).last().map_or(0, |(start, _)| start);
            format!("after {:?}", &before[start..])
        } else {
            format!("at offset {at} of the text")
        };
        let byte = text.as_bytes()[at];
        tracing::warn!(
            "the vocabulary has no token for the byte 0x{byte:02x} {place}; it is left out, as others will be"
        );
    }

    /// The token ids of what a user wrote, control tokens' names and all being plain text.
    pub fn encode_text(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.encode(&[Segment::Text(text)], add_special)
    }

    /// The text of a whole sequence.
    pub fn decode(&self, ids: &[u32], options: DetokenizeOptions) -> String {
        let mut decoder = Detokenizer::new(self, options);
        let mut text = String::new();
        for &id in ids {
            text.push_str(decoder.push(id));
        }
        text.push_str(decoder.finish());
        text
    }

    /// The bytes a token stands for, perhaps a part of a character; none for an id past the vocabulary.
    /// A model's logits may be wider than its vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).unwrap_or_default()
    }

    /// The token as the vocabulary spells it (`Ġthe`, `▁the`, `<0x0A>`); empty for an id past the vocabulary.
    pub fn token_text(&self, id: u32) -> &str {
        self.texts.get(id as usize).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }

    /// Whether only a template can produce this token.
    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.classes.get(id as usize), Some(Class::Control { .. }))
    }

    /// Whether the token is left out of printed text.
    pub fn is_hidden(&self, id: u32) -> bool {
        matches!(self.classes.get(id as usize), Some(Class::Control { shown: false } | Class::Unknown))
    }

    /// Whether an answer ends with this token.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// The tokens that end an answer, ascending.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The tokens with a role; all in range.
    pub fn special_ids(&self) -> &SpecialIds {
        &self.roles
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The token that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// What [`encode`](Self::encode) puts first, if anything.
    pub fn added_first(&self) -> Option<u32> {
        self.first
    }

    /// What [`encode`](Self::encode) puts last, if anything.
    pub fn added_last(&self) -> Option<u32> {
        self.last
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there are none; never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a text's tokens begin with a space that is not in the text.
    pub(super) fn adds_space(&self) -> bool {
        self.adds_space
    }

    /// Whether the token comes of merging, so that it may carry the added space.
    pub(super) fn is_merged(&self, id: u32) -> bool {
        self.classes.get(id as usize) == Some(&Class::Word)
    }
}

/// The bytes that a token prints.
fn piece(token: &[u8], class: Class, spelling: Spelling) -> Vec<u8> {
    match (class, spelling) {
        (Class::Byte(byte), _) => vec![byte],
        (Class::Control { .. } | Class::Unknown, _) => token.to_vec(),
        (Class::Word, Spelling::Bytes) => bytemap::decode(token).unwrap_or_else(|| token.to_vec()),
        (Class::Whole, Spelling::Bytes) => token.to_vec(),
        (Class::Word | Class::Whole, Spelling::Spaces) => match std::str::from_utf8(token) {
            Ok(text) => text.replace('▁', " ").into_bytes(),
            Err(_) => token.to_vec(),
        },
    }
}
