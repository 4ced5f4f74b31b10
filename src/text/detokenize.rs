//! Token ids to text, as they come: nothing is printed before it is known to be whole characters.

use super::tokenizer::Tokenizer;

/// What the text of a token sequence should look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DetokenizeOptions {
    /// Print control tokens, such as `<|im_end|>`, by name.
    pub show_special: bool,
    /// The tokens go on from earlier ones (an answer after its prompt): a leading space belongs to the text.
    /// Otherwise the space that the tokenizer itself puts in front of a text is taken off again.
    pub continued: bool,
}

/// Decodes a stream of tokens. Characters may be spread over several tokens: they come out when they are whole.
/// Bytes that can no longer become a character come out as U+FFFD, one for each maximal broken sequence, exactly as
/// [`String::from_utf8_lossy`] has it for the whole.
#[derive(Debug)]
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    show_special: bool,
    strip_space: bool,
    /// The beginning of a character; at most three bytes.
    pending: Vec<u8>,
    text: String,
}

impl<'t> Detokenizer<'t> {
    /// A decoder at the start of a sequence.
    pub fn new(tokenizer: &'t Tokenizer, options: DetokenizeOptions) -> Self {
        Detokenizer {
            tokenizer,
            show_special: options.show_special,
            strip_space: tokenizer.adds_space() && !options.continued,
            pending: vec![],
            text: String::new(),
        }
    }

    /// Takes a token and returns the text that it completes, often empty. An id past the vocabulary has no text.
    pub fn push(&mut self, id: u32) -> &str {
        self.text.clear();
        if !self.tokenizer.is_hidden(id) || self.show_special {
            let mut bytes = self.tokenizer.token_bytes(id);
            if self.strip_space && !bytes.is_empty() && !self.tokenizer.is_control(id) {
                self.strip_space = false;
                bytes = bytes.strip_prefix(b" ").filter(|_| self.tokenizer.is_merged(id)).unwrap_or(bytes);
            }
            self.pending.extend_from_slice(bytes);
            take_whole(&mut self.pending, &mut self.text);
        }
        &self.text
    }

    /// Ends the sequence: an unfinished character comes out as U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }
}

/// Moves the characters that are decided from `pending` bytes to the end of `text`; bytes that can no longer become one are U+FFFD.
pub(crate) fn take_whole(pending: &mut Vec<u8>, text: &mut String) {
    let mut rest = &pending[..];
    let left = loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                break 0;
            }
            Err(error) => {
                let (valid, broken) = rest.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                let Some(length) = error.error_len() else { break broken.len() };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &broken[length..];
            }
        }
    };
    pending.drain(..pending.len() - left);
}
