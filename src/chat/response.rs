//! Tokens to text: whole characters, the model's reasoning apart from the content of its reply.

use crate::text::{
    ChatTemplate, DetokenizeOptions, Detokenizer, Piece, ReasoningSplitter, ReasoningStyle, StopStrings, Tokenizer,
};

/// What one token adds to a reply. Both texts may be empty: half a character and half a tag are held back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Text of the reasoning before the content.
    pub reasoning: String,
    /// Text of the content.
    pub content: String,
    /// The token; `None` for what was held back until the end.
    pub token: Option<u32>,
}

/// One reply while it comes.
pub struct ResponseStream<'t> {
    detokenizer: Detokenizer<'t>,
    splitter: Option<ReasoningSplitter>,
    stops: StopStrings,
    content: String,
    reasoning: String,
}

impl<'t> ResponseStream<'t> {
    /// A reply in the style of `template`; `opened` is the style of the reasoning that the prompt ends in, if it does. Any of `stops` in the
    /// content ends it.
    pub fn new(
        tokenizer: &'t Tokenizer,
        template: &ChatTemplate,
        opened: Option<ReasoningStyle>,
        stops: StopStrings,
    ) -> Self {
        let inside = opened.is_some();
        let style = opened.unwrap_or_else(|| ReasoningStyle::of_template(template.source()));
        Self::styled(tokenizer, style, inside, stops)
    }

    /// Text as it stands, without a template: all of it is content, but control tokens. Any of `stops` ends it.
    pub fn plain(tokenizer: &'t Tokenizer, stops: StopStrings) -> Self {
        Self::styled(tokenizer, ReasoningStyle::None, false, stops)
    }

    fn styled(tokenizer: &'t Tokenizer, style: ReasoningStyle, inside: bool, stops: StopStrings) -> Self {
        // The marks of reasoning may be control tokens: they have to be seen to be told apart.
        let show_special = style != ReasoningStyle::None;
        ResponseStream {
            detokenizer: Detokenizer::new(tokenizer, DetokenizeOptions { show_special, continued: true }),
            splitter: Some(ReasoningSplitter::new(style, inside)),
            stops,
            content: String::new(),
            reasoning: String::new(),
        }
    }

    /// What a token adds.
    pub fn push(&mut self, token: u32) -> Delta {
        let text = self.detokenizer.push(token);
        let pieces = self.splitter.as_mut().map_or_else(Vec::new, |splitter| splitter.push(text));
        Delta { token: Some(token), ..self.take(pieces) }
    }

    /// Ends the reply; returns what was held back. Later calls return nothing.
    pub fn finish(&mut self) -> Delta {
        let Some(mut splitter) = self.splitter.take() else { return Delta::default() };
        let mut pieces = splitter.push(self.detokenizer.finish());
        pieces.extend(splitter.finish());
        let mut rest = self.take(pieces);
        let held = self.stops.finish();
        self.content += &held;
        rest.content += &held;
        rest
    }

    /// Whether a stop string has ended it.
    pub fn is_stopped(&self) -> bool {
        self.stops.found()
    }

    /// The content and the reasoning so far.
    pub fn into_texts(self) -> (String, String) {
        (self.content, self.reasoning)
    }

    fn take(&mut self, pieces: Vec<Piece>) -> Delta {
        let mut delta = Delta::default();
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => delta.reasoning += &text,
                // No tools are offered: a call of one is content like any other.
                Piece::Content(text) | Piece::Call { text, .. } => delta.content += &self.stops.push(&text),
            }
        }
        self.content += &delta.content;
        self.reasoning += &delta.reasoning;
        delta
    }
}
