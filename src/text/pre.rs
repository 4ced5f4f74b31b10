//! The pre-tokenizers by the name a file gives (`tokenizer.ggml.pre`): the regular expressions of the original
//! `tokenizer.json` files, and what else goes with the name.
//!
//! One change is made to all of them: `\s+(?!\S)|\s+` is written `\s+` with a [`Tail`] that says how the look-ahead
//! shortens the match. So they need no backtracking and run in linear time on any text.

use super::pretokenize::{Split, Tail};

/// How a BPE vocabulary writes text down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Every byte a printable character ([`super::bytemap`]).
    Bytes,
    /// UTF-8 with `▁` for a space; what has no token is spelled in `<0xXX>` bytes.
    Spaces,
}

/// Whether a sequence begins with `bos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bos {
    /// If the file says so.
    IfSaid,
    /// Unless the file says no.
    UnlessDenied,
    /// Even if the file says no: such files are in the wild, and their models need it.
    Always,
}

/// What goes with a pre-tokenizer's name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Applied in order, each to the pieces the one before has left.
    pub splits: &'static [Split],
    /// Whether a word that is a token is that token, whatever the merges say.
    pub ignore_merges: bool,
    /// Whether a sequence begins with `bos`.
    pub bos: Bos,
    /// How the vocabulary is spelled.
    pub spelling: Spelling,
}

impl Rules {
    const fn of(splits: &'static [Split]) -> Rules {
        Rules { splits, ignore_merges: false, bos: Bos::IfSaid, spelling: Spelling::Bytes }
    }

    const fn whole_words(self) -> Rules {
        Rules { ignore_merges: true, ..self }
    }

    const fn with_bos(self, bos: Bos) -> Rules {
        Rules { bos, ..self }
    }

    const fn spaces(self) -> Rules {
        Rules { spelling: Spelling::Spaces, ..self }
    }
}

/// The rules of a name, `None` for an unknown one.
pub(super) fn rules(name: &str) -> Option<&'static Rules> {
    TABLE.iter().find(|(names, _)| names.contains(&name)).map(|(_, rules)| rules)
}

/// Every name of a pre-tokenizer that [`Tokenizer::new`](super::Tokenizer::new) accepts.
pub fn pre_tokenizer_names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|(names, _)| names.iter().copied())
}

const fn regex(pattern: &'static str) -> Split {
    Split::Regex(pattern, Tail::Whole)
}

/// A pattern that ends in `|\s+(?!\S)|\s+`.
const fn spaced(pattern: &'static str) -> Split {
    Split::Regex(pattern, Tail::LeaveOne)
}

/// A pattern that ends in `|\s*[\r\n]+|\s+(?!\S)|\s+`.
const fn lined(pattern: &'static str) -> Split {
    Split::Regex(pattern, Tail::LeaveOneOfLine)
}

