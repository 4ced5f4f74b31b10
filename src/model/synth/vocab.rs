//! A vocabulary for models that have nothing to say: every byte, the characters of ASCII, then pieces of words in the order
//! of an odometer. A SentencePiece one, which every runtime reads without knowing the model's name.

use crate::gguf::{Metadata, Strings};

/// Token types. Source: llama.cpp's llama_token_type.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// Fewest tokens that spell everything: three special ones, 256 bytes, 95 characters.
const LEAST: usize = 3 + 256 + 95;

/// Adds a vocabulary of `size` tokens. Panics if that cannot spell all of ASCII.
pub fn add(metadata: &mut Metadata, size: usize) {
    assert!(size >= LEAST, "a vocabulary of {size} is none");
    let (mut tokens, mut types, mut scores) = (Strings::new(), Vec::new(), Vec::new());
    let mut push = |text: &str, kind: i32, score: f32| {
        tokens.push(text.as_bytes());
        types.push(kind);
        scores.push(score);
    };
    push("<unk>", UNKNOWN, 0.0);
    push("<s>", CONTROL, 0.0);
    push("</s>", CONTROL, 0.0);
    (0..256).for_each(|byte| push(&format!("<0x{byte:02X}>"), BYTE, 0.0));
    // Merges are tried best score first: what stands earlier.
    let words = (' '..='~').map(|c| if c == ' ' { SPACE.to_owned() } else { c.to_string() }).chain(pieces());
    for (i, word) in words.take(size - 3 - 256).enumerate() {
        push(&word, NORMAL, -(i as f32));
    }
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.pre", "default");
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.scores", scores);
    metadata.set("tokenizer.ggml.token_type", types);
    metadata.set("tokenizer.ggml.unknown_token_id", 0u32);
    metadata.set("tokenizer.ggml.bos_token_id", 1u32);
    metadata.set("tokenizer.ggml.eos_token_id", 2u32);
    metadata.set("tokenizer.ggml.add_bos_token", true);
}

/// `▁a`, `▁b` … `aa`, `▁aa`, `ab` … `zzzzz`: each of two halves that stand before it, so that merging finds it.
fn pieces() -> impl Iterator<Item = String> {
    let single = ('a'..='z').map(|c| format!("{SPACE}{c}"));
    single.chain((2..6).flat_map(|letters| {
        (0..26usize.pow(letters)).flat_map(move |n| {
            let letter = |place: u32| char::from(b'a' + (n / 26usize.pow(place) % 26) as u8);
            let word: String = (0..letters).rev().map(letter).collect();
            [word.clone(), format!("{SPACE}{word}")]
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Gguf, Writer};
    use crate::model::tokenizer_of;

    #[test]
    fn text_becomes_few_tokens_and_comes_back() {
        let mut metadata = Metadata::new();
        add(&mut metadata, 32768);
        let bytes = Writer::new(metadata).unwrap().to_bytes(|_, _| Ok(())).unwrap();
        let tokenizer = tokenizer_of(&Gguf::from_bytes(bytes).unwrap()).unwrap();
        let text = "the quick brown fox: 42 jumps, größer 漢字!";
        let tokens = tokenizer.encode_text(text, true).unwrap();
        assert!(tokens[0] == 1 && tokens.len() < text.len(), "{tokens:?}");
        assert_eq!(tokenizer.decode(&tokens[1..], Default::default()).trim_start(), text);
    }

    #[test]
    fn no_token_occurs_twice() {
        let all: Vec<String> = pieces().take(300_000).collect();
        let mut unique = all.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), all.len());
    }
}
