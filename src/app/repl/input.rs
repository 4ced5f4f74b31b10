//! Lines to prompts: single lines, and blocks between `"""` and `"""`.

use super::ReplCommand;
use crate::base::Result;

const FENCE: &str = "\"\"\"";
/// What people write to leave, where they are not told how.
const BYE: [&str; 3] = ["exit", "quit", "bye"];

/// One thing that was typed.
#[derive(Debug, PartialEq)]
pub enum Input {
    /// Text for the model.
    Prompt(String),
    /// A slash command.
    Command(ReplCommand),
}

/// Gathers lines until they make a whole input.
#[derive(Debug, Default)]
pub struct Blocks {
    open: Option<String>,
    lenient: bool,
}

impl Blocks {
    /// For a terminal: a line that begins with a slash is a command, or an error; one that is only exit, quit or bye leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// For text from a pipe: a slash line that is no known command is a prompt like any other.
    pub fn lenient() -> Self {
        Blocks { lenient: true, ..Self::default() }
    }

    /// Whether a block waits for its end.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Takes the next line, without its end. `None` while nothing is whole, and for empty lines.
    /// Fails on a slash line that is no command, unless lenient.
    pub fn feed(&mut self, line: &str) -> Result<Option<Input>> {
        let line = line.trim_end_matches(['\r', '\n']);
        if let Some(mut text) = self.open.take() {
            if let Some(last) = line.trim_end().strip_suffix(FENCE) {
                text.push_str(last);
                return Ok(prompt(&text));
            }
            text.push_str(line);
            text.push('\n');
            self.open = Some(text);
            return Ok(None);
        }
        if let Some(first) = line.trim_start().strip_prefix(FENCE) {
            if let Some(whole) = first.trim_end().strip_suffix(FENCE) {
                return Ok(prompt(whole));
            }
            let first = if first.trim().is_empty() { String::new() } else { format!("{first}\n") };
            self.open = Some(first);
            return Ok(None);
        }
        if line.starts_with('/') && (!self.lenient || ReplCommand::is_known(line)) {
            // Pasted text of several lines is a prompt, even if it begins with a path.
            if !line.contains('\n') {
                return ReplCommand::parse(line).map(|command| Some(Input::Command(command)));
            }
        }
        if !self.lenient && BYE.contains(&line.trim_end()) {
            return Ok(Some(Input::Command(ReplCommand::Exit)));
        }
        Ok(prompt(line))
    }

    /// The end of the input: an open block is a prompt as it stands.
    pub fn end(&mut self) -> Option<Input> {
        self.open.take().and_then(|text| prompt(&text))
    }

    /// Forgets an open block.
    pub fn cancel(&mut self) {
        self.open = None;
    }
}

fn prompt(text: &str) -> Option<Input> {
    let text = text.trim();
    (!text.is_empty()).then(|| Input::Prompt(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed_all(mut blocks: Blocks, lines: &[&str]) -> Vec<Input> {
        let mut inputs: Vec<Input> = lines.iter().filter_map(|line| blocks.feed(line).unwrap()).collect();
        inputs.extend(blocks.end());
        inputs
    }

    fn prompts(lines: &[&str]) -> Vec<String> {
        let text = |input| match input {
            Input::Prompt(text) => text,
            Input::Command(command) => format!("{command:?}"),
        };
        feed_all(Blocks::new(), lines).into_iter().map(text).collect()
    }

    #[test]
    fn each_line_is_a_prompt_and_a_block_is_one_too() {
        assert_eq!(prompts(&["one", "", "  ", "two\r\n"]), ["one", "two"]);
        assert_eq!(prompts(&["\"\"\"", "a", "", "/b", "\"\"\"", "c"]), ["a\n\n/b", "c"]);
        assert_eq!(prompts(&["\"\"\"a", "b\"\"\""]), ["a\nb"]);
        assert_eq!(prompts(&["\"\"\"a\"\"\""]), ["a"]);
        assert_eq!(prompts(&["\"\"\"", "\"\"\""]), [""; 0]);
        assert_eq!(prompts(&["\"\"\"", "never closed"]), ["never closed"]);
    }

    #[test]
    fn slash_lines_are_commands_unless_a_space_or_a_block_protects_them() {
        assert_eq!(prompts(&["/clear", " /clear"]), ["Clear", "/clear"]);
        assert!(Blocks::new().feed("/etc/passwd").is_err());
        assert_eq!(prompts(&["/etc/passwd\nis a file"]), ["/etc/passwd\nis a file"]);
        let piped = feed_all(Blocks::lenient(), &["/etc/passwd", "/clear"]);
        assert_eq!(piped, [Input::Prompt("/etc/passwd".into()), Input::Command(ReplCommand::Clear)]);
    }

    #[test]
    fn on_a_terminal_a_line_that_says_goodbye_leaves() {
        assert_eq!(prompts(&["exit", "quit ", "bye\n"]), ["Exit", "Exit", "Exit"]);
        assert_eq!(
            prompts(&["exit now", " exit", "Bye", "\"\"\"", "quit", "\"\"\""]),
            ["exit now", "exit", "Bye", "quit"]
        );
        let piped = feed_all(Blocks::lenient(), &["exit", "bye"]);
        assert_eq!(piped, [Input::Prompt("exit".into()), Input::Prompt("bye".into())]);
    }

    #[test]
    fn a_cancelled_block_is_forgotten() {
        let mut blocks = Blocks::new();
        blocks.feed("\"\"\"").unwrap();
        assert!(blocks.is_open());
        blocks.cancel();
        assert_eq!(blocks.feed("x").unwrap(), Some(Input::Prompt("x".into())));
    }
}
