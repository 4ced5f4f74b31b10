//! What a template renders: text in segments, each written by the template or by a user.

use super::taint::Text;
use crate::text::Segment;

/// A rendered conversation: segments by who wrote them, neighbours merged, none empty.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    text: Text,
}

impl Prompt {
    /// The segments in order, for [`Tokenizer::encode`](crate::text::Tokenizer::encode).
    pub fn segments(&self) -> Vec<Segment<'_>> {
        let segment = |(run, user)| if user { Segment::Text(run) } else { Segment::Template(run) };
        self.text.runs().map(segment).collect()
    }

    /// The whole text, whoever wrote it: for people and tests, not for tokenizing.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }

    /// Whether the prompt ends inside an open thought (`<think>` with nothing after it), so that the answer begins with
    /// reasoning without saying so.
    pub fn opens_thought(&self) -> bool {
        let Some(Segment::Template(last)) = self.segments().pop() else { return false };
        let end = last.trim_end();
        ["<think>", "<|START_THINKING|>", "[THINK]", "<seed:think>"].iter().any(|tag| end.ends_with(tag))
    }
}

impl From<Text> for Prompt {
    fn from(text: Text) -> Prompt {
        Prompt { text }
    }
}
