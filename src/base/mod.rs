//! Floor 0: what every room shares: element types, shapes, tensor metadata, views, roles of rows, threads, the one error type, checksums, files that are replaced whole.

mod checksum;
mod dtype;
mod error;
mod meta;
mod replace;
mod rng;
mod role;
mod threads;
mod words;

pub use checksum::Checksum;
pub use dtype::DType;
pub use error::{Error, ErrorKind, Result};
pub use meta::{Layout, MAX_DIMS, Meta, Shape, View, ViewMut};
pub use replace::{remove_unfinished, replace, replace_private, replace_with};
pub use rng::{RngDomain, SeededRng, fresh_seed, uniform};
pub use role::Role;
pub use threads::{Serial, Threads, for_chunks, for_each, for_ranges, share_out_alike};
pub use words::human;

/// Cells of a page of a cache. A multiple of the tiles that attention reads (8, 16, 32), and a sequence wastes at most 63.
pub const PAGE_CELLS: usize = 64;
