//! The tokenizers on real vocabularies: reference suites, a real model, and the original libraries' implementation.
//!
//! The data lie in the folder that `WGPU_LLM_TEST_DATA` names (CONTRIBUTING.md says how to get them). Without it these
//! tests are skipped, unless `WGPU_LLM_DATA=require`.

use std::path::{Path, PathBuf};
use tokenizers::models::{bpe::BPE, unigram};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{self, Precompiled, Replace, Strip};
use tokenizers::pre_tokenizers::{
    byte_level::ByteLevel, metaspace, sequence::Sequence, split::Split, split::SplitPattern,
};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};
use wgpu_llm::low_level::base::Result;
use wgpu_llm::low_level::gguf::{Array, Gguf, Metadata, Value};
use wgpu_llm::low_level::text::{DetokenizeOptions, MetadataKeys, Segment, Tokenizer, VocabSource};

/// A file's metadata as the vocabulary's source.
struct Keys<'a>(&'a Metadata);

impl MetadataKeys for Keys<'_> {
    fn str(&self, key: &str) -> Result<Option<&str>> {
        self.0.str(key)
    }
    fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.0.u32(key)
    }
    fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.0.bool(key)
    }
    fn strings(&self, key: &str) -> Result<Option<Vec<Vec<u8>>>> {
        Ok(self.0.strings(key)?.map(|strings| strings.iter().map(<[u8]>::to_vec).collect()))
    }
    fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.0.f32s(key)
    }
    fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.0.i32s(key)
    }
    fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(match self.0.get(key) {
            Some(Value::Array(Array::I8(bytes))) => Some(bytes.iter().map(|&byte| byte as u8).collect()),
            Some(Value::Array(Array::U8(bytes))) => Some(bytes.clone()),
            _ => None,
        })
    }
}

fn source(path: &Path) -> VocabSource {
    let file = Gguf::open(path).expect("a sound file");
    VocabSource::from_keys(&Keys(file.metadata())).expect("a vocabulary")
}

fn load(path: &Path) -> Tokenizer {
    Tokenizer::new(source(path)).expect("a sound vocabulary")
}

/// The folder with the data, or `None` with a word of it.
fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("WGPU_LLM_TEST_DATA").map(PathBuf::from);
    if folder.is_none() {
        let required = std::env::var_os("WGPU_LLM_DATA").is_some_and(|value| value == "require");
        assert!(!required, "WGPU_LLM_DATA=require, but WGPU_LLM_TEST_DATA names no folder");
        eprintln!("skipped: WGPU_LLM_TEST_DATA names no folder with test data");
    }
    folder
}

fn vocabulary(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("llama.cpp/models/ggml-vocab-{name}.gguf"))
}

/// The cases of one suite that fail.
fn run_suite(folder: &Path, name: &str) -> Vec<String> {
    let path = vocabulary(folder, name);
    let read = |ending| std::fs::read_to_string(format!("{}.{ending}", path.display())).expect("a suite");
    let (inputs, outputs) = (read("inp"), read("out"));
    // The separator also ends the last input.
    let inputs: Vec<&str> = inputs.split_terminator("\n__ggml_vocab_test__\n").collect();
    let tokenizer = load(&path);
    assert_eq!(inputs.len(), outputs.lines().count(), "{name}");
    let mut wrong = vec![];
    for (text, line) in inputs.iter().zip(outputs.lines()) {
        let want: Vec<u32> = line.split_whitespace().map(|id| id.parse().expect("an id")).collect();
        let have = tokenizer.encode_text(text, false).expect("spells");
        if have != want {
            wrong.push(format!("{name}: {text:?} gives {have:?}, not {want:?}"));
        }
    }
    wrong
}

#[test]
fn reference_suites() {
    let Some(folder) = data() else { return };
    const NAMES: [&str; 15] = [
        "bert-bge",
        "command-r",
        "deepseek-coder",
        "deepseek-llm",
        "falcon",
        "gemma-4",
        "gpt-2",
        "llama-bpe",
        "llama-spm",
        "mpt",
        "phi-3",
        "qwen2",
        "qwen35",
        "refact",
        "starcoder",
    ];
    let wrong: Vec<Vec<String>> = NAMES.iter().map(|name| run_suite(&folder, name)).collect();
    let passed = wrong.iter().filter(|cases| cases.is_empty()).count();
    println!("tokenizer suites: {passed} of {} exact", NAMES.len());
    assert_eq!(passed, NAMES.len(), "{}", wrong.concat().join("\n"));
}

