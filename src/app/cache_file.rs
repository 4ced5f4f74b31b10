//! `--cache-file`: what a session has computed is kept from run to run.

use super::term;
use crate::base::{Error, ErrorKind, Result};
use crate::model::Model;
use crate::ops::CacheTypes;
use crate::run::{SavedCache, Session};
use crate::text::Message;
use std::path::{Path, PathBuf};

/// A file with a session's cache.
pub struct CacheFile {
    path: PathBuf,
    saved: Option<SavedCache>,
}

impl CacheFile {
    /// Looks at the file, before anything is loaded. One that is damaged counts as none, with a warning; what is no saved cache is an error.
    pub fn open(path: &Path) -> Result<CacheFile> {
        let saved = or_none(SavedCache::open(path))?.flatten();
        Ok(CacheFile { path: path.to_owned(), saved })
    }

    /// An error if its cells are of another model or of other types.
    pub fn check(&self, model: &Model, types: CacheTypes) -> Result<()> {
        self.saved.as_ref().map_or(Ok(()), |saved| saved.check(model, types))
    }

    /// Has `session` begin with what the file has, if there is one.
    pub fn load(&mut self, session: &mut Session) -> Result<()> {
        let Some(saved) = self.saved.take() else { return Ok(()) };
        let (tokens, path) = (saved.tokens().len(), self.path.display());
        if or_none(session.load_cache(saved))?.is_some() {
            term::note(format_args!("cache: {} from {path}", count(tokens)));
        }
        Ok(())
    }

    /// An error if the file holds a conversation, which would be lost.
    pub fn refuse_conversation(&self) -> Result<()> {
        match self.saved.as_ref().map_or(0, |saved| saved.messages().len()) {
            0 => Ok(()),
            n => {
                let what = format!("the saved cache holds a conversation of {n} messages, which would be lost");
                Err(Error::usage(what).at(self.path.display()).help("name another file"))
            }
        }
    }

    /// Writes the file anew when the work is done. If it was refused, or failed so that nothing is known of the cells, the file stays as it is.
    pub fn finish<T>(self, session: &mut Session, messages: &[Message], done: Result<T>) -> Result<T> {
        let stays = |e: &Error| {
            let refused = matches!(e.kind(), ErrorKind::Usage | ErrorKind::Unsupported | ErrorKind::Format);
            refused || matches!(e.kind(), ErrorKind::Numeric | ErrorKind::DeviceLost | ErrorKind::OutOfMemory)
        };
        if session.cached_tokens().is_empty() || done.as_ref().is_err_and(stays) {
            return done;
        }
        match (done, save(session, &self.path, messages)) {
            (Ok(done), saved) => saved.map(|()| done),
            (Err(e), saved) => {
                saved.unwrap_or_else(term::warn);
                Err(e)
            }
        }
    }
}

/// Saves the cache of `session`, saying before how large it is.
pub fn save(session: &mut Session, path: &Path, messages: &[Message]) -> Result<()> {
    let mut begin = |bytes| term::note(format_args!("cache: writing {} to {}", term::bytes(bytes), path.display()));
    session.save_cache(path, messages, &mut begin)
}

/// So many tokens, in words.
pub fn count(tokens: usize) -> String {
    format!("{tokens} token{}", if tokens == 1 { "" } else { "s" })
}

/// `None`, with a warning, if a saved cache is damaged: it is computed anew.
fn or_none<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if e.kind() == ErrorKind::Format => {
            term::warn(format_args!("{}; everything is computed anew", e.without_help()));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
