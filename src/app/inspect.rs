//! `inspect`: what is in a model file, for people and as JSON. Reads the header alone, whatever the file's size.

use super::args::ModelArgs;
use super::hub::name::ModelName;
use super::{pull, term};
use crate::base::{DType, Result};
use crate::gguf::{Gguf, Metadata, Value};
use clap::Args;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A GGUF file, hf:user/repo:QUANT, or an alias; the same as -m.
    name: Option<OsString>,
    /// List all tensors and all metadata too.
    #[arg(short, long, env = "WGPU_LLM_VERBOSE")]
    verbose: bool,
    /// Print JSON. It has all tensors and metadata; long arrays only with --verbose.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Prints what is in the model's file.
pub fn run(args: &InspectArgs) -> Result<()> {
    let name = match &args.name {
        Some(name) => ModelName::parse(name)?,
        None => args.model.name()?,
    };
    let path = pull::hub(args.model.offline)?.resolve(&name)?;
    let gguf = Gguf::open(&path)?;
    if args.json {
        return term::print(format_args!("{:#}\n", to_json(&path, &gguf, args.verbose)));
    }
    term::print(to_text(&path, &gguf, args.verbose))
}

/// What is printed of `{architecture}.KEY`, with words for people.
const SIZES: &[(&str, &str)] = &[
    ("block_count", "layers"),
    ("context_length", "context"),
    ("embedding_length", "embedding"),
    ("feed_forward_length", "feed forward"),
    ("attention.head_count", "heads"),
    ("attention.head_count_kv", "KV heads"),
    ("attention.key_length", "key length"),
    ("attention.value_length", "value length"),
    ("attention.sliding_window", "sliding window"),
    ("expert_count", "experts"),
    ("expert_used_count", "experts used"),
    ("expert_feed_forward_length", "expert feed fwd"),
    ("rope.dimension_count", "RoPE dimensions"),
    ("rope.freq_base", "RoPE base"),
    ("rope.scaling.type", "RoPE scaling"),
];

/// `general.file_type`: the quantization preset that a file was made with. Source: llama.cpp's llama_ftype.
const FILE_TYPES: &[(u32, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
];

/// Special tokens by the end of their key, `tokenizer.ggml.KEY_token_id`.
const SPECIALS: &[&str] = &["bos", "eos", "eot", "eom", "unknown", "padding", "seperator", "cls", "mask"];

/// How much of a model one format has.
#[derive(Default)]
struct Share {
    tensors: usize,
    weights: usize,
    bytes: usize,
}

fn shares(gguf: &Gguf) -> BTreeMap<DType, Share> {
    let mut shares: BTreeMap<DType, Share> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let share = shares.entry(tensor.dtype).or_default();
        share.tensors += 1;
        // A hostile file may name more weights than a number can count; it is refused elsewhere, not here.
        share.weights = share.weights.saturating_add(tensor.shape.elements());
        share.bytes = share.bytes.saturating_add(tensor.bytes());
    }
    shares
}

fn totals(shares: &BTreeMap<DType, Share>) -> (usize, f64) {
    let weights = shares.values().fold(0usize, |sum, s| sum.saturating_add(s.weights));
    let bytes = shares.values().fold(0usize, |sum, s| sum.saturating_add(s.bytes));
    (weights, bytes as f64 * 8.0 / weights.max(1) as f64)
}

/// A string of the metadata; a wrong type reads as absent, for the table of all metadata shows it as it is.
fn text<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a str> {
    metadata.str(key).ok().flatten()
}

fn size<'a>(metadata: &'a Metadata, key: &str) -> Option<&'a Value> {
    metadata.get(&format!("{}.{key}", text(metadata, "general.architecture")?))
}

/// The quantization preset that a file says it was made with: `Q4_K_M`.
pub fn file_type(metadata: &Metadata) -> Option<String> {
    let id = metadata.u32("general.file_type").ok()??;
    let known = FILE_TYPES.iter().find(|(known, _)| *known == id);
    Some(known.map_or_else(|| format!("type {id}"), |(_, name)| name.to_string()))
}

