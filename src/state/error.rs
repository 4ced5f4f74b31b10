//! What a pool may be short of.

use std::fmt;

/// What there are too few of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Pages of a group.
    Pages {
        /// Index of the group.
        group: usize,
    },
    /// Slots.
    Slots,
}

/// The pool has not enough left, even without the prefixes that no sequence uses. Nothing was changed, but that pages wholly behind a
/// window may be free now; the caller may close a sequence and try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// What is short.
    pub resource: Resource,
    /// How many pages or slots are needed.
    pub needed: usize,
    /// How many there are, those that can be evicted among them.
    pub free: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Full { resource, needed, free } = self;
        match resource {
            Resource::Pages { group } => write!(f, "{needed} pages of layer group {group} are needed, {free} are free"),
            Resource::Slots => write!(f, "{needed} state slots are needed, {free} are free"),
        }
    }
}

impl std::error::Error for Full {}
