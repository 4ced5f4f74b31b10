//! A step: what the engine computes in one run of the graph.

use super::request::{ChoiceId, Sampling};
use crate::state::{Item, PageCopy, SeqId, SlotCopy};
use std::fmt;
use std::ops::Range;

/// Where the token of an answer row comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenSource {
    /// The host knows it.
    Host(u32),
    /// The step before is drawing it, for this one of its outputs.
    Device {
        /// Index in [`Step::outputs`] of the step before.
        output: usize,
    },
}

/// A row with a token that was drawn. Rows of one sequence stand together, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerRow {
    /// Whose answer.
    pub choice: ChoiceId,
    /// Its sequence in the pool.
    pub seq: SeqId,
    /// Position in the sequence.
    pub position: usize,
    /// The token.
    pub token: TokenSource,
    pub(super) priority: i32,
}

/// Rows of a prompt that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Whose prompt; the first choice's, if there are more.
    pub choice: ChoiceId,
    /// Its sequence in the pool.
    pub seq: SeqId,
    /// Positions in the sequence.
    pub positions: Range<usize>,
    /// Where its items stand in [`Step::prompt_items`].
    pub items: Range<usize>,
    pub(super) priority: i32,
}

/// A token to draw. Several have the same row if several choices begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// For whom.
    pub choice: ChoiceId,
    /// The row whose logits it is drawn from: answer rows are counted first, then the rows of all pieces.
    pub row: usize,
    /// Number of the token in the answer, from 0: the number of the draw, for random numbers.
    pub index: usize,
    /// Where it is drawn.
    pub sampling: Sampling,
    pub(super) priority: i32,
}

/// What one run of the graph computes: answer rows first, then prompt rows.
///
/// Tables and slots of its sequences are those of [`Scheduler::pool`](super::Scheduler::pool) right after it was planned. Later
/// calls may close sequences; what was submitted stays valid, since steps are computed in order.
#[derive(Debug, Default)]
pub struct Step {
    pub(super) number: u64,
    pub(super) answers: Vec<AnswerRow>,
    pub(super) pieces: Vec<Piece>,
    pub(super) prompt_items: Vec<Item>,
    pub(super) outputs: Vec<Output>,
    pub(super) page_copies: Vec<PageCopy>,
    pub(super) slot_copies: Vec<SlotCopy>,
}

impl Step {
    /// Number of the step; later ones have greater numbers.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The answer rows.
    pub fn answers(&self) -> &[AnswerRow] {
        &self.answers
    }

    /// The pieces of prompts, whose rows follow the answer rows in this order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The items of all pieces: one for each prompt row.
    pub fn prompt_items(&self) -> &[Item] {
        &self.prompt_items
    }

    /// The tokens to draw: those of answer rows first.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Pages to copy before the rows are computed, in this order.
    pub fn page_copies(&self) -> &[PageCopy] {
        &self.page_copies
    }

    /// Slots to write before the rows are computed, in this order.
    pub fn slot_copies(&self) -> &[SlotCopy] {
        &self.slot_copies
    }

    /// All rows.
    pub fn rows(&self) -> usize {
        self.answers.len() + self.prompt_items.len()
    }

    /// Makes it empty, with its memory.
    pub(super) fn clear(&mut self) {
        self.answers.clear();
        self.pieces.clear();
        self.prompt_items.clear();
        self.outputs.clear();
        self.page_copies.clear();
        self.slot_copies.clear();
    }
}

/// Outcomes that do not belong to the oldest step in flight. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepError {
    /// Another step is the oldest in flight, or none is: it was done before, or dropped by [`Scheduler::reset`].
    ///
    /// [`Scheduler::reset`]: super::Scheduler::reset
    NotOldest {
        /// The step that was named.
        number: u64,
    },
    /// There must be an outcome for each output.
    Outcomes {
        /// Outputs of the step.
        outputs: usize,
        /// Outcomes that were given.
        given: usize,
    },
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::NotOldest { number } => write!(f, "step {number} is not the oldest in flight"),
            StepError::Outcomes { outputs, given } => {
                write!(f, "the step has {outputs} outputs, {given} outcomes came")
            }
        }
    }
}

impl std::error::Error for StepError {}
