//! Floor 5: the state of many sequences: which cells and slots each has, and what sequences share. Books only: no tensor, no
//! device, no thread.
//!
//! - A **cell** is one position's keys and values in one layer; a **page** is 64 cells that are handed out together. Layers
//!   with one window form a **group** with pages of its own, numbered alike in all its layers.
//! - A **sequence** has items (tokens, rows of media) and for each group a **table**: the pages of its cells, in order. A **slot**
//!   is the state of recurrent layers, one per sequence.
//! - The **prefix tree** keeps what was computed: a sequence that begins with the same items shares their pages, to the exact item.
//!   Pages are counted by holders; a sequence that writes into a page that others read gets a copy.
//! - A **snapshot** keeps what layers that forget need to continue from a place in the tree: the last cells of windows, a copy
//!   of a slot.
//!
//! What always holds ([`Pool::check`] compares the books):
//! - A page is free, or sequences and nodes hold it; each is counted. Page 0 and slot 0 are handed out to nobody.
//! - At most one sequence writes a page: the one that took it, or the only holder that is left. Others read only cells that were
//!   committed when they began to share the page, and the writer never writes those again.
//! - A failed call leaves a sequence as it was, but for pages wholly behind a window, which may be free now.
//! - What a sequence reads does not change while it runs, whatever others share, publish or evict.
//!
//! The way of a request:
//!
//! ```
//! use wgpu_llm::low_level::state::{GroupSpec, Item, Pool, PoolSpec};
//! # fn main() -> Result<(), wgpu_llm::low_level::state::Full> {
//! let groups = vec![GroupSpec { window: None, pages: 100 }];
//! let mut pool = Pool::new(&PoolSpec { groups, slots: 0, snapshots: 32 });
//! let prompt: Vec<Item> = (0..200).map(Item::Token).collect();
//!
//! let seq = pool.open(Some(0), 1000)?;
//! let cached = pool.adopt(seq, &prompt); // 0 now; 199 if somebody comes with the same prompt later
//! pool.reserve(seq, prompt.len() - cached)?; // if the pool is full: close a sequence, and try again
//! pool.drain_page_copies().for_each(drop); // the backend copies pages, then a step computes the prompt's rows
//! pool.commit(seq, &prompt[cached..]);
//! pool.snapshot(seq)?; // the prompt may be found from now on
//!
//! pool.reserve(seq, 1)?;
//! let cell = (pool.table(seq, 0)[pool.len(seq) / 64] as usize - 1) * 64 + pool.len(seq) % 64; // the step's row writes here
//! pool.commit(seq, &[Item::Token(7)]);
//! pool.close(seq);
//! # assert_eq!(pool.cached(0, &prompt), 199);
//! # assert_eq!(cell % 64, 200 % 64);
//! # Ok(())
//! # }
//! ```

mod arena;
mod check;
mod error;
mod group;
mod item;
mod lru;
mod pages;
mod pool;
mod resume;
mod sequence;
mod share;
mod slots;
mod snapshot;
mod tree;
mod write;

#[cfg(test)]
mod tests;

pub use error::{Full, Resource};
pub use group::GroupSpec;
pub use item::Item;
pub use pages::{NULL_PAGE, PAGE_CELLS};
pub use pool::{PageCopy, Pool, PoolSpec, SeqId, Usage};
pub use resume::Point;
pub use slots::{NULL_SLOT, SlotCopy};