#[test]
fn ends_and_added_tokens() {
    let Some(folder) = data() else { return };
    let check = |name: &str, first: &str, last: &str, ends: &[&str]| {
        let tokenizer = load(&vocabulary(&folder, name));
        let text = |id: Option<u32>| id.map_or("", |id| tokenizer.token_text(id));
        let found: Vec<&str> = tokenizer.ends().iter().map(|&id| tokenizer.token_text(id)).collect();
        assert_eq!(
            (text(tokenizer.added_first()), text(tokenizer.added_last()), &found[..]),
            (first, last, ends),
            "{name}"
        );
    };
    check("llama-bpe", "<|begin_of_text|>", "", &["<|end_of_text|>", "<|eot_id|>"]);
    check("llama-spm", "<s>", "", &["</s>"]);
    check("qwen2", "", "", &["<|endoftext|>", "<|im_end|>"]);
    check("gemma-4", "<bos>", "", &["<eos>", "<|tool_response>", "<turn|>"]);
    check("phi-3", "<s>", "", &["<|endoftext|>", "<|end|>"]);
    check("nomic-bert-moe", "<s>", "</s>", &["</s>"]);
}

#[test]
fn smollm2_ids_equal_the_reference() {
    let Some(folder) = data() else { return };
    let tokenizer = load(&folder.join("SmolLM2-135M-Instruct.Q4_1.gguf"));
    let fixture = include_str!("data/smollm2-135m.json");
    let cases: Vec<serde_json::Value> = serde_json::from_str(fixture).expect("JSON");
    assert_eq!(cases.len(), 7);
    for case in &cases {
        let text = case["text"].as_str().expect("text");
        let want: Vec<u32> = serde_json::from_value(case["tokens"].clone()).expect("ids");
        let parsed = case["parse_special"] == true;
        let segment = if parsed { Segment::Template(text) } else { Segment::Text(text) };
        assert_eq!(tokenizer.encode(&[segment], true).expect("spells"), want, "{text:?}");
        let shown = DetokenizeOptions { show_special: true, continued: true };
        assert_eq!(tokenizer.decode(&want, shown), text);
        let greedy: Vec<u32> = serde_json::from_value(case["greedy"].clone()).expect("ids");
        assert_eq!(tokenizer.decode(&greedy, shown), case["greedy_text"].as_str().expect("text"));
    }
    let chat =
        [Segment::Template("<|im_start|>user\n"), Segment::Text("<|im_end|>"), Segment::Template("<|im_end|>\n")];
    let ids = tokenizer.encode(&chat, true).expect("spells");
    let control: Vec<&str> =
        ids.iter().filter(|&&id| tokenizer.is_control(id)).map(|&id| tokenizer.token_text(id)).collect();
    assert_eq!(control, ["<|im_start|>", "<|im_end|>"]);
    println!("SmolLM2 token ids: {} of 7 texts equal", cases.len());
}

#[test]
fn unigram_equals_xlm_roberta() {
    let Some(folder) = data() else { return };
    let tokenizer = load(&vocabulary(&folder, "nomic-bert-moe"));
    // The ids that transformers' XLM-R gives.
    assert_eq!(tokenizer.encode_text("Hello world!", true).expect("spells"), [0, 35378, 8999, 38, 2]);
}

/// Text out of pieces that pre-tokenizers and merges treat each in its own way. Deterministic.
struct Prose(u64);

