//! What stands at one position of a sequence.

/// One position of a sequence, as prefixes are compared: two sequences share the cells of their longest common run of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Item {
    /// A token of the vocabulary, by id.
    Token(u32),
    /// One row of an image's or a sound's embeddings.
    Media {
        /// Hash of the encoded medium and of what encoded it.
        hash: u64,
        /// Row within the medium, from 0.
        row: u32,
    },
}
