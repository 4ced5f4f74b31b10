//! What is worth saying while a model is opened: notices, and the listener that gets them.

use crate::base::Result;
use std::sync::Arc;

/// One notice.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// Takes a while, or explains a choice.
    Note(String),
    /// May not be what was wanted.
    Warning(String),
    /// So many bytes of the weights are ready for the CPU; the first notice of a session has none, the last has all.
    Weights {
        /// Bytes that are ready.
        done: u64,
        /// All bytes.
        total: u64,
    },
}

/// Gets each notice as it comes. An error ends the loading of weights.
#[derive(Clone)]
pub struct Listener(Arc<dyn Fn(Notice) -> Result<()> + Send + Sync>);

impl Listener {
    /// Hands notices to `hear`.
    pub fn new(hear: impl Fn(Notice) -> Result<()> + Send + Sync + 'static) -> Listener {
        Listener(Arc::new(hear))
    }

    pub(super) fn note(&self, text: String) -> Result<()> {
        (self.0)(Notice::Note(text))
    }

    pub(super) fn warn(&self, text: String) -> Result<()> {
        (self.0)(Notice::Warning(text))
    }

    pub(super) fn weights(&self, done: u64, total: u64) -> Result<()> {
        (self.0)(Notice::Weights { done, total })
    }
}

impl Default for Listener {
    /// Logs what is said, by the `tracing` crate.
    fn default() -> Self {
        Listener::new(|notice| {
            match notice {
                Notice::Note(text) => tracing::info!("{text}"),
                Notice::Warning(text) => tracing::warn!("{text}"),
                Notice::Weights { .. } => {}
            }
            Ok(())
        })
    }
}
