//! Vocabularies for the tests of this room.

use super::{SpecialIds, Tokenizer, VocabSource, bytemap};
use std::sync::LazyLock;

/// The character that spells a byte in BPE vocabularies.
fn spelled(byte: u8) -> String {
    let mut characters = (0..0x144).filter_map(char::from_u32).map(|c| c.to_string());
    characters.find(|c| bytemap::decode(c.as_bytes()) == Some(vec![byte])).expect("every byte is spelled")
}

/// Texts and types of the tokens that every vocabulary here has: 0 unknown, 1 and 2 begin and end, a control token,
/// markup and two spaces that are user-defined, one that is both.
pub(super) const SPECIAL: [(&str, i32); 7] =
    [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<|im_end|>", 3), ("<think>", 4), ("    ", 4), ("[INST]", 4)];
pub(super) const IM_END: u32 = 3;
pub(super) const THINK: u32 = 4;
pub(super) const SPACES: u32 = 5;

fn special() -> VocabSource {
    let (tokens, types) = SPECIAL.iter().map(|(text, kind)| (text.as_bytes().to_vec(), *kind)).unzip();
    let ids = SpecialIds { unk: Some(0), bos: Some(1), eos: Some(2), ..Default::default() };
    VocabSource { tokens, token_types: Some(types), ids, ..Default::default() }
}

pub(super) fn add(source: &mut VocabSource, text: impl Into<Vec<u8>>, kind: i32) {
    source.tokens.push(text.into());
    source.token_types.as_mut().expect("special() has types").push(kind);
}

/// Byte-level BPE: all bytes, and words of up to 2¹⁰ `A`, ` `, `.`, `\n` or `天`, besides "<s>" by merging.
pub(super) fn bpe_source(pre: &str) -> VocabSource {
    let mut source = special();
    source.model = "gpt2".into();
    source.pre = Some(pre.into());
    (0..=255).for_each(|byte| add(&mut source, spelled(byte), 1));
    let mut merges = vec![];
    let mut merge = |source: &mut VocabSource, left: &str, right: &str| {
        let joined = format!("{left}{right}");
        if !source.tokens.contains(&joined.clone().into_bytes()) {
            add(source, joined, 1);
        }
        merges.push(format!("{left} {right}").into_bytes());
    };
    merge(&mut source, "<", "s");
    merge(&mut source, "<s", ">");
    let sky: Vec<String> = "天".bytes().map(spelled).collect();
    merge(&mut source, &sky[0], &sky[1]);
    merge(&mut source, &sky[..2].concat(), &sky[2]);
    for unit in [spelled(b'A'), spelled(b' '), spelled(b'.'), spelled(b'\n'), sky.concat()] {
        (0..10).map(|n| unit.repeat(1 << n)).for_each(|half| merge(&mut source, &half, &half));
    }
    source.merges = Some(merges);
    source
}

/// SPM: byte tokens, some characters, and the same runs.
pub(super) fn spm_source() -> VocabSource {
    let mut source = special();
    source.model = "llama".into();
    (0..=255).for_each(|byte| add(&mut source, format!("<0x{byte:02X}>"), 6));
    for unit in ["A", "▁", ".", "天"] {
        (0..10).for_each(|n| add(&mut source, unit.repeat(1 << n), 1));
    }
    for word in ["<", "s", "<s", ">", "h", "e", "l", "o", "he", "ll", "hell", "▁hell", "▁hello", "hello"] {
        add(&mut source, word, 1);
    }
    source.scores = Some((0..source.tokens.len()).map(|id| id as f32 - 1000.0).collect());
    source
}

pub(super) fn word_piece_source() -> VocabSource {
    let mut source = special();
    source.model = "bert".into();
    for word in ["▁the", "▁play", "ing", "▁cafe", "▁天", "▁!", "▁i", "▁'", "▁m"] {
        add(&mut source, word, 1);
    }
    source.ids.sep = Some(2);
    source
}

/// Unigram: scores are given beside the words; the normalizer is left out.
pub(super) fn unigram_source() -> VocabSource {
    let mut source = special();
    source.model = "t5".into();
    source.scores = Some(vec![0.0; SPECIAL.len()]);
    let words =
        [("▁", -3.0), ("a", -3.0), ("b", -3.0), ("ab", -4.0), ("▁a", -5.5), ("bb", -9.0), ("▁ab", -9.5), ("天", -5.0)];
    for (word, score) in words {
        add(&mut source, word, 1);
        source.scores.as_mut().expect("scores").push(score);
    }
    (source.add_space_prefix, source.remove_extra_whitespaces) = (Some(true), Some(true));
    source
}

pub(super) fn bpe() -> &'static Tokenizer {
    // This pre-tokenizer leaves all but digits to the merges, so "<s>" could come of them.
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::new(bpe_source("superbpe")).expect("sound"));
    &TOKENIZER
}

pub(super) fn spm() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::new(spm_source()).expect("sound"));
    &TOKENIZER
}

pub(super) fn word_piece() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::new(word_piece_source()).expect("sound"));
    &TOKENIZER
}

pub(super) fn unigram() -> &'static Tokenizer {
    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::new(unigram_source()).expect("sound"));
    &TOKENIZER
}