const GPT2: Split = spaced(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+");
const ONE_DIGIT: Split = regex(r"\p{N}");
const TRIPLE: Split = regex(r"\p{N}{1,3}");
const LINES: Split = regex(r"[^\n]+|\n+");
const LLAMA3: Split =
    lined(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+");
const QWEN2: Split =
    lined(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+");
const QWEN35: Split = lined(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
/// Its last ten alternatives `\s{512}(?!\S)|…|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}` are [`Tail::Powers`].
const JAIS2: Split = Split::Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    Tail::Powers,
);
const UFAKZEKA: Split = lined(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+");
const BAILINGMOE: Split =
    lined(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+");
const SEED_CODER: Split =
    lined(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+");
const EXAONE_MOE: Split = lined(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+",
);
const MINICPM5: Split =
    lined(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+");
const TEKKEN: Split = lined(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const GPT4O: Split = lined(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const YOUTU: Split = lined(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
);
const YOUTU_SCRIPTS: Split = regex(
    r"[\u{AC00}-\u{D7A3}\u{3131}-\u{318E}]+|[\u{FF01}\u{2026}\u{201C}\u{201D}\u{2018}\u{2019}\u{2014}\u{FF1A}\u{FF1B}\u{FF0C}\u{3001}-\u{303F}\u{FE30}-\u{FE4F}]+|[\u{3105}-\u{312F}]+|[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+",
);
const KIMI_K2: Split = lined(
    r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
);
const DEEPSEEK_LLM: &[Split] = &[
    regex(r"[\r\n]"),
    // Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee … letters with case.
    regex(
        r"\s?[A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}]+",
    ),
    regex(r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+"),
    regex(r"\s+$"),
    regex(r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+"),
    regex(r"\p{N}+"),
];
const DEEPSEEK_CODER: &[Split] = &[
    regex(r"[\r\n]"),
    regex(r"\s?\p{L}+"),
    regex(r"\s?\p{P}+"),
    regex(r"[\u{4E00}-\u{9FA5}\u{800}-\u{4E00}\u{AC00}-\u{D7FF}]+"),
    ONE_DIGIT,
];
const CJK_KANA: Split = regex(r"[\u{4E00}-\u{9FA5}\u{3040}-\u{309F}\u{30A0}-\u{30FF}]+");
const DEEPSEEK_WORDS: Split = lined(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
);
const SPARK_WORDS: Split = spaced(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+"##,
);
const BLOOM: Split = regex(r" ?[^(\s|.,!?…。，、।۔،)]+");
const CHAMELEON: &[Split] = &[
    regex("<sentinel:[0-9]+>"),
    regex("IMGIMG[A-I]{1,4}Z"),
    regex("[\t\n]|    |  "),
    ONE_DIGIT,
    regex(r"[\p{P}!-/:-@\[-`{-~]"),
    GPT2,
];
/// Han, kana, Thai, Lao, Khmer, Burmese and Hangul.
const AFMOE_SCRIPTS: Split = regex(
    r"[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{F900}-\u{FAFF}\u{3040}-\u{309F}\u{30A0}-\u{30FF}\u{FF65}-\u{FF9F}\u{2F00}-\u{2FDF}\u{E40}-\u{E7F}\u{E80}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}\u{A9E0}-\u{A9FF}\u{AC00}-\u{D7AF}\u{1100}-\u{11FF}]+",
);
const PUNCTUATION: Split = regex(r"[\p{P}$+<=>^~|]+");
const PUNCTUATION_BACKTICK: Split = regex(r"[\p{P}$+<=>^~|`]+");
const THREE_DIGITS: Split = regex("[0-9][0-9][0-9]");

/// Names, then what goes with them. `default` is also what a file without a name gets.
static TABLE: &[(&[&str], Rules)] = &[
    (&["default"], Rules::of(&[PUNCTUATION, GPT2, regex(r"\p{N}+"), THREE_DIGITS])),
    (
        &["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
        Rules::of(&[LLAMA3]).whole_words().with_bos(Bos::UnlessDenied),
    ),
    (&["dbrx", "smaug-bpe", "chatglm-bpe"], Rules::of(&[LLAMA3])),
    (&["glm4", "glm5"], Rules::of(&[LLAMA3]).whole_words()),
    (&["jais-2"], Rules::of(&[JAIS2])),
    (&["deepseek-llm"], Rules::of(DEEPSEEK_LLM)),
    (&["deepseek-coder"], Rules::of(DEEPSEEK_CODER)),
    (&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], Rules::of(&[TRIPLE, CJK_KANA, DEEPSEEK_WORDS])),
    (&["spark2_5"], Rules::of(&[TRIPLE, CJK_KANA, SPARK_WORDS, ONE_DIGIT])),
    (&["youtu"], Rules::of(&[YOUTU_SCRIPTS, YOUTU]).whole_words()),
    (&["falcon"], Rules::of(&[PUNCTUATION_BACKTICK, GPT2, THREE_DIGITS])),
    (
        &["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
        Rules::of(&[ONE_DIGIT, GPT2]),
    ),
    (
        &[
            "gpt-2",
            "phi-2",
            "jina-es",
            "jina-de",
            "gigachat",
            "jina-v2-es",
            "jina-v2-de",
            "a.x-4.0",
            "mellum",
            "modern-bert",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
        ],
        Rules::of(&[GPT2]),
    ),
    (
        &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "megrez", "solar-open", "grok-2"],
        Rules::of(&[QWEN2]),
    ),
    (&["qwen35"], Rules::of(&[QWEN35])),
    (&["laguna"], Rules::of(&[LINES, QWEN2])),
    (&["ufakzeka"], Rules::of(&[UFAKZEKA])),
    (&["poro-chat", "bloom", "gpt3-finnish"], Rules::of(&[BLOOM])),
    (&["viking"], Rules::of(&[BLOOM, ONE_DIGIT])),
    (&["tekken"], Rules::of(&[TEKKEN]).whole_words().with_bos(Bos::UnlessDenied)),
    (&["chameleon"], Rules::of(CHAMELEON).with_bos(Bos::UnlessDenied)),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], Rules::of(&[GPT4O])),
    (&["granite-embed-multi-97m"], Rules::of(&[GPT4O]).whole_words()),
    (&["tiny_aya", "cohere2moe"], Rules::of(&[Split::Triples { run: r"\d+", ends_word: true }, GPT4O])),
    (&["kimi-k2"], Rules::of(&[KIMI_K2])),
    (&["superbpe"], Rules::of(&[regex(r"\p{N}+"), Split::Triples { run: r"\d+", ends_word: false }])),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], Rules::of(&[BAILINGMOE])),
    (&["seed-coder"], Rules::of(&[SEED_CODER])),
    (&["afmoe"], Rules::of(&[Split::Triples { run: r"\p{N}+", ends_word: false }, AFMOE_SCRIPTS, DEEPSEEK_WORDS])),
    (&["exaone-moe"], Rules::of(&[EXAONE_MOE])),
    (&["minicpm5"], Rules::of(&[TRIPLE, MINICPM5]).whole_words()),
    (&["gemma4", "granite-embed-multi-311m"], Rules::of(&[LINES]).spaces().with_bos(Bos::Always)),
    (&["sarvam-moe"], Rules::of(&[LINES]).spaces()),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::pretokenize::PreTokenizer;

    #[test]
    fn every_name_is_there_once_and_compiles() {
        let mut names: Vec<&str> = pre_tokenizer_names().collect();
        for (_, rules) in TABLE {
            PreTokenizer::new(rules.splits);
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(rules("llama-bpe").is_some_and(|rules| rules.ignore_merges && rules.bos == Bos::UnlessDenied));
        assert!(rules("no-such-name").is_none());
    }
}
