//! The last tokens of a sequence, newest first.

use std::collections::VecDeque;

/// The last `limit` tokens.
#[derive(Debug)]
pub(super) struct History {
    tokens: VecDeque<u32>,
    limit: usize,
}

impl History {
    /// Most tokens to make room for before there are any: a limit may come from a file that lies.
    const RESERVE: usize = 8192;

    /// Remembers up to `limit` tokens.
    pub fn new(limit: usize) -> Self {
        History { tokens: VecDeque::with_capacity(limit.min(Self::RESERVE)), limit }
    }

    /// Adds the newest token and forgets the oldest beyond the limit.
    pub fn push(&mut self, token: u32) {
        if self.tokens.len() == self.limit {
            self.tokens.pop_front();
        }
        if self.limit > 0 {
            self.tokens.push_back(token);
        }
    }

    /// The token `back` places before the newest.
    pub fn back(&self, back: usize) -> u32 {
        self.tokens[self.tokens.len() - 1 - back]
    }

    /// Tokens remembered.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// All of them, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.tokens.iter().copied()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.tokens.clear();
    }
}
