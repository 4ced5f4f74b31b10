//! The books of a session's one sequence: its tokens, and where their cells lie.

use super::Engine;
use crate::arch::{Cells, MOST_ANCHORS, Spec};
use crate::base::{Error, ErrorKind, Result};
use crate::state::{GroupSpec, Item, Point, Pool, PoolSpec, SeqId};

/// What a pool over these caches of a model is. Pages count from 1 there.
pub(super) fn pool_spec(spec: &Spec, cells: &Cells) -> PoolSpec {
    let group = |group: usize| GroupSpec {
        window: if group == 0 { None } else { spec.window() },
        pages: cells.pages_of(group) + 1,
    };
    PoolSpec { groups: (0..cells.groups()).map(group).collect(), slots: 0, snapshots: MOST_ANCHORS }
}

/// The pages of a cache that a table of the pool names. The pool's page 0 stands for pages that are gone, and no cell is read there: caches
/// have no such page.
pub(super) fn cache_pages(table: &[u32]) -> impl Iterator<Item = u32> {
    table.iter().map(|page| page.saturating_sub(1))
}

/// One sequence in a pool of its own.
pub(super) struct Books {
    spec: PoolSpec,
    pool: Pool,
    seq: SeqId,
    /// The tokens whose keys and values lie in the cache.
    tokens: Vec<u32>,
}

impl Books {
    pub fn new(spec: PoolSpec) -> Result<Books> {
        let mut pool = Pool::new(&spec);
        let seq = pool.open(Some(0), 0).map_err(full)?;
        Ok(Books { spec, pool, seq, tokens: Vec::new() })
    }

    /// The tokens whose keys and values lie in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Makes `n` more cells writable, and tells the engine where the sequence's cells lie.
    pub fn reserve(&mut self, engine: &mut Engine, n: usize) -> Result<()> {
        if self.pool.reserve(self.seq, n).is_err() {
            // Anchors go first.
            self.pool.forget_prefixes();
            self.pool.reserve(self.seq, n).map_err(full)?;
        }
        let copies: Vec<_> = self.pool.drain_page_copies().collect();
        engine.copy_pages(&copies)?;
        engine.set_tables((0..self.spec.groups.len()).map(|group| self.pool.table(self.seq, group)));
        Ok(())
    }

    /// Adds tokens that were computed in reserved cells.
    pub fn commit(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        for token in tokens {
            self.pool.commit(self.seq, &[Item::Token(*token)]);
        }
    }

    /// Keeps what layers with a window need to continue from here.
    pub fn anchor(&mut self) {
        if self.pool.needs_snapshots() {
            // Nothing is kept if there is no room.
            let _ = self.pool.snapshot(self.seq);
        }
    }

    /// How many of the first `len` tokens would be left by [`truncate`](Self::truncate).
    pub fn restorable(&self, len: usize) -> usize {
        self.pool.restorable(self.seq, len.min(self.tokens.len()))
    }

    /// Takes the sequence back to its first `len` tokens; further if layers with a window have forgotten what they need there.
    pub fn truncate(&mut self, len: usize) {
        if len < self.tokens.len() {
            let left = self.pool.truncate(self.seq, len);
            self.tokens.truncate(left);
        }
    }

    /// The points from which the sequence can go on, its end the last.
    pub fn points(&self) -> Vec<Point<'_>> {
        self.pool.points(self.seq)
    }

    /// Adds tokens whose cells the caller writes, without the pages that are `gone`, by group: see [`Pool::resume`].
    pub fn resume(&mut self, tokens: &[u32], gone: &[usize]) -> Result<()> {
        let items: Vec<Item> = tokens.iter().copied().map(Item::Token).collect();
        self.pool.resume(self.seq, &items, gone).map_err(full)?;
        self.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// The windows of the groups of layers.
    pub fn windows(&self) -> Vec<Option<usize>> {
        self.spec.groups.iter().map(|group| group.window).collect()
    }

    /// The sequence's pages in a group, as the pool counts them.
    pub fn table(&self, group: usize) -> &[u32] {
        self.pool.table(self.seq, group)
    }

    /// Forgets everything: the caches are empty. Returns the tokens that there were.
    pub fn reset(&mut self) -> Vec<u32> {
        let tokens = std::mem::take(&mut self.tokens);
        self.pool = Pool::new(&self.spec);
        self.seq = self.pool.open(Some(0), 0).expect("an empty pool without slots has room for a sequence");
        tokens
    }
}

fn full(full: crate::state::Full) -> Error {
    Error::new(ErrorKind::OutOfSystemMemory, format!("the cache is full: {full}"))
}
