//! Answers as lines, and errors in their place, printed in order.

use crate::app::complete::several::Completed;
use crate::app::term;
use crate::base::Result;
use crate::run::schedule::FinishReason;
use indicatif::ProgressBar;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;

/// What a line begins with that stands for a prompt without an answer.
const ERROR: &str = "error: ";

/// An answer as a line of text. Quotes show what has several lines or would be taken for something else.
pub fn plain(text: &str) -> String {
    let quoted = text.contains(['\n', '\r']) || text.starts_with('"') || text.starts_with(ERROR);
    if quoted { Json::from(text).to_string() } else { text.to_owned() }
}

/// An answer as a line of JSON.
pub fn record(index: usize, answer: &Completed) -> Json {
    json!({
        "index": index, "text": answer.content, "tokens": answer.tokens, "prompt_tokens": answer.prompt,
        "seed": answer.seed, "stop": answer.finish.name(), "truncated": answer.finish == FinishReason::Context,
    })
}

/// The line of a prompt without an answer.
pub fn failure(json: bool, index: usize, message: &str, more: Json) -> String {
    if !json {
        return format!("{ERROR}{message}");
    }
    let mut error = json!({"message": message});
    if let (Some(error), Json::Object(more)) = (error.as_object_mut(), more) {
        error.extend(more);
    }
    json!({"index": index, "error": error}).to_string()
}

/// Prints lines in order, whatever the order in which they come.
pub struct Printer {
    json: bool,
    /// Shows how many prompts have ended.
    pub bar: ProgressBar,
    /// Prompts that have ended.
    ended: u64,
    /// Lines that are printed.
    printed: usize,
    /// Those that follow, as far as they are known.
    ready: VecDeque<Option<String>>,
}

impl Printer {
    /// Nothing is printed yet. `json` says how errors are written.
    pub fn new(json: bool, bar: ProgressBar) -> Printer {
        Printer { json, bar, ended: 0, printed: 0, ready: VecDeque::new() }
    }

    /// Takes the line of prompt `index`, and prints all that are due.
    pub fn add(&mut self, index: usize, line: String) -> Result<()> {
        let at = index - self.printed;
        self.ready.resize(self.ready.len().max(at + 1), None);
        self.ready[at] = Some(line);
        self.ended += 1;
        self.bar.set_position(self.ended);
        while let Some(Some(line)) = self.ready.front() {
            // A bar would be drawn over it.
            self.bar.suspend(|| term::print(format_args!("{line}\n")))?;
            self.ready.pop_front();
            self.printed += 1;
        }
        Ok(())
    }

    /// Prints what waits for others that never came; these get a line that says so.
    pub fn print_rest(&mut self) -> Result<()> {
        while let Some(line) = self.ready.pop_front() {
            let line = line.unwrap_or_else(|| failure(self.json, self.printed, "stopped before its end", json!({})));
            term::print(format_args!("{line}\n"))?;
            self.printed += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_and_no_error_is_taken_for_one() {
        for (text, line) in [
            (" as it is \"", " as it is \""),
            ("", ""),
            ("a\nb", r#""a\nb""#),
            ("a\rb", r#""a\rb""#),
            ("\"a\"", r#""\"a\"""#),
            ("error: a", r#""error: a""#),
        ] {
            assert_eq!(plain(text), line);
        }
        assert_eq!(failure(false, 3, "no", json!({"n": 1})), "error: no");
        assert_eq!(failure(true, 3, "no", json!({"n": 1})), r#"{"index":3,"error":{"message":"no","n":1}}"#);
    }
}
