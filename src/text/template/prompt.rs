//! What a template renders: text in segments, each written by the template or by a user.

use crate::text::{ReasoningStyle, Segment};
use std::ops::Range;

/// A rendered conversation: segments by who wrote them, neighbours merged, none empty.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    text: String,
    /// Byte ranges that users wrote: ascending, disjoint, not touching, not empty.
    user: Vec<Range<usize>>,
}

impl Prompt {
    /// A text with the byte ranges that users wrote, ascending and disjoint.
    pub(super) fn new(text: String, user: Vec<Range<usize>>) -> Prompt {
        Prompt { text, user }
    }

    /// The segments in order, for [`Tokenizer::encode`](crate::text::Tokenizer::encode).
    pub fn segments(&self) -> Vec<Segment<'_>> {
        let mut segments = Vec::with_capacity(2 * self.user.len() + 1);
        let mut at = 0;
        for range in &self.user {
            segments.push(Segment::Template(&self.text[at..range.start]));
            segments.push(Segment::Text(&self.text[range.clone()]));
            at = range.end;
        }
        segments.push(Segment::Template(&self.text[at..]));
        segments.retain(|segment| !segment.as_str().is_empty());
        segments
    }

    /// The whole text, whoever wrote it: for people and tests, not for tokenizing.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The style of the reasoning that the prompt ends in, if it does (`<think>` with nothing after it): then the answer begins with
    /// reasoning without saying so.
    pub fn opened_reasoning(&self) -> Option<ReasoningStyle> {
        match self.segments().pop() {
            Some(Segment::Template(last)) => ReasoningStyle::opened_by(last),
            _ => None,
        }
    }

    /// Whether the prompt ends inside reasoning.
    pub fn opens_reasoning(&self) -> bool {
        self.opened_reasoning().is_some()
    }
}
