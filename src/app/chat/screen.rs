//! A reply as a person sees it: reasoning apart from the content, nothing that commands the terminal.

use crate::app::term::{self, Stream};
use crate::base::{Error, Result};
use crate::chat::Delta;
use std::ops::ControlFlow;

/// Shows one reply on stdout while it comes.
pub struct Screen {
    on_terminal: bool,
    /// Whether any reasoning was shown.
    reasoned: bool,
    /// The last character of the content that was shown.
    last: Option<char>,
    failed: Option<Error>,
}

impl Screen {
    /// Nothing is shown yet.
    pub fn new() -> Screen {
        Screen { on_terminal: Stream::Stdout.is_terminal(), reasoned: false, last: None, failed: None }
    }

    /// Shows what a token adds. Breaks if stdout is gone or Ctrl-C was pressed.
    pub fn show(&mut self, delta: &Delta) -> ControlFlow<()> {
        if self.failed.is_none() {
            self.failed = self.print(delta).err();
        }
        if self.failed.is_some() || term::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the reply.
    pub fn finish(self) -> Result<()> {
        match self.failed {
            Some(e) => Err(e),
            None if self.last == Some('\n') => Ok(()),
            None => term::print("\n"),
        }
    }

    fn print(&mut self, delta: &Delta) -> Result<()> {
        if !delta.reasoning.is_empty() {
            self.reasoned = true;
            if self.on_terminal {
                term::print(term::paint(Stream::Stdout, "2", &harmless(&delta.reasoning)))?;
            }
        }
        let Some(last) = delta.content.chars().next_back() else { return Ok(()) };
        if self.on_terminal && self.last.is_none() && self.reasoned {
            term::print("\n\n")?;
        }
        self.last = Some(last);
        if self.on_terminal { term::print(harmless(&delta.content)) } else { term::print(&delta.content) }
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
