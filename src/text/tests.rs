//! The tokenizer as a whole, on vocabularies made here.

use super::test_vocab::*;
use super::{DetokenizeOptions, Detokenizer, Segment, Tokenizer, VocabSource};
use crate::base::ErrorKind;
use proptest::prelude::*;

fn spell(tokenizer: &Tokenizer, segments: &[Segment], special: bool) -> Vec<String> {
    let ids = tokenizer.encode(segments, special).expect("spells everything");
    ids.iter().map(|&id| tokenizer.token_text(id).to_owned()).collect()
}

#[test]
fn spm_merges_by_score_and_falls_back_to_bytes() {
    let spell = |text| spell(spm(), &[Segment::Text(text)], false);
    assert_eq!(spell("hello"), ["▁hello"]);
    assert_eq!(spell("o"), ["▁", "o"]);
    assert_eq!(spell("é"), ["▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(spell("    hell"), ["    ", "hell"]); // user-defined, so found as it stands
    assert_eq!(spell(""), [""; 0]);
}

#[test]
fn only_templates_write_control_tokens() {
    for tokenizer in [bpe(), spm(), word_piece()] {
        let ids = tokenizer.encode(&[Segment::Template("<s><think><|im_end|>")], false).expect("spells");
        assert_eq!(ids, [1, THINK, IM_END]);
        let halves = [Segment::Template("<|im_"), Segment::Template("end|>")];
        assert_eq!(tokenizer.encode(&halves, false).expect("spells"), [IM_END]);
    }
    for tokenizer in [bpe(), spm()] {
        let text = "<s><think><|im_end|>[INST]</s>";
        let ids = tokenizer.encode_text(text, false).expect("spells");
        assert!(!ids.iter().any(|&id| tokenizer.is_control(id)), "{ids:?}");
        assert_eq!(tokenizer.decode(&ids, DetokenizeOptions::default()), text);
    }
    // User-defined tokens that are plain text are found in it.
    assert!(bpe().encode_text("a    b", false).expect("spells").contains(&SPACES));
}

#[test]
fn text_is_joined_across_segments() {
    let parts = [Segment::Template("he"), Segment::Text("ll"), Segment::Template("o")];
    assert_eq!(spell(spm(), &parts, false), ["▁hello"]);
    assert_eq!(spell(spm(), &[Segment::Template("<s>he"), Segment::Text("llo")], false), ["<s>", "▁hello"]);
}

#[test]
fn first_and_last_tokens_are_added_once() {
    let text = [Segment::Text("hello")];
    assert_eq!(spell(spm(), &text, true), ["<s>", "▁hello"]);
    assert_eq!(spell(spm(), &[Segment::Template("<s>hello")], true), ["<s>", "▁hello"]);
    assert_eq!(spell(spm(), &[], true), ["<s>"]);
    assert_eq!(spell(bpe(), &[Segment::Text("A")], true), ["A"]);
    assert_eq!(spell(word_piece(), &[Segment::Text("The")], true), ["<s>", "▁the", "</s>"]);
    let mut source = bpe_source("gpt-2");
    (source.add_bos, source.add_eos) = (Some(true), Some(true));
    let both = Tokenizer::new(source).expect("sound");
    assert_eq!(spell(&both, &[Segment::Text("A")], true), ["<s>", "A", "</s>"]);
    assert_eq!(spell(&both, &[Segment::Template("<s>A</s>")], true), ["<s>", "A", "</s>"]);
    assert_eq!((both.added_first(), both.added_last()), (Some(1), Some(2)));
}

#[test]
fn word_piece_normalizes_and_takes_the_longest() {
    let spell = |text: &str| spell(word_piece(), &[Segment::Text(text)], false);
    assert_eq!(spell("The CAFÉ\tplaying!天x"), ["▁the", "▁cafe", "▁play", "ing", "▁!", "▁天", "<unk>"]);
    assert_eq!(spell("I'm\0 \u{200b}play"), ["▁i", "▁'", "▁m", "▁play"]);
    assert_eq!(spell(&format!("▁the{}", "ing".repeat(40))), ["<unk>"]); // over 100 characters
    let ids = word_piece().encode_text("the café", false).expect("spells");
    assert_eq!(word_piece().decode(&ids, DetokenizeOptions::default()), "the cafe");
}

#[test]
fn unigram_takes_the_likeliest() {
    let tokenizer = Tokenizer::new(unigram_source()).expect("sound");
    let spell = |text: &str, special| spell(&tokenizer, &[Segment::Text(text)], special);
    assert_eq!(spell("ab", true), ["▁", "ab", "</s>"]); // −7; "▁a" "b" is −8.5, "▁ab" −9.5
    assert_eq!(spell("  abb  a  ", false), ["▁", "ab", "b", "▁a"]);
    assert_eq!(spell("a天xyz天", false), ["▁a", "天", "<unk>", "天"]);
    assert_eq!(spell("", false), [""; 0]);
    let ids = tokenizer.encode_text("abb a", false).expect("spells");
    assert_eq!(tokenizer.decode(&ids, DetokenizeOptions::default()), "abb a");

    let error = |source| Tokenizer::new(source).expect_err("broken").to_string();
    let mut source = unigram_source();
    source.ids.unk = None;
    source.tokens.truncate(2);
    assert!(error(source).contains("must have an unknown token"));
    assert!(error(VocabSource { scores: None, ..unigram_source() }).contains("no tokenizer.ggml.scores"));
    assert!(error(VocabSource { charsmap: Some(vec![9]), ..unigram_source() }).contains("sizes"));
    // Scores that nothing can reach still give some spelling.
    let hopeless = VocabSource { scores: Some(vec![f32::NEG_INFINITY; 15]), ..unigram_source() };
    assert_eq!(Tokenizer::new(hopeless).expect("loads").encode_text("ab", false).expect("spells"), [0]);
}

#[test]
fn roles_and_ends() {
    let tokenizer = spm();
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.special_ids().eot), (Some(1), Some(2), Some(IM_END)));
    assert_eq!(tokenizer.ends(), [2, IM_END]);
    assert!(tokenizer.is_end(2) && !tokenizer.is_end(1) && tokenizer.is_control(1) && tokenizer.is_hidden(1));
    assert!(tokenizer.is_control(THINK) && !tokenizer.is_hidden(THINK) && !tokenizer.is_control(SPACES));
    assert_eq!(tokenizer.len(), spm_source().tokens.len());

    // Harmony: `<|end|>` ends a message, not the answer, and the channel marks are printed.
    let mut source = bpe_source("gpt-4o");
    let first = source.tokens.len() as u32;
    ["<|return|>", "<|call|>", "<|end|>", "<|channel|>"].iter().for_each(|text| add(&mut source, *text, 3));
    let harmony = Tokenizer::new(source).expect("sound");
    assert_eq!([0, 1, 2, 3].map(|i| harmony.is_end(first + i)), [true, true, false, false]);
    assert_eq!([0, 1, 2, 3].map(|i| harmony.is_hidden(first + i)), [true, true, false, false]);
    assert!(harmony.is_control(first + 3));

    // A `</s>` that is an ordinary word is the HTML tag; a misdeclared `<|eot_id|>` is a control token all the same.
    let mut source = bpe_source("qwen2");
    source.token_types.as_mut().expect("types")[2] = 1;
    source.ids.eos = None;
    add(&mut source, "<|eot_id|>", 1);
    let html = Tokenizer::new(source).expect("sound");
    assert!(!html.is_end(2) && !html.is_control(2) && html.is_control(html.len() as u32 - 1));
    assert_eq!(html.special_ids().eot, Some(html.len() as u32 - 1));
}

