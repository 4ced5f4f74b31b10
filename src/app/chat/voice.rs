//! Tokens to what a person sees: whole characters, thoughts apart from the answer, nothing that commands the terminal.

use crate::app::term::{self, Stream};
use crate::base::{Error, Result};
use crate::text::{DetokenizeOptions, Detokenizer, Piece, ReasoningSplitter, ReasoningStyle, Tokenizer};
use std::ops::ControlFlow;

/// One answer while it comes.
pub struct Voice<'t> {
    detokenizer: Detokenizer<'t>,
    splitter: Option<ReasoningSplitter>,
    on_terminal: bool,
    answer: String,
    thought: String,
    failed: Option<Error>,
}

impl<'t> Voice<'t> {
    /// An answer in a model's `style` of thinking; `thought` is the style of the one that the prompt has opened.
    pub fn new(tokenizer: &'t Tokenizer, style: ReasoningStyle, thought: Option<ReasoningStyle>) -> Voice<'t> {
        let in_thought = thought.is_some();
        let style = thought.unwrap_or(style);
        // The marks of a thought may be control tokens: they have to be seen to be told apart.
        let show_special = style != ReasoningStyle::None;
        Voice {
            detokenizer: Detokenizer::new(tokenizer, DetokenizeOptions { show_special, continued: true }),
            splitter: Some(ReasoningSplitter::new(style, in_thought)),
            on_terminal: Stream::Stdout.is_terminal(),
            answer: String::new(),
            thought: String::new(),
            failed: None,
        }
    }

    /// Says a token. Breaks where stdout is gone or Ctrl-C was pressed.
    pub fn say(&mut self, token: u32) -> ControlFlow<()> {
        if term::interrupted() {
            return ControlFlow::Break(());
        }
        let text = self.detokenizer.push(token);
        let pieces = self.splitter.as_mut().map_or_else(Vec::new, |s| s.push(text));
        if let Err(e) = self.show(pieces) {
            self.failed = Some(e);
        }
        if self.failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the answer; gives it and the thought before it.
    pub fn finish(mut self) -> Result<(String, String)> {
        if let Some(e) = self.failed {
            return Err(e);
        }
        let rest = self.detokenizer.finish().to_string();
        if let Some(mut splitter) = self.splitter.take() {
            let mut pieces = splitter.push(&rest);
            pieces.extend(splitter.finish());
            self.show(pieces)?;
        }
        if !self.answer.ends_with('\n') {
            term::print("\n")?;
        }
        Ok((self.answer, self.thought))
    }

    fn show(&mut self, pieces: Vec<Piece>) -> Result<()> {
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => {
                    if self.on_terminal {
                        term::print(term::paint(Stream::Stdout, "2", &harmless(&text)))?;
                    }
                    self.thought.push_str(&text);
                }
                // No tools are offered here: a call of one is an answer like any other.
                Piece::Content(text) | Piece::Call { text, .. } => {
                    if self.on_terminal && self.answer.is_empty() && !self.thought.is_empty() {
                        term::print("\n\n")?;
                    }
                    if self.on_terminal {
                        term::print(harmless(&text))?;
                    } else {
                        term::print(&text)?;
                    }
                    self.answer.push_str(&text);
                }
            }
        }
        Ok(())
    }
}

/// The text without what a terminal would obey: a model may write escape sequences.
fn harmless(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_does_not_command_the_terminal() {
        assert_eq!(harmless("a\x1b[31mb\r\n\tc\u{9b}d\u{7f}é"), "a[31mb\n\tcdé");
    }
}
