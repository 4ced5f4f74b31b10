//! What goes wrong inside a template, before it becomes the crate's error: its sort, its message, its line.

use crate::base::{Error, ErrorKind};
use std::fmt;

/// The sort of failure; names follow Python's exceptions, which the templates' authors know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The template cannot be parsed.
    Syntax,
    /// The template itself refused the messages: `raise_exception('…')`.
    Raised,
    /// A name or attribute that is not there was used.
    Undefined,
    /// An operation on values of the wrong type.
    Type,
    /// A value out of range: an index, a number, a format string.
    Value,
    /// A cap on work, memory, depth or size was reached.
    Limit,
}

/// A failure inside a template.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: FaultKind,
    pub what: String,
    /// Line of the template, from 1; 0 while not known.
    pub line: u32,
}

pub type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub fn new(kind: FaultKind, what: impl Into<String>) -> Fault {
        Fault { kind, what: what.into(), line: 0 }
    }

    pub fn ty(what: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Type, what)
    }

    pub fn value(what: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Value, what)
    }

    pub fn limit(what: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Limit, what)
    }

    pub fn undefined(what: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Undefined, what)
    }

    pub fn syntax(what: impl Into<String>, line: u32) -> Fault {
        Fault { kind: FaultKind::Syntax, what: what.into(), line }
    }

    /// Adds the line unless an inner one is known.
    pub fn on(mut self, line: u32) -> Fault {
        if self.line == 0 {
            self.line = line;
        }
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let (kind, what, help) = match fault.kind {
            FaultKind::Raised => {
                (ErrorKind::Usage, fault.what, "the model's template refuses these messages; change the conversation")
            }
            FaultKind::Syntax => (ErrorKind::Format, fault.what, ANOTHER),
            FaultKind::Limit => (
                ErrorKind::Format,
                fault.what,
                "shorten the conversation, or name another template with --chat-template",
            ),
            FaultKind::Undefined | FaultKind::Type | FaultKind::Value => (ErrorKind::Format, fault.what, ANOTHER),
        };
        let place = if fault.line > 0 { format!("chat template, line {}", fault.line) } else { "chat template".into() };
        Error::new(kind, what).at(place).help(help)
    }
}

const ANOTHER: &str = "the model's template cannot render this; name another one with --chat-template";