#[test]
fn phi3_special_tokens_swallow_white_space() {
    let mut source = spm_source();
    source.name = Some("Phi-3 mini".into());
    let tokenizer = Tokenizer::new(source).expect("sound");
    let spell = |text| spell(&tokenizer, &[Segment::Template(text)], false);
    assert_eq!(spell("<|im_end|> \n hello"), ["<|im_end|>", "▁hello"]);
    assert_eq!(spell("<s> hello<|im_end|>\n"), ["<s>", "▁", "▁hello", "<|im_end|>"]);
}

#[test]
fn detokenizer_prints_whole_characters_only() {
    let byte = |b: u8| SPECIAL.len() as u32 + u32::from(b);
    let options = DetokenizeOptions { continued: true, show_special: false };
    let mut decoder = Detokenizer::new(spm(), options);
    let printed: Vec<String> =
        [0xE5, 0xA4, 0xA9, 0xE5, 0x41, 0xF0, 0x9F].map(|b| decoder.push(byte(b)).to_owned()).to_vec();
    assert_eq!(printed, ["", "", "天", "", "\u{FFFD}A", "", ""]);
    assert_eq!(decoder.push(IM_END), "");
    assert_eq!(decoder.push(u32::MAX), "");
    assert_eq!(decoder.finish(), "\u{FFFD}");
    assert_eq!(decoder.finish(), "");

    let ids = spm().encode(&[Segment::Template("<s>hello<|im_end|>")], false).expect("spells");
    let show = |show_special, continued| spm().decode(&ids, DetokenizeOptions { show_special, continued });
    assert_eq!(show(false, false), "hello");
    assert_eq!(show(false, true), " hello");
    assert_eq!(show(true, false), "<s>hello<|im_end|>");
}

