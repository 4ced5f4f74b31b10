//! What comes of a step, and what the scheduler reports.

use super::request::ChoiceId;

/// What came of an output of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// This token was drawn, and the answer goes on.
    Token(u32),
    /// This token was drawn, and the answer ends with it: a stop string is complete, or the caller has enough.
    Last(u32),
    /// A token was drawn that ends the answer and does not belong to it.
    End,
    /// The row's logits are of no use. The choice ends, and nothing that this step computed of it is cached.
    Failed,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model drew an end-of-generation token, or a stop string is complete ([`Outcome::End`], [`Outcome::Last`]).
    Stop,
    /// It has as many tokens as the request allows.
    Limit,
    /// It is as long as a sequence may become, or alone too long for the pool.
    Context,
    /// The caller cancelled it, perhaps before the first token.
    Cancelled,
    /// The request's deadline passed.
    Deadline,
    /// The computation failed, or the pool has no slot for any sequence.
    Failed,
}

impl FinishReason {
    /// As programs read it: `end`, `length` or `interrupted`.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "end",
            FinishReason::Limit | FinishReason::Context => "length",
            FinishReason::Cancelled | FinishReason::Deadline | FinishReason::Failed => "interrupted",
        }
    }
}

/// Something that happened, in the order in which it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A sequence runs from now on, for the first time or after it was preempted.
    Admitted {
        /// Which one; if the request has more choices and none is drawn yet, the first stands for all.
        choice: ChoiceId,
        /// Items that need not be computed.
        cached: usize,
    },
    /// A running sequence waited for another that computed the same beginning, and shares that now.
    Shared {
        /// Which one, as in [`Event::Admitted`].
        choice: ChoiceId,
        /// Items that need not be computed, in all.
        cached: usize,
    },
    /// A token of an answer.
    Token {
        /// Whose answer.
        choice: ChoiceId,
        /// Number of the token in the answer, from 0.
        index: usize,
        /// The token.
        token: u32,
    },
    /// A sequence gave its pages to more urgent ones, or lost them with the device, and waits again.
    Preempted {
        /// Which one.
        choice: ChoiceId,
    },
    /// A choice ended; nothing else follows for it.
    Finished {
        /// Which one.
        choice: ChoiceId,
        /// Why.
        reason: FinishReason,
        /// Tokens of its answer.
        tokens: usize,
    },
}
