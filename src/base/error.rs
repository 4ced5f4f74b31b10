//! The one error type: what went wrong, where, and what to do about it.

use std::fmt;

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is, for programs; people read the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused a read, write or map.
    Io,
    /// Bytes from outside (a file, a vocabulary, a template) break the rules of their format.
    Format,
    /// Well formed, but nothing here can run it.
    Unsupported,
    /// The caller asked for something that cannot be: a flag, a name, a range.
    Usage,
    /// No device of the wanted kind.
    NoDevice,
    /// The device went away in the middle of the work.
    DeviceLost,
    /// Needs more of a device's memory than there is.
    OutOfMemory,
    /// Needs more of the system's memory than there is.
    OutOfSystemMemory,
    /// A download or its check failed.
    Network,
    /// The computation gave no finite answer.
    Numeric,
}

/// An error a person can act on. Built as `Error::format("…").at("…").help("…")`.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    at: Option<String>,
    help: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` saying `what` happened, in one clause without a full stop.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Error { kind, what: what.into(), at: None, help: None, source: None }
    }

    /// Bytes from outside break the rules of their format.
    pub fn format(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Format, what)
    }

    /// Well formed, but not supported.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, what)
    }

    /// The caller asked for something that cannot be.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// The operating system's error, with what was being done.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::new(ErrorKind::Io, what).because(source)
    }

    /// Adds where: a file, a tensor, a key, an offset. An earlier place is kept, as the inner one.
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.at = Some(match self.at {
            Some(inner) => format!("{place}, {inner}"),
            None => place.to_string(),
        });
        self
    }

    /// Adds what the reader can do about it.
    pub fn help(mut self, advice: impl Into<String>) -> Self {
        self.help = Some(advice.into());
        self
    }

    /// The same without advice: for when it was followed.
    pub fn without_help(mut self) -> Self {
        self.help = None;
        self
    }

    /// Adds the underlying cause.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What happened, without where and what to do.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.what)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_what_and_what_to_do() {
        let e = Error::format("row of 33 values is no multiple of the block of 32")
            .at("tensor blk.0.attn_q.weight")
            .at("model.gguf")
            .help("download the file again");
        assert_eq!(
            e.to_string(),
            "model.gguf, tensor blk.0.attn_q.weight: row of 33 values is no multiple of the block of 32; download the file again"
        );
    }
}