#[test]
fn malformed_vocabularies_are_refused() {
    type Spoil = fn(&mut VocabSource);
    let cases: [(&str, Spoil); 12] = [
        ("the vocabulary is empty", |s| s.tokens.clear()),
        ("7 token types for", |s| s.token_types.as_mut().expect("types").truncate(7)),
        ("3 scores for", |s| s.scores = Some(vec![0.0; 3])),
        ("token 2: the score is not a number", |s| s.scores.as_mut().expect("scores")[2] = f32::NAN),
        ("no tokenizer.ggml.scores", |s| s.scores = None),
        ("token 8: the token type 9 is none", |s| s.token_types.as_mut().expect("types")[8] = 9),
        ("token type -1 is none", |s| s.token_types.as_mut().expect("types")[8] = -1),
        ("token 8: a byte token must be <0x00> … <0xFF>, but its text is \"<0x-1>\"", |s| {
            s.tokens[8] = b"<0x-1>".to_vec()
        }),
        ("but its text is \"<0x+A>\"", |s| s.tokens[8] = b"<0x+A>".to_vec()),
        ("tokens 1 and 300 are both \"<s>\"", |s| s.tokens[300] = b"<s>".to_vec()),
        ("add_eos_token is true, but the file has no eos token", |s| {
            (s.add_eos, s.ids.eos) = (Some(true), Some(1 << 30))
        }),
        ("tokenizer \"lama\": no such kind of tokenizer", |s| s.model = "lama".into()),
    ];
    for (message, spoil) in cases {
        let mut source = spm_source();
        // The default end token would stand in for the one out of range.
        source.token_types.as_mut().expect("types")[2] = 3;
        spoil(&mut source);
        let error = Tokenizer::new(source).expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
    }
    let refused = |source| Tokenizer::new(source).expect_err("broken");
    let unknown = refused(bpe_source("no-such"));
    assert_eq!(unknown.kind(), ErrorKind::Unsupported);
    assert!(unknown.to_string().contains("the pre-tokenizer \"no-such\" (tokenizer.ggml.pre) is unknown"), "{unknown}");
    assert!(
        refused(VocabSource { merges: None, ..bpe_source("gpt-2") }).to_string().contains("no tokenizer.ggml.merges")
    );
    let mut huge = spm_source();
    add(&mut huge, "x".repeat(5 << 20), 3);
    huge.scores = Some(vec![0.0; huge.tokens.len()]);
    assert!(refused(huge).to_string().contains("bytes of special tokens' texts"));
}

#[test]
fn odd_vocabularies_load() {
    // Ids out of range are dropped; empty and non-UTF-8 tokens, broken merges and a missing pre-tokenizer do no harm.
    let mut source = bpe_source("superbpe");
    source.pre = None;
    source.ids.pad = Some(u32::MAX);
    add(&mut source, "", 1);
    add(&mut source, "", 1);
    add(&mut source, *b"\xFF\xFE", 4);
    let merges = source.merges.as_mut().expect("merges");
    merges.extend([&b""[..], b" ", b"x", b"x ", b" x", b"nope nope", b"\xFF \xFF", b"< s"].map(<[u8]>::to_vec));
    let tokenizer = Tokenizer::new(source).expect("odd but sound");
    assert_eq!(tokenizer.special_ids().pad, None);
    assert_eq!(spell(&tokenizer, &[Segment::Text("sAA")], false), ["s", "AA"]);
    assert_eq!(tokenizer.token_text(tokenizer.len() as u32), "");

    // What cannot be spelled is the unknown token; it is left out where there is none or that is a control token.
    let mut source = bpe_source("gpt-2");
    source.tokens[SPECIAL.len() + usize::from(b'q')] = b"unspellable".to_vec();
    let tokenizer = Tokenizer::new(source.clone()).expect("sound");
    assert_eq!(spell(&tokenizer, &[Segment::Text("Aq")], false), ["A", "<unk>"]);
    source.ids.unk = Some(IM_END);
    let tokenizer = Tokenizer::new(source).expect("sound");
    assert_eq!(spell(&tokenizer, &[Segment::Text("Aqs")], false), ["A", "s"]);
    assert_eq!(spell(&tokenizer, &[Segment::Text("q")], true), [""; 0]);

    let mut source = spm_source();
    source.token_types.as_mut().expect("types").iter_mut().filter(|kind| **kind == 6).for_each(|kind| *kind = 1);
    source.ids.unk = Some(IM_END);
    let tokenizer = Tokenizer::new(source).expect("sound");
    assert_eq!(spell(&tokenizer, &[Segment::Text("oéo")], false), ["▁", "o", "o"]);
}

