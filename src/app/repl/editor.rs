//! Where prompts come from: a line editor on a terminal, plain lines off it. Neither writes to stdout where that is no terminal:
//! it has the answers alone.

use super::{Blocks, COMMANDS, Input};
use crate::app::input::Lines;
use crate::app::term;
use crate::base::{Error, ErrorKind, Result};
use rustyline::completion::Completer;
use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Config, Context, Helper};
use std::cell::Cell;
use std::fs;
use std::io::{self, BufReader, IsTerminal, Stdin, Write};
use std::path::{Path, PathBuf};

const PROMPT: &str = ">>> ";
const MORE: &str = "... ";
const HISTORY_LINES: usize = 1000;
/// Terminals that the line editor can do nothing with, by the names that it has for them.
const DUMB: [&str; 3] = ["dumb", "cons25", "emacs"];
/// The terminal by its own name, whatever standard input and output are.
const TERMINAL: &str = if cfg!(windows) { "CONOUT$" } else { "/dev/tty" };

type Line = rustyline::Editor<LineHelper, DefaultHistory>;

/// Gives one input after the other.
pub struct Editor {
    source: Source,
    blocks: Blocks,
    /// The line that the last input began with.
    began: String,
}

enum Source {
    Terminal {
        line: Box<Line>,
        history: Option<PathBuf>,
    },
    /// A terminal that cannot move its cursor.
    Dumb(Lines<BufReader<Stdin>>),
    // It locks standard input only while it reads: somebody else may wait for that and never get it.
    Pipe(Lines<BufReader<Stdin>>),
}

impl Editor {
    /// An editor with history where a person types, else a reader of lines.
    pub fn new() -> Result<Editor> {
        let lines = || Lines::new(BufReader::new(io::stdin()));
        let of = |source, blocks| Editor { source, blocks, began: String::new() };
        if !io::stdin().is_terminal() {
            return Ok(of(Source::Pipe(lines()), Blocks::lenient()));
        }
        let on_stdout = io::stdout().is_terminal();
        let term = std::env::var("TERM").unwrap_or_default();
        if DUMB.iter().any(|name| name.eq_ignore_ascii_case(&term)) || !(on_stdout || open_terminal().is_some()) {
            return Ok(of(Source::Dumb(lines()), Blocks::new()));
        }
        let fail = |e| Error::io("can't use the terminal", into_io(e));
        let config = Config::builder()
            .max_history_size(HISTORY_LINES)
            .map_err(fail)?
            .history_ignore_space(true)
            .auto_add_history(false)
            .bracketed_paste(true)
            // Its other behaviour opens the terminal by name: answers may go to a file.
            .behavior(if on_stdout { Behavior::Stdio } else { Behavior::PreferTerm })
            .build();
        let mut line = Line::with_config(config).map_err(fail)?;
        line.set_helper(Some(LineHelper::default()));
        let history = history_path(&|name| std::env::var_os(name).map(PathBuf::from), std::env::home_dir());
        if let Some(path) = history.as_deref().filter(|path| path.is_file()) {
            // A history that can't be read is no reason not to chat.
            if let Err(e) = line.load_history(path) {
                tracing::warn!("{}: {e}", path.display());
            }
        }
        Ok(of(Source::Terminal { line: Box::new(line), history }, Blocks::new()))
    }

    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        !matches!(self.source, Source::Pipe(_))
    }

    /// Where the last input began, for errors.
    pub fn place(&self) -> &str {
        &self.began
    }

    /// The next input; `None` at the end (Ctrl-D, or the pipe's end). A person hears of mistakes in commands and is asked again; off
    /// a terminal they are usage errors, after which the next call goes on.
    pub fn next_input(&mut self) -> Result<Option<Input>> {
        loop {
            let open = self.blocks.is_open();
            let line = self.read_line();
            if let (Source::Pipe(lines), false) = (&self.source, open) {
                self.began = lines.place();
            }
            let input = match line {
                Ok(Some(line)) => self.blocks.feed(&line),
                Ok(None) => return Ok(self.blocks.end()),
                Err(e) => Err(e),
            };
            match input {
                Ok(Some(input)) => return Ok(Some(input)),
                Ok(None) => {}
                Err(e) if e.kind() == ErrorKind::Usage && self.is_terminal() => term::note(e),
                Err(e) => return Err(e),
            }
        }
    }

    fn read_line(&mut self) -> Result<Option<String>> {
        let prompt = if self.blocks.is_open() { MORE } else { PROMPT };
        match &mut self.source {
            Source::Pipe(lines) => lines.next_line(),
            Source::Dumb(lines) => {
                // The terminal may be gone; then reading fails too.
                let _ = console().write_all(prompt.as_bytes());
                let line = lines.next_line();
                // A Ctrl-C before this line was not meant for its answer.
                term::clear_interrupt();
                line
            }
            Source::Terminal { line, history } => read_edited(line, history.as_deref(), prompt, &mut self.blocks),
        }
    }
}

/// A line from the editor. Ctrl-C drops what is typed; twice on an empty line it asks to leave: then an error, with
/// [`term::interrupted`] set.
fn read_edited(
    line: &mut Line,
    history: Option<&Path>,
    mut prompt: &str,
    blocks: &mut Blocks,
) -> Result<Option<String>> {
    let mut pressed = false;
    loop {
        match line.readline(prompt) {
            Ok(text) => {
                remember(line, history, &text);
                return Ok(Some(text));
            }
            Err(ReadlineError::Eof) => return Ok(None),
            Err(ReadlineError::Interrupted) => {
                if pressed && line.helper().is_none_or(|helper| helper.empty.get()) {
                    term::interrupt();
                    term::check_interrupt()?;
                }
                pressed = true;
                blocks.cancel();
                prompt = PROMPT;
                term::note("Ctrl-C again or Ctrl-D leaves");
            }
            // A resized window, or the like: ask again.
            Err(ReadlineError::Signal(_)) => {}
            Err(e) => return Err(Error::io("can't read from the terminal", into_io(e))),
        }
    }
}

fn open_terminal() -> Option<fs::File> {
    fs::OpenOptions::new().read(true).write(true).open(TERMINAL).ok()
}

/// Where a person sees prompts.
fn console() -> Box<dyn Write> {
    if io::stderr().is_terminal() {
        return Box::new(io::stderr());
    }
    match open_terminal() {
        Some(terminal) => Box::new(terminal),
        None => Box::new(io::stderr()),
    }
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

/// Completes the names of commands, and knows whether anything is typed.
#[derive(Default)]
struct LineHelper {
    empty: Cell<bool>,
}

impl Completer for LineHelper {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..at];
        let fits = |name: &&&str| typed.starts_with('/') && name.starts_with(typed);
        Ok((0, COMMANDS.iter().filter(fits).map(|name| format!("{name} ")).collect()))
    }
}

impl Helper for LineHelper {}
impl Highlighter for LineHelper {}
impl Validator for LineHelper {}

impl Hinter for LineHelper {
    type Hint = String;

    // Asked after every change: the only way to see what is typed when Ctrl-C drops it.
    fn hint(&self, line: &str, _: usize, _: &Context<'_>) -> Option<String> {
        self.empty.set(line.is_empty());
        None
    }
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
}