/// The special tokens there are: kind, id, text.
fn specials(metadata: &Metadata) -> Vec<(&'static str, u32, Option<String>)> {
    let tokens = metadata.strings("tokenizer.ggml.tokens").ok().flatten();
    let special = |kind: &&'static str| {
        let id = metadata.u32(&format!("tokenizer.ggml.{kind}_token_id")).ok()??;
        let text = tokens.and_then(|t| t.get(id as usize)).map(|t| String::from_utf8_lossy(t).into_owned());
        Some((*kind, id, text))
    };
    SPECIALS.iter().filter_map(special).collect()
}

/// The chat templates of a file: the name ("default" for the usual one) and the text.
fn templates(metadata: &Metadata) -> Vec<(&str, &str)> {
    const KEY: &str = "tokenizer.chat_template";
    let keys = metadata.iter().map(|(key, _)| key);
    let named = keys.filter_map(|key| Some((key, key.strip_prefix(KEY)?))).filter_map(|(key, rest)| {
        let name = if rest.is_empty() { "default" } else { rest.strip_prefix('.')? };
        Some((name, text(metadata, key)?))
    });
    named.collect()
}

/// What a template speaks of, as far as its text tells.
fn abilities(template: &str) -> Vec<&'static str> {
    let signs: &[(&str, &[&str])] = &[
        ("system", &["system"]),
        ("tools", &["tools", "tool_call"]),
        ("thinking", &["enable_thinking", "<think>", "reasoning_content", "reasoning_effort"]),
        ("images", &["image"]),
    ];
    let speaks = |of: &&[&str]| of.iter().any(|sign| template.contains(sign));
    signs.iter().filter(|(_, of)| speaks(of)).map(|(name, _)| *name).collect()
}

/// Text from a file on one line, with nothing in it that could command a terminal.
fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn to_text(path: &Path, gguf: &Gguf, verbose: bool) -> String {
    let metadata = gguf.metadata();
    let shares = shares(gguf);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_string(), value]);
    row("file", clean(&path.display().to_string()));
    row("size", format!("{}, GGUF version {}", term::bytes(gguf.file_bytes()), gguf.version()));
    for (key, name) in [("name", "name"), ("architecture", "architecture"), ("license", "licence")] {
        if let Some(value) = text(metadata, &format!("general.{key}")) {
            row(name, clean(value));
        }
    }
    let (weights, bits) = totals(&shares);
    row("parameters", count(weights));
    let preset = file_type(metadata).unwrap_or_else(|| "not told".into());
    row("quantization", format!("{preset}, {bits:.2} bits per weight"));
    for (key, name) in SIZES {
        if let Some(value) = size(metadata, key) {
            row(name, value.to_string());
        }
    }
    tokenizer_rows(metadata, &mut row);
    for (name, template) in templates(metadata) {
        let speaks = abilities(template).join(", ");
        let speaks = if speaks.is_empty() { String::new() } else { format!("; speaks of {speaks}") };
        row("chat template", format!("{}, {} characters{speaks}", clean(name), template.chars().count()));
    }
    let mut out = term::table(&rows);
    out += "\n";
    out += &term::table(&format_rows(&shares));
    if verbose {
        out += &details(gguf);
    }
    out
}

fn tokenizer_rows(metadata: &Metadata, row: &mut impl FnMut(&str, String)) {
    let Some(model) = text(metadata, "tokenizer.ggml.model") else { return };
    let pre = text(metadata, "tokenizer.ggml.pre").map(|pre| format!(", {}", clean(pre))).unwrap_or_default();
    let tokens = metadata.strings("tokenizer.ggml.tokens").ok().flatten().map_or(0, |t| t.len());
    row("tokenizer", format!("{}{pre}, {tokens} tokens", clean(model)));
    let one = |(kind, id, text): (&str, u32, Option<String>)| match text {
        Some(text) => format!("{kind} {} ({id})", clean(&text)),
        None => format!("{kind} {id}, which the vocabulary lacks"),
    };
    let specials: Vec<String> = specials(metadata).into_iter().map(one).collect();
    if !specials.is_empty() {
        row("special tokens", specials.join(", "));
    }
}

