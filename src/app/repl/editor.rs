//! Where prompts come from: a line editor on a terminal, plain lines off it.

use super::{Blocks, COMMANDS, Input};
use crate::app::term;
use crate::base::{Error, Result};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Helper};
use std::fs;
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};

const PROMPT: &str = ">>> ";
const MORE: &str = "... ";
const HISTORY_LINES: usize = 1000;
/// A prompt line from a pipe is never longer: bytes without a newline must not fill the memory.
const MAX_LINE: u64 = 16 << 20;

type Line = rustyline::Editor<Completion, DefaultHistory>;

/// Gives one input after the other.
pub struct Editor {
    source: Source,
    blocks: Blocks,
}

enum Source {
    Terminal { line: Box<Line>, history: Option<PathBuf> },
    Pipe,
}

impl Editor {
    /// An editor with history where a person types, else a reader of lines.
    pub fn new() -> Result<Editor> {
        if !io::stdin().is_terminal() {
            return Ok(Editor { source: Source::Pipe, blocks: Blocks::lenient() });
        }
        let fail = |e| Error::io("can't use the terminal", into_io(e));
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)
            .map_err(fail)?
            .history_ignore_space(true)
            .auto_add_history(false)
            .bracketed_paste(true)
            .build();
        let mut line = Line::with_config(config).map_err(fail)?;
        line.set_helper(Some(Completion));
        let history = history_path(&|name| std::env::var_os(name).map(PathBuf::from), std::env::home_dir());
        if let Some(path) = history.as_deref().filter(|path| path.is_file()) {
            // A history that can't be read is no reason not to chat.
            if let Err(e) = line.load_history(path) {
                tracing::warn!("{}: {e}", path.display());
            }
        }
        Ok(Editor { source: Source::Terminal { line: Box::new(line), history }, blocks: Blocks::new() })
    }

    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        matches!(self.source, Source::Terminal { .. })
    }

    /// The next input; `None` at the end (Ctrl-D, or the pipe's end). Mistakes in commands are told, and asked again.
    pub fn next_input(&mut self) -> Result<Option<Input>> {
        loop {
            let Some(line) = self.read_line()? else {
                return Ok(self.blocks.end());
            };
            match self.blocks.feed(&line) {
                Ok(Some(input)) => return Ok(Some(input)),
                Ok(None) => {}
                Err(e) => term::note(e),
            }
        }
    }

    /// Ctrl-C on an empty line asks to leave: then an error, with [`term::interrupted`] set.
    fn read_line(&mut self) -> Result<Option<String>> {
        let Source::Terminal { line, history } = &mut self.source else {
            return read_pipe(&mut io::stdin().lock());
        };
        let mut pressed = false;
        loop {
            let prompt = if self.blocks.is_open() { MORE } else { PROMPT };
            match line.readline(prompt) {
                Ok(text) => {
                    remember(line, history.as_deref(), &text);
                    return Ok(Some(text));
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(ReadlineError::Interrupted) if pressed => {
                    term::interrupt();
                    term::check_interrupt()?;
                }
                Err(ReadlineError::Interrupted) => {
                    pressed = true;
                    self.blocks.cancel();
                    term::note("Ctrl-C again or Ctrl-D leaves");
                }
                // A resized window, or the like: ask again.
                Err(ReadlineError::Signal(_)) => {}
                Err(e) => return Err(Error::io("can't read from the terminal", into_io(e))),
            }
        }
    }
}

/// A line of UTF-8; bytes that are none become U+FFFD.
fn read_pipe(input: &mut dyn BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = io::Read::take(&mut *input, MAX_LINE).read_until(b'\n', &mut bytes);
    let read = read.map_err(|e| Error::io("can't read prompts", e).at("stdin"))?;
    if read as u64 == MAX_LINE && !bytes.ends_with(b"\n") {
        return Err(Error::usage("a line of more than 16 MiB")
            .at("stdin")
            .help("give prompts of reasonable length, one per line"));
    }
    Ok((read > 0).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

fn remember(line: &mut Line, history: Option<&Path>, text: &str) {
    let added = line.add_history_entry(text).unwrap_or(false);
    let Some(path) = history.filter(|_| added) else { return };
    let saved = path.parent().map_or(Ok(()), fs::create_dir_all).map_err(ReadlineError::from);
    // The file is readable by its owner alone: the library sees to that.
    if let Err(e) = saved.and_then(|()| line.append_history(path)) {
        tracing::warn!("{}: {e}", path.display());
    }
}

fn into_io(e: ReadlineError) -> io::Error {
    match e {
        ReadlineError::Io(e) => e,
        other => io::Error::other(other),
    }
}

/// Where the history of prompts lies: the system's folder for the state of programs.
fn history_path(var: &dyn Fn(&str) -> Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let state = var("XDG_STATE_HOME").filter(|p| p.is_absolute()).or_else(|| {
        if cfg!(windows) {
            var("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            home.map(|h| h.join("Library/Application Support"))
        } else {
            home.map(|h| h.join(".local/state"))
        }
    })?;
    Some(state.join("wgpu-llm").join("history"))
}

/// Completes the names of commands.
struct Completion;

impl Completer for Completion {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..at];
        let fits = |name: &&&str| typed.starts_with('/') && name.starts_with(typed);
        Ok((0, COMMANDS.iter().filter(fits).map(|name| format!("{name} ")).collect()))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_lies_where_the_system_keeps_state() {
        let home = Some(PathBuf::from("/home/ann"));
        let set = |name: &str| (name == "XDG_STATE_HOME").then(|| PathBuf::from("/state"));
        let relative = |name: &str| (name == "XDG_STATE_HOME").then(|| PathBuf::from("state"));
        assert_eq!(history_path(&set, home.clone()), Some("/state/wgpu-llm/history".into()));
        assert_ne!(history_path(&relative, home.clone()), Some("state/wgpu-llm/history".into()));
        if cfg!(target_os = "linux") {
            assert_eq!(history_path(&|_| None, home), Some("/home/ann/.local/state/wgpu-llm/history".into()));
        }
    }

    #[test]
    fn lines_from_a_pipe_are_text_whatever_they_are() {
        let mut input: &[u8] = b"one\ntw\xffo";
        assert_eq!(read_pipe(&mut input).unwrap().as_deref(), Some("one\n"));
        assert_eq!(read_pipe(&mut input).unwrap().as_deref(), Some("tw\u{fffd}o"));
        assert_eq!(read_pipe(&mut input).unwrap(), None);
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        assert!(read_pipe(&mut endless).unwrap_err().to_string().contains("16 MiB"));
    }
}
