//! Vocabularies from metadata that lie in every way metadata can: an error, or a tokenizer that keeps its promises.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::gguf::{Gguf, Metadata, Strings, Writer};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::text::{DetokenizeOptions, Segment};

/// Token texts that mean something to one kind of vocabulary or another.
const TEXTS: &[&str] = &[
    "",
    "a",
    "b",
    "ab",
    "▁",
    "▁a",
    "##b",
    "Ġ",
    "Ġa",
    "<0x00>",
    "<0x61>",
    "<0xFF>",
    "<0x-1>",
    "<0xZZ>",
    "<s>",
    "</s>",
    "<unk>",
    "[CLS]",
    "[SEP]",
    "<|im_end|>",
    "<|endoftext|>",
    "<think>",
    "天",
    "\n",
    "  ",
    "\u{0}",
    "<",
    "s",
    ">",
];
const MODELS: &[&str] = &["llama", "gpt2", "bert", "t5", "rwkv", "plamo2", "gemma4", "none", "no such model"];
const ROLES: &[&str] = &[
    "bos",
    "eos",
    "eot",
    "eom",
    "unknown",
    "seperator",
    "padding",
    "mask",
    "cls",
    "fim_pre",
    "prefix",
    "fim_suf",
    "fim_mid",
];
const FLAGS: &[&str] =
    &["add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces"];

fuzz_target!(|data: &[u8]| -> Corpus {
    let mut input = Unstructured::new(data);
    let Ok((metadata, text)) = vocabulary(&mut input) else { return Corpus::Reject };
    let mut writer = Writer::new(metadata).expect("the keys are well formed");
    writer.tensor("token_embd.weight", DType::F32, [1, 8]).expect("well formed");
    let bytes = writer.to_bytes(|_, out| out.put(&[0; 32])).expect("memory takes any file");
    let model = Model::new(Gguf::from_bytes(bytes).expect("just written")).expect("only the vocabulary is wrong");
    let Ok(tokenizer) = model.tokenizer() else { return Corpus::Keep };

    for special in [false, true] {
        let Ok(ids) = tokenizer.encode(&[Segment::Template(&text), Segment::Text(&text)], special) else { continue };
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.len()));
        for show_special in [false, true] {
            tokenizer.decode(&ids, DetokenizeOptions { show_special, ..Default::default() });
        }
    }
    if let Ok(ids) = tokenizer.encode_text(&text, false) {
        assert!(!ids.iter().any(|&id| tokenizer.is_control(id) && Some(id) != tokenizer.special_ids().unk));
    }
    // Ids that no text gave: past the end as well.
    tokenizer.decode(&[0, 1, 2, u32::MAX], DetokenizeOptions::default());
    Corpus::Keep
});

/// Metadata of a model whose shape is sound and whose vocabulary is what the input says, and a text for it.
fn vocabulary(input: &mut Unstructured) -> Result<(Metadata, String)> {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    for (key, n) in [("context_length", 8u32), ("embedding_length", 8), ("block_count", 1), ("feed_forward_length", 8)]
    {
        metadata.set(format!("llama.{key}"), n);
    }
    metadata.set("llama.attention.head_count", 1u32);
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);

    metadata.set("tokenizer.ggml.model", *input.choose(MODELS)?);
    let pre: Vec<&str> = wgpu_llm::low_level::text::pre_tokenizer_names().collect();
    if input.arbitrary()? {
        metadata.set("tokenizer.ggml.pre", *input.choose(&pre)?);
    }
    let tokens = many(input, token)?;
    let count = tokens.len();
    metadata.set("tokenizer.ggml.tokens", Strings::from_iter(tokens));
    // Of the right number, or not.
    if input.ratio(7u8, 8)? {
        let exact = input.ratio(7u8, 8)?;
        let n = if exact { count } else { input.int_in_range(0..=300)? };
        metadata.set("tokenizer.ggml.token_type", (0..n).map(|_| kind(input)).collect::<Result<Vec<i32>>>()?);
    }
    if input.ratio(6u8, 8)? {
        let n = if input.ratio(7u8, 8)? { count } else { input.int_in_range(0..=300)? };
        metadata.set("tokenizer.ggml.scores", (0..n).map(|_| f32::arbitrary(input)).collect::<Result<Vec<f32>>>()?);
    }
    if input.ratio(6u8, 8)? {
        metadata.set("tokenizer.ggml.merges", Strings::from_iter(many(input, merge)?));
    }
    for role in ROLES {
        if input.ratio(1u8, 3)? {
            let id = if input.ratio(7u8, 8)? { input.int_in_range(0..=count as u32)? } else { input.arbitrary()? };
            metadata.set(format!("tokenizer.ggml.{role}_token_id"), id);
        }
    }
    for flag in FLAGS {
        if input.ratio(1u8, 3)? {
            metadata.set(format!("tokenizer.ggml.{flag}"), input.arbitrary::<bool>()?);
        }
    }
    if input.ratio(1u8, 4)? {
        metadata.set("tokenizer.ggml.precompiled_charsmap", input.arbitrary::<Vec<u8>>()?);
    }
    if input.ratio(1u8, 8)? {
        // A key of a type that nobody expects there.
        let key = metadata.iter().nth(input.int_in_range(7..=metadata.len() - 1)?).expect("in range").0.to_owned();
        metadata.set(key, input.arbitrary::<Vec<u64>>()?);
    }
    let parts = many(input, token)?.concat();
    Ok((metadata, String::from_utf8_lossy(&parts).into_owned()))
}

fn many(input: &mut Unstructured, one: fn(&mut Unstructured) -> Result<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let n = input.int_in_range(0..=120)?;
    (0..n).map(|_| one(input)).collect()
}

fn token(input: &mut Unstructured) -> Result<Vec<u8>> {
    if input.ratio(2u8, 3)? { Ok(input.choose(TEXTS)?.as_bytes().to_vec()) } else { byte_string(input) }
}

fn byte_string(input: &mut Unstructured) -> Result<Vec<u8>> {
    let n = input.int_in_range(0..=6)?;
    Ok(input.bytes(n)?.to_vec())
}

fn merge(input: &mut Unstructured) -> Result<Vec<u8>> {
    let (left, right) = (token(input)?, token(input)?);
    let between: &[u8] = if input.ratio(15u8, 16)? { b" " } else { b"" };
    Ok([&left, between, &right].concat())
}

fn kind(input: &mut Unstructured) -> Result<i32> {
    if input.ratio(15u8, 16)? { input.int_in_range(0..=7) } else { input.arbitrary() }
}
