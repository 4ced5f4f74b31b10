//! Any text through every pre-tokenizer and every kind of vocabulary: it comes back as it was, users write no control
//! tokens, and no text takes long (run with `-timeout=5`).
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use wgpu_llm::low_level::text::{DetokenizeOptions, Segment, SpecialIds, Tokenizer, VocabSource, pre_tokenizer_names};

/// A vocabulary, and whether its tokens can spell any text.
struct Subject {
    tokenizer: Tokenizer,
    spells: Spells,
}

#[derive(PartialEq)]
enum Spells {
    /// Every byte.
    Everything,
    /// Every byte, but the sign for a space is read as a space.
    ButTheSpaceSign,
    /// What is in the vocabulary; the rest becomes the unknown token.
    Words,
}

/// The kinds but BPE, then BPE with every pre-tokenizer.
static SUBJECTS: LazyLock<Vec<Subject>> = LazyLock::new(|| {
    let bpe = pre_tokenizer_names().map(|pre| {
        let spaces = ["gemma4", "granite-embed-multi-311m", "sarvam-moe"].contains(&pre);
        (bpe(pre), if spaces { Spells::ButTheSpaceSign } else { Spells::Everything })
    });
    let others = [(spm(), Spells::ButTheSpaceSign), (word_piece(), Spells::Words), (unigram(), Spells::Words)];
    let subject = |(source, spells)| Subject { tokenizer: Tokenizer::new(source).expect("sound"), spells };
    others.into_iter().chain(bpe).map(subject).collect()
});

fuzz_target!(|data: &[u8]| {
    let [choice, rest @ ..] = data else { return };
    let Subject { tokenizer, spells } = &SUBJECTS[*choice as usize % SUBJECTS.len()];
    let text = String::from_utf8_lossy(rest);

    let ids = tokenizer.encode_text(&text, false).expect("the vocabulary spells every text");
    let decoded = tokenizer.decode(&ids, DetokenizeOptions::default());
    match spells {
        Spells::Everything => assert_eq!(decoded, text),
        Spells::ButTheSpaceSign => assert_eq!(decoded, text.replace('▁', " ")),
        Spells::Words => {}
    }

    // The same text from a user, between two templates, adds no control token; as a template it may.
    let around = Segment::Template("<s>");
    let ids = tokenizer.encode(&[around, Segment::Text(&text), around], false).expect("spells");
    assert_eq!(ids.iter().filter(|&&id| tokenizer.is_control(id)).count(), 2);
    tokenizer.encode(&[Segment::Template(&text)], true).expect("spells");
});

/// Unknown, begin, end, a control token, spaces and markup that are user-defined.
fn special() -> VocabSource {
    let tokens = ["<unk>", "<s>", "</s>", "<|im_end|>", "    ", "<think>"];
    VocabSource {
        tokens: tokens.map(|t| t.as_bytes().to_vec()).to_vec(),
        token_types: Some(vec![2, 3, 3, 3, 4, 4]),
        ids: SpecialIds { unk: Some(0), bos: Some(1), eos: Some(2), ..Default::default() },
        ..Default::default()
    }
}

fn add(source: &mut VocabSource, text: impl Into<Vec<u8>>, kind: i32) {
    source.tokens.push(text.into());
    source.token_types.as_mut().expect("special() has types").push(kind);
}

/// The character that stands for a byte in byte-level BPE: itself where it prints, else one from U+0100 on.
fn spelled(byte: u8) -> char {
    let prints = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return byte as char;
    }
    let nth = (0..byte).filter(|&b| !prints(b)).count() as u32;
    char::from_u32(0x100 + nth).expect("well below the surrogates")
}

/// BPE that merges runs of a few characters; with every byte as byte-level vocabularies spell it, and as others do.
fn bpe(pre: &str) -> VocabSource {
    let mut source = special();
    (source.model, source.pre) = ("gpt2".into(), Some(pre.into()));
    (0..=255).for_each(|byte| add(&mut source, spelled(byte).to_string(), 1));
    (0..=255).for_each(|byte| add(&mut source, format!("<0x{byte:02X}>"), 6));
    add(&mut source, "▁", 1);
    let mut merges = Vec::new();
    for unit in [b'A', b' ', b'.', b'\n', b'1'].map(|b| spelled(b).to_string()) {
        for n in 0..8 {
            let half = unit.repeat(1 << n);
            add(&mut source, half.repeat(2), 1);
            merges.push(format!("{half} {half}").into_bytes());
        }
    }
    source.merges = Some(merges);
    source
}

/// SPM with byte tokens and some words.
fn spm() -> VocabSource {
    let mut source = special();
    source.model = "llama".into();
    (0..=255).for_each(|byte| add(&mut source, format!("<0x{byte:02X}>"), 6));
    for unit in ["A", "▁", ".", "天", "<", "s", ">", "e"] {
        (0..8).for_each(|n| add(&mut source, unit.repeat(1 << n), 1));
    }
    for word in ["<s", "▁A", "he", "▁he", "▁<s"] {
        add(&mut source, word, 1);
    }
    source.scores = Some((0..source.tokens.len()).map(|id| id as f32 - 1000.0).collect());
    source
}

fn word_piece() -> VocabSource {
    let mut source = special();
    source.model = "bert".into();
    for word in ["▁the", "▁a", "▁A", "a", "b", "ing", "▁cafe", "▁天", "▁!", "▁<", "s", "▁>"] {
        add(&mut source, word, 1);
    }
    source.ids.sep = Some(2);
    source
}

fn unigram() -> VocabSource {
    let mut source = special();
    source.model = "t5".into();
    let mut scores = vec![0.0; source.tokens.len()];
    for (n, word) in ["▁", "a", "b", "ab", "▁a", "bb", "▁ab", "天", "A", "AA"].into_iter().enumerate() {
        add(&mut source, word, 1);
        scores.push(-3.0 - n as f32 / 2.0);
    }
    source.scores = Some(scores);
    (source.add_space_prefix, source.remove_extra_whitespaces) = (Some(true), Some(true));
    source
}
