//! Floor 7: what runs where: placements, what they take and how fast they are estimated to be, and the fastest that fits; what devices can
//! do, and what a step asks of them.

pub mod budget;
pub mod fit;
mod memory;
mod options;
mod placement;
pub mod predict;
pub mod rates;
pub mod roofline;
mod work;

pub use memory::{CPU, GPU, Memory};
pub use options::{Options, PIECE_ROWS};
pub use placement::{Block, Override, Placement, Rules};
pub use work::{Work, grows};
