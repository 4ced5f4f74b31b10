//! What a row of a batch is.

/// What a row of a batch is. Rounding depends on it, never on how many rows a batch has; so does the order of sums, but of a
/// prompt alone on a GPU. So what a request gets does not depend on what else is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A token of a prompt: many of one sequence follow each other, and are computed together.
    Prompt,
    /// The same of prompts that are cut into pieces, of many sequences. On GPUs the order of sums does not depend on how they are cut.
    Piece,
    /// A token that was drawn: one of each sequence.
    Answer,
}

impl Role {
    /// Whether it is a token of a prompt.
    pub fn is_prompt(self) -> bool {
        self != Role::Answer
    }
}