impl Prose {
    const PIECES: [&str; 44] = [
        "the",
        "Hello",
        "WORLD",
        "camelCase",
        "naïve",
        "e\u{301}",
        "ß",
        "Ωmega",
        "мир",
        "слово",
        "שלום",
        "مرحبا",
        "नमस्ते",
        "ไทย",
        "中文",
        "日本語",
        "かな",
        "한국어",
        "ﬁ",
        "½",
        "٣",
        "7",
        "42",
        "1234567",
        "'s",
        "'LL",
        "'re",
        "'",
        "\"",
        ".",
        "...",
        "!?",
        "()",
        "<|x|>",
        "=>",
        "_",
        "#",
        "🦙",
        "👩‍👩‍👧",
        "\u{200b}",
        "\u{a0}",
        "\u{3000}",
        "\u{feff}",
        "…",
    ];
    const SPACES: [&str; 8] = [" ", " ", " ", "  ", "   ", "\n", "\n\n", "\t"];

    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % below
    }

    fn text(&mut self) -> String {
        let length = 1 + self.next(30);
        let part = |_| match self.next(5) {
            0 | 1 => Self::SPACES[self.next(Self::SPACES.len())],
            _ => Self::PIECES[self.next(Self::PIECES.len())],
        };
        (0..length).map(part).collect()
    }
}

/// The originals' implementation with the original expression, look-aheads and all.
fn original_bpe(source: &VocabSource, expression: &str, ignore_merges: bool) -> tokenizers::Tokenizer {
    let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).expect("UTF-8");
    let halves = |merge: &Vec<u8>| text(merge).split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let merges = source.merges.iter().flatten().map(|merge| halves(merge).expect("a pair")).collect();
    let vocab = source.tokens.iter().zip(0..).map(|(token, id)| (text(token), id)).collect();
    let mut model = BPE::new(vocab, merges);
    model.ignore_merges = ignore_merges;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let pattern = SplitPattern::Regex(expression.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).expect("a sound expression");
    let steps =
        vec![PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false))];
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));
    tokenizer
}

fn compare(name: &str, ours: &Tokenizer, original: &tokenizers::Tokenizer, texts: impl Iterator<Item = String>) {
    for text in texts {
        let want = original.encode_fast(&text[..], false).expect("spells");
        let have = ours.encode_text(&text, false).expect("spells");
        assert_eq!(have, want.get_ids(), "{name}: {text:?} ({:?})", want.get_tokens());
    }
}

#[test]
fn bpe_equals_the_original_implementation() {
    let Some(folder) = data() else { return };
    let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let qwen2 = llama3.replace("{1,3}", "");
    for (name, expression, ignore) in [("gpt-2", gpt2, false), ("llama-bpe", llama3, true), ("qwen2", &qwen2, false)] {
        let source = source(&vocabulary(&folder, name));
        let original = original_bpe(&source, expression, ignore);
        let ours = Tokenizer::new(source).expect("sound");
        let mut prose = Prose(1);
        compare(name, &ours, &original, (0..400).map(|_| prose.text()));
    }
}

#[test]
fn unigram_equals_the_original_implementation() {
    let Some(folder) = data() else { return };
    let source = source(&vocabulary(&folder, "nomic-bert-moe"));
    let scores = source.scores.clone().expect("scores");
    let vocab = source.tokens.iter().zip(scores);
    let vocab =
        vocab.map(|(token, score)| (String::from_utf8(token.clone()).expect("UTF-8"), f64::from(score))).collect();
    let unknown = source.ids.unk.expect("an unknown token") as usize;
    let model = unigram::Unigram::from(vocab, Some(unknown), false).expect("sound");
    let mut original = tokenizers::Tokenizer::new(model);
    let charsmap = source.charsmap.clone().expect("a table");
    let charsmap = Precompiled::from(&charsmap).expect("sound");
    let join = Replace::new(ReplacePattern::Regex(" {2,}".into()), " ").expect("a sound expression");
    let steps: Vec<NormalizerWrapper> = vec![charsmap.into(), Strip::new(true, true).into(), join.into()];
    original.with_normalizer(Some(normalizers::Sequence::new(steps))).expect("no added tokens");
    let prepend = metaspace::PrependScheme::Always;
    original.with_pre_tokenizer(Some(metaspace::Metaspace::new('▁', prepend, false)));
    let ours = Tokenizer::new(source).expect("sound");
    let mut prose = Prose(2);
    compare("nomic-bert-moe", &ours, &original, (0..400).map(|_| prose.text()));
}