/// Runs of 1 MiB, on a stack of 256 KiB, must finish and be right; anything quadratic would take hours.
#[test]
fn long_runs() {
    // Without the user-defined spaces, so that runs of spaces are merged.
    let plain = |mut source: VocabSource| {
        source.token_types.as_mut().expect("types")[SPACES as usize] = 1;
        Tokenizer::new(source).expect("sound")
    };
    let work = move || {
        for unit in ["A", " ", ".", "天", "\n", "0"] {
            let text = unit.repeat((1 << 20) / unit.len());
            for tokenizer in [plain(bpe_source("superbpe")), plain(spm_source())] {
                let ids = tokenizer.encode_text(&text, false).expect("spells");
                assert!(tokenizer.decode(&ids, DetokenizeOptions::default()) == text, "{unit:?}");
                let merged = ids.len() <= text.len() / 512 + 1024;
                assert!(merged || matches!(unit, "0" | "\n"), "{unit:?}: {}", ids.len());
            }
            assert!(word_piece().encode_text(&text, false).is_ok());
            let likeliest = plain(unigram_source()).encode_text(&text, false).expect("spells").len();
            let runs_of_unknown = if unit == " " { 0 } else { 2 };
            assert_eq!(likeliest, if unit == "天" { text.len() / 3 + 1 } else { runs_of_unknown }, "{unit:?}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(work).expect("a thread");
    thread.join().expect("all runs are right");
}

/// Text likely to provoke: names of control tokens and parts of them, spaces, characters of all lengths.
fn prose() -> impl Strategy<Value = String> {
    let names = SPECIAL.iter().map(|(text, _)| (*text).to_owned()).collect::<Vec<_>>();
    let parts = prop_oneof![
        proptest::sample::select(names),
        "[ \n<>|_a-z]{0,4}",
        "\\PC{0,3}",
        Just("<|im_".to_owned()),
        Just("end|>".to_owned()),
        any::<String>()
    ];
    proptest::collection::vec(parts, 0..6).prop_map(|parts| parts.concat())
}

/// How many control tokens a text names, by looking for them one by one.
fn control_names(mut text: &str) -> usize {
    let mut count = 0;
    while let Some(c) = text.chars().next() {
        let named = SPECIAL.iter().find(|(name, kind)| *kind != 2 && *name != "    " && text.starts_with(name));
        let skip = named.map_or(c.len_utf8(), |(name, _)| name.len());
        count += usize::from(named.is_some());
        text = &text[skip..];
    }
    count
}

proptest! {
    #[test]
    fn user_text_never_adds_control_tokens(before in prose(), user in prose(), after in prose()) {
        for tokenizer in [bpe(), spm(), word_piece(), unigram()] {
            let parts = [Segment::Template(&before), Segment::Text(&user), Segment::Template(&after)];
            let ids = tokenizer.encode(&parts, false).expect("spells");
            let count = ids.iter().filter(|&&id| tokenizer.is_control(id)).count();
            prop_assert_eq!(count, control_names(&before) + control_names(&after));
        }
    }

    #[test]
    fn text_survives_a_round_trip(text in prose()) {
        let ids = bpe().encode_text(&text, false).expect("spells");
        prop_assert_eq!(bpe().decode(&ids, DetokenizeOptions::default()), text.clone());
        let ids = spm().encode_text(&text, false).expect("spells");
        prop_assert_eq!(spm().decode(&ids, DetokenizeOptions::default()), text.replace('▁', " "));
    }

    #[test]
    fn streaming_equals_decoding_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..40), valid in prose()) {
        for bytes in [bytes, valid.into_bytes()] {
            let mut decoder = Detokenizer::new(bpe(), DetokenizeOptions::default());
            let mut streamed = String::new();
            for (at, byte) in bytes.iter().enumerate() {
                streamed.push_str(decoder.push(SPECIAL.len() as u32 + u32::from(*byte)));
                // What is out is final: the decoding of a whole prefix, at most three bytes behind.
                let so_far = String::from_utf8_lossy(&bytes[..=at]);
                let open = so_far.len() - so_far.trim_end_matches('\u{FFFD}').len();
                prop_assert!(so_far.starts_with(&streamed) && streamed.len() + open + 3 >= so_far.len());
            }
            streamed.push_str(decoder.finish());
            prop_assert_eq!(streamed, String::from_utf8_lossy(&bytes));
        }
    }
}
