//! Texts from outside, for all commands: which text is meant, read once, and made text by one rule.
//!
//! A text is `-p TEXT`, or `-f FILE`, `-` being standard input, or standard input where neither is given and no terminal is there.
//! It is UTF-8, or UTF-16 where a byte-order mark says so; the mark is dropped. What cannot be read becomes U+FFFD, with a warning
//! that says where.

mod decode;
mod lines;
mod read;

pub use lines::Lines;

use super::term;
use crate::base::{Error, Result};
use crate::text::Segment;
use clap::Args;
use decode::Encoding;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No prompt and no chat has more bytes.
pub const MAX_PROMPT: u64 = 16 << 20;
/// No text has more bytes: the tokenizer's own limit.
const MAX_TEXT: u64 = 1 << 30;
/// What standard input is called in messages.
const PLACE: &str = "standard input";
/// A pipe beside a question is read if something comes of it within this time.
const PATIENCE: Duration = Duration::from_millis(200);

/// A text as it stands, without a chat template.
#[derive(Debug, Args)]
pub struct TextArgs {
    /// The text.
    #[arg(short, long, value_name = "TEXT", env = "WGPU_LLM_PROMPT", conflicts_with = "file")]
    pub prompt: Option<OsString>,
    /// A file with the text; - for standard input, which is read too if neither is given and it is no terminal.
    #[arg(short, long, value_name = "FILE", env = "WGPU_LLM_FILE")]
    pub file: Option<PathBuf>,
    /// Take the names of special tokens in the text (<|im_start|>) for text, not for the tokens.
    #[arg(long, env = "WGPU_LLM_NO_PARSE_SPECIAL")]
    pub no_parse_special: bool,
}

impl TextArgs {
    /// The text that is meant.
    pub fn read(&self) -> Result<String> {
        text(self.prompt.as_deref(), self.file.as_deref())
    }

    /// How it is to be read: with the names of special tokens, or as plain text.
    pub fn segment<'t>(&self, text: &'t str) -> Segment<'t> {
        if self.no_parse_special { Segment::Text(text) } else { Segment::Template(text) }
    }
}

/// The text that an argument, a file or else standard input gives.
pub fn text(argument: Option<&OsStr>, file: Option<&Path>) -> Result<String> {
    match (argument, file) {
        (Some(text), _) => Ok(self::argument(text, "the prompt")),
        (None, Some(path)) => self::file(path),
        (None, None) if io::stdin().is_terminal() => {
            Err(Error::usage("there is no text").help("give one with -p, a file with -f, or pipe it in"))
        }
        (None, None) => stdin(MAX_TEXT),
    }
}

/// The text of an argument.
pub fn argument(text: &OsStr, what: &str) -> String {
    match text.to_str() {
        Some(text) => text.to_string(),
        None => told(text.as_encoded_bytes(), Encoding::Utf8, 0, what),
    }
}

/// The text of a file that flags name; `-` is standard input.
pub fn file(path: &Path) -> Result<String> {
    if path == "-" { stdin(MAX_TEXT) } else { read_file(path, MAX_TEXT) }
}

/// What the text of a file that flags name is called in messages.
pub fn place(file: Option<&Path>) -> String {
    file.filter(|path| *path != "-").map_or(PLACE.to_string(), |path| path.display().to_string())
}

/// A prompt in a file that flags name.
pub fn prompt_file(path: &Path) -> Result<String> {
    if path == "-" { stdin(MAX_PROMPT) } else { read_file(path, MAX_PROMPT) }
}

/// The text of a file of reasonable size.
pub fn small_file(path: &Path) -> Result<String> {
    read_file(path, MAX_PROMPT)
}

/// What was piped in beside a question: a file as it is, a pipe if something comes within a fifth of a second. `None` if nothing does,
/// and where standard input is something else: the program may have got it from a script that needs it itself.
pub fn beside_question() -> Result<Option<String>> {
    let patience = match read::kind_of_stdin() {
        read::Kind::File => None,
        read::Kind::Pipe => Some(PATIENCE),
        read::Kind::Other => return Ok(None),
    };
    let bytes = read::all(io::stdin(), MAX_PROMPT, patience).map_err(|e| failed(e, PLACE))?;
    if bytes.is_none() {
        term::note("standard input is left alone: nothing came of it at once (-f - waits for it)");
    }
    Ok(bytes.map(|bytes| decoded(&bytes, PLACE)))
}

fn stdin(limit: u64) -> Result<String> {
    let bytes = read::all(io::stdin(), limit, None).map_err(|e| failed(e, PLACE))?;
    Ok(decoded(&bytes.unwrap_or_default(), PLACE))
}

fn read_file(path: &Path, limit: u64) -> Result<String> {
    let place = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|e| failed(e.into(), &place))?;
    let bytes = read::all(file, limit, None).map_err(|e| failed(e, &place))?;
    Ok(decoded(&bytes.unwrap_or_default(), &place))
}

fn failed(failure: read::Failure, place: &str) -> Error {
    match failure {
        read::Failure::Io(e) => Error::io("can't read the text", e).at(place),
        read::Failure::TooLong(limit) => {
            let limit = term::bytes(limit);
            Error::usage(format!("a text of more than {limit}")).at(place).help(format!("use one of at most {limit}"))
        }
        read::Failure::Stopped(e) => e,
    }
}

/// The text of whole bytes. A mark of UTF-16 is named: few expect it.
fn decoded(bytes: &[u8], place: &str) -> String {
    let (encoding, start) = Encoding::of(bytes);
    told(bytes, encoding, start, place)
}

/// The text, with a warning where not all of it can be read.
fn told(bytes: &[u8], encoding: Encoding, start: usize, place: &str) -> String {
    let name = encoding.name();
    if encoding != Encoding::Utf8 && start > 0 {
        term::note(format_args!("{place}: {name}, by its byte-order mark"));
    }
    let (text, invalid) = encoding.decode(bytes, start);
    if let Some(invalid) = invalid {
        let more = match invalid.places {
            1 => "it is".to_string(),
            n => format!("it and {} more are", n - 1),
        };
        let (byte, offset) = (invalid.byte, invalid.offset);
        term::warn(format_args!(
            "{place}: the byte 0x{byte:02x} at offset {offset} is not {name}; {more} read as U+FFFD"
        ));
    }
    text
}