fn format_rows(shares: &BTreeMap<DType, Share>) -> Vec<Vec<String>> {
    let mut rows = vec![["FORMAT", "TENSORS", "WEIGHTS", "SIZE"].map(String::from).to_vec()];
    let row = |(dtype, share): (&DType, &Share)| {
        vec![dtype.to_string(), share.tensors.to_string(), count(share.weights), term::bytes(share.bytes as u64)]
    };
    rows.extend(shares.iter().map(row));
    rows
}

fn details(gguf: &Gguf) -> String {
    let mut tensors = vec![["TENSOR", "FORMAT", "SHAPE", "SIZE"].map(String::from).to_vec()];
    tensors.extend(
        gguf.tensors().iter().map(|t| {
            vec![clean(&t.name), t.dtype.to_string(), format!("{:?}", t.shape), term::bytes(t.bytes() as u64)]
        }),
    );
    let mut keys = vec![["KEY", "TYPE", "VALUE"].map(String::from).to_vec()];
    keys.extend(gguf.metadata().iter().map(|(key, value)| vec![clean(key), value.type_name(), value.to_string()]));
    format!("\n{}\n{}", term::table(&tensors), term::table(&keys))
}

/// A number of weights for people: `134.5 M`.
fn count(n: usize) -> String {
    match n as f64 {
        n if n >= 1e12 => format!("{:.1} T", n / 1e12),
        n if n >= 1e9 => format!("{:.1} B", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} K", n / 1e3),
        n => format!("{n}"),
    }
}

fn to_json(path: &Path, gguf: &Gguf, verbose: bool) -> Json {
    let metadata = gguf.metadata();
    let shares = shares(gguf);
    let (weights, bits) = totals(&shares);
    let sizes: Map<String, Json> =
        SIZES.iter().filter_map(|(key, _)| Some((key.to_string(), value_json(size(metadata, key)?, true)))).collect();
    let formats: Vec<Json> = shares
        .iter()
        .map(|(dtype, s)| json!({"type": dtype.name(), "tensors": s.tensors, "weights": s.weights, "bytes": s.bytes}))
        .collect();
    let tensors: Vec<Json> = gguf
        .tensors()
        .iter()
        .map(|t| json!({"name": t.name, "type": t.dtype.name(), "shape": t.shape.dims(), "bytes": t.bytes()}))
        .collect();
    let keys: Map<String, Json> = metadata.iter().map(|(k, v)| (k.to_string(), value_json(v, verbose))).collect();
    json!({
        "path": path,
        "bytes": gguf.file_bytes(),
        "version": gguf.version(),
        "alignment": gguf.alignment(),
        "name": text(metadata, "general.name"),
        "architecture": text(metadata, "general.architecture"),
        "file_type": file_type(metadata),
        "parameters": weights,
        "bits_per_weight": (bits * 1000.0).round() / 1000.0,
        "sizes": sizes,
        "formats": formats,
        "tokenizer": tokenizer_json(metadata),
        "chat_templates": templates_json(metadata),
        "metadata": keys,
        "tensors": tensors,
    })
}

fn tokenizer_json(metadata: &Metadata) -> Json {
    let count = |key: &str| metadata.strings(key).ok().flatten().map(|s| s.len());
    let special = |(kind, id, text): (&str, u32, Option<String>)| (kind.to_string(), json!({"id": id, "text": text}));
    json!({
        "model": text(metadata, "tokenizer.ggml.model"),
        "pre": text(metadata, "tokenizer.ggml.pre"),
        "tokens": count("tokenizer.ggml.tokens"),
        "merges": count("tokenizer.ggml.merges"),
        "special": specials(metadata).into_iter().map(special).collect::<Map<String, Json>>(),
    })
}

