//! What a model file says about its vocabulary (`tokenizer.ggml.*`), before any of it is believed.

use crate::base::{Error, Result};

/// Typed access to a file's key–value pairs, so that this room need not know the file format.
/// Every getter gives `None` if the key is missing and an error if its type is another.
pub trait MetadataKeys {
    /// A UTF-8 string.
    fn str(&self, key: &str) -> Result<Option<&str>>;
    /// An integer that fits.
    fn u32(&self, key: &str) -> Result<Option<u32>>;
    /// A bool.
    fn bool(&self, key: &str) -> Result<Option<bool>>;
    /// An array of strings, as raw bytes.
    fn strings(&self, key: &str) -> Result<Option<Vec<Vec<u8>>>>;
    /// An array of floats.
    fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>>;
    /// An array of integers that fit.
    fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>>;
    /// An array of 8-bit integers, as raw bytes.
    fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>>;
}

/// Ids of the tokens with a role; `None` if there is no such token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a sequence (`[CLS]` in WordPiece vocabularies).
    pub bos: Option<u32>,
    /// Ends a sequence.
    pub eos: Option<u32>,
    /// Ends a turn.
    pub eot: Option<u32>,
    /// Ends a message that expects a tool's answer.
    pub eom: Option<u32>,
    /// Stands for what the vocabulary cannot spell.
    pub unk: Option<u32>,
    /// Separates or closes sequences (`[SEP]`).
    pub sep: Option<u32>,
    /// Fills up batches.
    pub pad: Option<u32>,
    /// Masks a place to be guessed.
    pub mask: Option<u32>,
    /// Fill-in-the-middle: before the text that precedes the gap.
    pub fim_pre: Option<u32>,
    /// Fill-in-the-middle: before the text that follows the gap.
    pub fim_suf: Option<u32>,
    /// Fill-in-the-middle: before the text of the gap.
    pub fim_mid: Option<u32>,
    /// Fill-in-the-middle: padding.
    pub fim_pad: Option<u32>,
    /// Fill-in-the-middle: before a repository's name.
    pub fim_rep: Option<u32>,
    /// Fill-in-the-middle: between files.
    pub fim_sep: Option<u32>,
}

/// A vocabulary as the file states it. Nothing in it is checked yet; [`Tokenizer::new`](super::Tokenizer::new) does that.
#[derive(Debug, Clone, Default)]
pub struct VocabSource {
    /// `tokenizer.ggml.model`: `llama` (SPM), `gpt2` (BPE), `gemma4`, `bert` (WordPiece), `t5` (unigram)
    pub model: String,
    /// `tokenizer.ggml.pre`: the pre-tokenizer's name, for BPE.
    pub pre: Option<String>,
    /// `general.name`; one family is only known by it.
    pub name: Option<String>,
    /// The tokens' texts by id, in the vocabulary's own spelling.
    pub tokens: Vec<Vec<u8>>,
    /// Scores by id; SPM merges the pair with the highest first.
    pub scores: Option<Vec<f32>>,
    /// Types by id: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte (0 undefined).
    pub token_types: Option<Vec<i32>>,
    /// BPE merges, best first, each `left right`.
    pub merges: Option<Vec<Vec<u8>>>,
    /// Tokens with a role, as far as the file names them.
    pub ids: SpecialIds,
    /// Whether a sequence begins with `bos`.
    pub add_bos: Option<bool>,
    /// Whether a sequence ends with `eos`.
    pub add_eos: Option<bool>,
    /// Whether a WordPiece sequence ends with `sep`.
    pub add_sep: Option<bool>,
    /// Whether text gets a leading space (SPM, unigram).
    pub add_space_prefix: Option<bool>,
    /// Unigram: whether runs of spaces count as one, and those at the ends as none.
    pub remove_extra_whitespaces: Option<bool>,
    /// Unigram: SentencePiece's compiled normalizer.
    pub charsmap: Option<Vec<u8>>,
    /// WordPiece: whether text is put in lower case.
    pub lowercase: Option<bool>,
    /// WordPiece: whether accents are dropped.
    pub strip_accents: Option<bool>,
}

impl VocabSource {
    /// Reads the `tokenizer.*` keys. Fails if a key is of the wrong type or the model or token list is missing.
    pub fn from_keys(keys: &impl MetadataKeys) -> Result<VocabSource> {
        let text = |key: &str| Ok::<_, Error>(keys.str(key)?.map(str::to_owned));
        let flag = |name: &str| keys.bool(&format!("tokenizer.ggml.{name}"));
        let missing = |what: &str| {
            Error::format(format!("the file has no {what}"))
                .help("it carries no vocabulary: use a whole model file or convert it again")
        };
        Ok(VocabSource {
            model: text("tokenizer.ggml.model")?.ok_or_else(|| missing("tokenizer.ggml.model"))?,
            pre: text("tokenizer.ggml.pre")?.filter(|pre| !pre.is_empty()),
            name: text("general.name")?,
            tokens: keys.strings("tokenizer.ggml.tokens")?.ok_or_else(|| missing("tokenizer.ggml.tokens"))?,
            scores: keys.f32s("tokenizer.ggml.scores")?,
            token_types: keys.i32s("tokenizer.ggml.token_type")?,
            merges: keys.strings("tokenizer.ggml.merges")?,
            ids: SpecialIds::from_keys(keys)?,
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_sep: flag("add_sep_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            remove_extra_whitespaces: flag("remove_extra_whitespaces")?,
            charsmap: keys.bytes("tokenizer.ggml.precompiled_charsmap")?,
            lowercase: flag("normalizer.lowercase")?,
            strip_accents: flag("normalizer.strip_accents")?,
        })
    }
}

impl SpecialIds {
    fn from_keys(keys: &impl MetadataKeys) -> Result<SpecialIds> {
        let id = |name: &str| keys.u32(&format!("tokenizer.ggml.{name}_token_id"));
        // The second name of the first three is the older one.
        let either = |new: &str, old: &str| Ok::<_, Error>(id(new)?.or(id(old)?));
        Ok(SpecialIds {
            bos: id("bos")?,
            eos: id("eos")?,
            eot: id("eot")?,
            eom: id("eom")?,
            unk: id("unknown")?,
            sep: id("seperator")?, // the format spells it so
            pad: id("padding")?,
            mask: id("mask")?,
            fim_pre: either("fim_pre", "prefix")?,
            fim_suf: either("fim_suf", "suffix")?,
            fim_mid: either("fim_mid", "middle")?,
            fim_pad: id("fim_pad")?,
            fim_rep: id("fim_rep")?,
            fim_sep: id("fim_sep")?,
        })
    }

    /// All roles by name, for checks over each of them.
    pub(super) fn named_mut(&mut self) -> [(&'static str, &mut Option<u32>); 14] {
        [
            ("bos", &mut self.bos),
            ("eos", &mut self.eos),
            ("eot", &mut self.eot),
            ("eom", &mut self.eom),
            ("unknown", &mut self.unk),
            ("separator", &mut self.sep),
            ("padding", &mut self.pad),
            ("mask", &mut self.mask),
            ("fim_pre", &mut self.fim_pre),
            ("fim_suf", &mut self.fim_suf),
            ("fim_mid", &mut self.fim_mid),
            ("fim_pad", &mut self.fim_pad),
            ("fim_rep", &mut self.fim_rep),
            ("fim_sep", &mut self.fim_sep),
        ]
    }
}
