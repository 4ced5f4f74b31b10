//! Copies pages of caches: a sequence writes into a page that others read only after it has one of its own.

use super::engine::Engine;
use crate::base::{Meta, Result};
use crate::graph::{Cache, Storage};
use crate::ops::{AnyOp, Op, PAGE_CELLS};
use crate::state::PageCopy;

impl Engine {
    /// Copies pages of all layers of their groups, in this order, before the next run.
    pub(super) fn copy_pages(&mut self, copies: &[PageCopy]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        for (group, cache, meta) in self.caches() {
            for copy in copies.iter().filter(|copy| copy.group == group) {
                // The pool's page 0 is none of a cache.
                let pages = [copy.from, copy.to].map(|page| page as usize - 1);
                self.memory.copy_cells(cache, &meta, pages.map(|page| page * PAGE_CELLS), PAGE_CELLS);
                if let Some(gpu) = &mut self.gpu {
                    gpu.memory.copy_cells(cache, &meta, pages.map(|page| page * PAGE_CELLS), PAGE_CELLS)?;
                }
            }
        }
        Ok(())
    }

    /// The caches of all layers, and their groups.
    pub(super) fn caches(&self) -> Vec<(usize, Cache, Meta)> {
        let mut all: Vec<(usize, Cache, Meta)> = Vec::new();
        let Some(program) = self.programs.first() else { return all };
        for node in &program.graph.nodes {
            // Every graph stores in all caches, but one without logits does not read the last.
            let (group, caches) = match &node.op {
                AnyOp::KvStore(op) => (op.group, op.caches()),
                AnyOp::RopeStore(op) => (op.group, op.caches()),
                _ => continue,
            };
            for tensor in &node.src[caches] {
                if let Storage::Cache(cache) = program.graph.storage(tensor)
                    && all.iter().all(|(_, known, _)| known != cache)
                {
                    all.push((group, *cache, tensor.meta));
                }
            }
        }
        all
    }
}