fn templates_json(metadata: &Metadata) -> Json {
    let one = |(name, text): (&str, &str)| json!({"name": name, "characters": text.chars().count(), "speaks_of": abilities(text)});
    templates(metadata).into_iter().map(one).collect::<Vec<Json>>().into()
}

/// Arrays longer than this are told by type and length unless asked for whole.
const SHORT_ARRAY: usize = 16;

/// A value as JSON. Numbers keep their shortest form; what JSON has no number for becomes `null`.
fn value_json(value: &Value, whole: bool) -> Json {
    match value {
        Value::Bool(v) => json!(v),
        // By way of text: 1e-5 as f32 shall not become 9.999999747378752e-6.
        Value::F32(v) => v.to_string().parse::<f64>().map_or(Json::Null, |v| json!(v)),
        Value::F64(v) => json!(v),
        Value::String(v) => json!(String::from_utf8_lossy(v)),
        Value::Array(a) if whole || a.len() <= SHORT_ARRAY => {
            (0..a.len()).filter_map(|i| a.get(i)).map(|v| value_json(&v, whole)).collect::<Vec<Json>>().into()
        }
        Value::Array(a) => json!({"type": value.type_name(), "length": a.len()}),
        v => v
            .integer()
            .and_then(|n| i64::try_from(n).map(Json::from).or_else(|_| u64::try_from(n).map(Json::from)).ok())
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Strings;

    fn metadata() -> Metadata {
        let mut m = Metadata::new();
        m.set("general.architecture", "llama");
        m.set("general.file_type", 15u32);
        m.set("llama.block_count", 2u32);
        m.set("llama.rope.freq_base", 1e-5f32);
        m.set("tokenizer.ggml.model", "gpt2");
        m.set("tokenizer.ggml.tokens", ["a", "<s>\x1b[31m"].iter().collect::<Strings>());
        m.set("tokenizer.ggml.bos_token_id", 1u32);
        m.set("tokenizer.ggml.eos_token_id", 7u32);
        m.set("tokenizer.chat_template", "{% if tools %}<think>");
        m.set("tokenizer.chat_template.rag", "documents");
        m
    }

    #[test]
    fn the_metadata_is_told_in_words() {
        let m = metadata();
        assert_eq!(file_type(&m).as_deref(), Some("Q4_K_M"));
        assert_eq!(size(&m, "block_count"), Some(&Value::U32(2)));
        assert_eq!(specials(&m), [("bos", 1, Some("<s>\x1b[31m".into())), ("eos", 7, None)]);
        let names: Vec<&str> = templates(&m).iter().map(|t| t.0).collect();
        assert_eq!(names, ["default", "rag"]);
        assert_eq!(abilities("{% if tools %}<think>"), ["tools", "thinking"]);
    }

    #[test]
    fn a_file_cannot_command_the_terminal() {
        let mut rows = String::new();
        tokenizer_rows(&metadata(), &mut |name, value| rows += &format!("{name} {value}\n"));
        assert!(rows.contains("<s>\\u{1b}[31m (1), eos 7, which the vocabulary lacks"), "{rows}");
        assert!(!rows.contains('\x1b'));
    }

    #[test]
    fn values_become_json_without_losing_anything() {
        assert_eq!(value_json(&Value::F32(1e-5), true), json!(1e-5));
        assert_eq!(value_json(&Value::F32(f32::NAN), true), Json::Null);
        assert_eq!(value_json(&Value::U64(u64::MAX), true), json!(u64::MAX));
        assert_eq!(value_json(&Value::I8(-3), true), json!(-3));
        let long = Value::from((0..17u32).collect::<Vec<_>>());
        assert_eq!(value_json(&long, false), json!({"type": "array of u32", "length": 17}));
        assert_eq!(value_json(&long, true).as_array().map(Vec::len), Some(17));
    }

    #[test]
    fn weights_are_counted_for_people() {
        let cases = [(7, "7"), (1_500, "1.5 K"), (134_515_008, "134.5 M"), (20_900_000_000, "20.9 B")];
        for (n, text) in cases {
            assert_eq!(count(n), text);
        }
    }
}
