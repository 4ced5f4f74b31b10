//! Cells to write: reserving them before a step, committing them after it, and making room for them.

use super::error::{Full, Resource};
use super::item::Item;
use super::pages::{Holder, PAGE_CELLS, pages_of};
use super::pool::{PageCopy, Pool, SeqId};

impl Pool {
    /// Makes the cells of the next `n` positions writable, in every group. Lets go of pages that lie wholly behind a window, and
    /// evicts pages that only the prefix tree holds, if free ones do not suffice.
    ///
    /// If others read the page in which the sequence continues, the sequence gets a copy of that page (see
    /// [`Pool::drain_page_copies`]). It needs none in a page that it has filled so far itself: others read only the cells that it
    /// had filled when it shared them.
    ///
    /// Takes constant time and allocates nothing while the last page has room.
    ///
    /// # Errors
    /// If there are too few pages, evictable ones included; then nothing is reserved or evicted. Pages wholly behind a window are free then,
    /// too.
    pub fn reserve(&mut self, seq: SeqId, n: usize) -> Result<(), Full> {
        let sequence = &mut self.sequences[seq.0];
        let end = sequence.len() + n;
        if end <= sequence.writable {
            return Ok(());
        }
        for (table, group) in sequence.tables.iter_mut().zip(&mut self.groups) {
            let first = group.first_kept(sequence.items.len());
            table.trim(&mut group.pages, first);
        }
        for group in 0..self.groups.len() {
            let (needed, pages) = (self.missing_pages(seq, group, end), &self.groups[group].pages);
            let free = pages.free() + pages.evictable();
            if needed > free {
                return Err(Full { resource: Resource::Pages { group }, needed, free });
            }
        }
        for group in 0..self.groups.len() {
            self.make_room(group, self.missing_pages(seq, group, end));
        }
        for group in 0..self.groups.len() {
            self.fill(seq, group, end);
        }
        self.sequences[seq.0].writable = end.next_multiple_of(PAGE_CELLS);
        Ok(())
    }

    /// Adds items that a step has computed in reserved cells. Only committed items are ever shared.
    ///
    /// If sequences have slots, all rows of the step must be committed, since the state is after all of them; rejected ones
    /// are taken back by [`Pool::truncate`].
    pub fn commit(&mut self, seq: SeqId, items: &[Item]) {
        let sequence = &mut self.sequences[seq.0];
        debug_assert!(
            sequence.len() + items.len() <= sequence.writable,
            "{} items are committed, cells reserved for {}",
            items.len(),
            sequence.writable - sequence.len()
        );
        sequence.items.extend_from_slice(items);
    }

    /// Drops all prefixes and snapshots, so that only sequences hold pages. A sequence that is alone in a full pool may need it:
    /// to write in a page that the tree shares takes a page for the copy, until the tree lets go.
    pub fn forget_prefixes(&mut self) {
        while !self.snapshots.list.is_empty() {
            self.drop_snapshot(0);
        }
        self.tree.clear(&mut self.groups);
    }

    /// Pages to take so that the cells up to `end` are writable.
    fn missing_pages(&self, seq: SeqId, group: usize, end: usize) -> usize {
        let sequence = &self.sequences[seq.0];
        let copy = sequence.unowned_tail(group).is_some_and(|page| self.groups[group].pages.is_shared(page));
        pages_of(end) - sequence.tables[group].pages.len() + usize::from(copy)
    }

    /// Evicts until `needed` pages are free, which the evictable ones allow.
    fn make_room(&mut self, group: usize, needed: usize) {
        while self.groups[group].pages.free() < needed {
            if self.groups[group].window.is_some() {
                let snapshot = self.snapshots.least_used_in(&self.groups, group);
                self.drop_snapshot(snapshot.expect("evictable pages of windows belong to snapshots"));
                continue;
            }
            let leaf = self.tree.least_used_leaf(&self.groups, group);
            let leaf = leaf.expect("evictable pages belong to nodes");
            match self.snapshots.list.iter().position(|snapshot| snapshot.node == leaf) {
                Some(snapshot) => self.drop_snapshot(snapshot),
                None => self.tree.cut_last_page(&mut self.groups, leaf),
            }
        }
    }

    /// Takes pages for the cells up to `end`, among them one for a copy of the last page if others read that one.
    fn fill(&mut self, seq: SeqId, group: usize, end: usize) {
        let sequence = &mut self.sequences[seq.0];
        let (tail, len) = (sequence.unowned_tail(group), sequence.len());
        let (pages, table) = (&mut self.groups[group].pages, &mut sequence.tables[group].pages);
        let mut take = || pages.take().expect("room was made");
        while table.len() < pages_of(end) {
            table.push(take());
        }
        if let Some(from) = tail.filter(|page| pages.is_shared(*page)) {
            let to = pages.take().expect("room was made");
            pages.release(from, Holder::Sequence);
            table[len / PAGE_CELLS] = to;
            self.page_copies.push(PageCopy { group, from, to, cells: len % PAGE_CELLS });
        }
    }

    /// Drops a snapshot, and the nodes that only led to it.
    pub(super) fn drop_snapshot(&mut self, index: usize) {
        let snapshot = self.snapshots.list.remove(index);
        for (window, group) in snapshot.windows.iter().zip(&mut self.groups) {
            window.pages.iter().for_each(|page| group.pages.release(*page, Holder::Tree));
        }
        snapshot.slot.into_iter().for_each(|slot| self.slots.give(slot));
        self.tree.nodes[snapshot.node].snapshot = false;
        self.tree.prune(&mut self.groups, snapshot.node);
    }
}
