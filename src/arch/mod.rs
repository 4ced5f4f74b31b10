//! Floor 5: architectures. A row of the table and the shapes in a model file make a [`Spec`]; [`build`] turns it into a graph.
//!
//! The builder walks the layers every architecture has: embedding, blocks of a mixer and a feed-forward network, head. Each mixer is
//! one file (`attention.rs` so far), and so are dense and expert networks. A new ordinary architecture is one row in `table.rs`.

mod attention;
mod builder;
mod census;
mod experts;
mod factors;
mod ffn;
mod keys;
mod known;
mod rope;
pub mod row;
mod spec;
mod table;

pub use builder::{Batch, Cells, MOST_ANCHORS, build};
pub use row::Row;
pub use spec::{Layer, Spec, supported};
