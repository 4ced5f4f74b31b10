//! The pool: all sequences of a model, and what was computed for those before them.

use super::arena::{Arena, Key};
use super::error::{Full, Resource};
use super::group::{Group, GroupSpec};
use super::item::Item;
use super::pages::pages_of;
use super::sequence::Sequence;
use super::slots::{SlotCopy, Slots};
use super::snapshot::Snapshots;
use super::tree::Tree;
use std::vec::Drain;

/// What a pool has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSpec {
    /// Groups of layers with cells; none if all layers are recurrent.
    pub groups: Vec<GroupSpec>,
    /// Slots of the state tensors, slot 0 among them; 0 if no layer has state per sequence. Every open sequence has one,
    /// snapshots have the others.
    pub slots: usize,
    /// The most snapshots that are kept at a time.
    pub snapshots: usize,
}

/// Names an open sequence. Calls with the id of a closed one panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeqId(pub(super) Key);

/// A page that the backend has to copy before the next step: its first cells, in every layer of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageCopy {
    /// Index of the group.
    pub group: usize,
    /// The page to read.
    pub from: u32,
    /// The page to write.
    pub to: u32,
    /// How many cells, from the page's first.
    pub cells: usize,
}

/// How many pages of a group there are, page 0 aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In all.
    pub pages: usize,
    /// Nobody holds them.
    pub free: usize,
    /// Only the prefix tree holds them: [`Pool::reserve`] takes them if it has to.
    pub evictable: usize,
}

/// All sequences of a model, the pages and slots of their state, and the prefixes that are kept for later ones.
///
/// The pool keeps the books and touches no tensor. The backend takes the list of copies from [`Pool::drain_page_copies`] and
/// [`Pool::drain_slot_copies`], and does them before the next step, in the order of each list. It runs steps in the order in
/// which they were submitted: the next step may write a page that was free again while the step before still reads it.
///
/// A step is in flight from its submission until its items are committed, or given up. Cells that it wrote behind the
/// committed ones are worth nothing and need no repair. A slot has no such cells: its state is after all rows of the step.
#[derive(Debug)]
pub struct Pool {
    pub(super) groups: Vec<Group>,
    pub(super) slots: Slots,
    pub(super) sequences: Arena<Sequence>,
    pub(super) tree: Tree,
    pub(super) snapshots: Snapshots,
    pub(super) page_copies: Vec<PageCopy>,
}

impl Pool {
    /// An empty pool.
    pub fn new(spec: &PoolSpec) -> Self {
        Pool {
            groups: spec.groups.iter().map(Group::new).collect(),
            slots: Slots::new(spec.slots),
            sequences: Arena::default(),
            tree: Tree::default(),
            snapshots: Snapshots { list: Vec::new(), most: spec.snapshots },
            page_copies: Vec::new(),
        }
    }

    /// Opens an empty sequence, with memory for the books of `expected` items; it may become longer.
    ///
    /// Sequences share prefixes if they have the same salt: a hash of everything besides the items that cells depend on (model,
    /// adapters, type of the cache), and of who may notice that others had the same prompt. A sequence without a salt shares
    /// nothing.
    ///
    /// # Errors
    /// If open sequences have all slots.
    pub fn open(&mut self, salt: Option<u64>, expected: usize) -> Result<SeqId, Full> {
        let slot = self.take_slot()?;
        self.slots.copies.extend(slot.map(|to| SlotCopy { from: None, to }));
        let sequence = Sequence::new(salt, self.groups.len(), expected, slot);
        Ok(SeqId(self.sequences.insert(sequence)))
    }

    /// Opens a sequence with the same committed items, which shares their pages. Nothing is reserved for it yet. The slot is
    /// copied, if there is one: then no step of the sequence may be in flight.
    ///
    /// # Errors
    /// If open sequences have all slots.
    pub fn fork(&mut self, seq: SeqId) -> Result<SeqId, Full> {
        let slot = self.take_slot()?;
        let parent = &self.sequences[seq.0];
        let mut child = Sequence::new(parent.salt, self.groups.len(), parent.len(), slot);
        child.items.extend_from_slice(&parent.items);
        child.writable = child.len();
        for ((own, table), group) in child.tables.iter_mut().zip(&parent.tables).zip(&mut self.groups) {
            table.pages[..pages_of(parent.len())].iter().for_each(|page| own.share(&mut group.pages, *page));
            own.first = table.first.min(own.pages.len());
        }
        self.slots.copies.extend(slot.map(|to| SlotCopy { from: parent.slot, to }));
        Ok(SeqId(self.sequences.insert(child)))
    }

    /// Closes a sequence. Cells that others share remain; call [`Pool::snapshot`] before, to keep the rest for later ones.
    pub fn close(&mut self, seq: SeqId) {
        let mut sequence = self.sequences.remove(seq.0).expect("the sequence is closed already");
        sequence.cut(&mut self.groups, 0);
        sequence.slot.into_iter().for_each(|slot| self.slots.give(slot));
    }

    /// The committed items: those whose cells are computed.
    pub fn items(&self, seq: SeqId) -> &[Item] {
        &self.sequences[seq.0].items
    }

    /// Number of committed items; the next is computed at this position.
    pub fn len(&self, seq: SeqId) -> usize {
        self.sequences[seq.0].len()
    }

    /// The sequence's pages in a group: the cell of position `p` is `(table[p / 64] - 1) · 64 + p % 64`, since page 0 is none: it stands for the pages
    /// behind the window. The table covers the committed items and what is reserved.
    pub fn table(&self, seq: SeqId, group: usize) -> &[u32] {
        &self.sequences[seq.0].tables[group].pages
    }

    /// The sequence's slot, if layers have state per sequence.
    pub fn slot(&self, seq: SeqId) -> Option<u32> {
        self.sequences[seq.0].slot
    }

    /// How many sequences are open.
    pub fn sequences(&self) -> usize {
        self.sequences.iter().count()
    }

    /// How many of a group's pages are free, and how many can be made free. In constant time.
    pub fn usage(&self, group: usize) -> Usage {
        let pages = &self.groups[group].pages;
        Usage { pages: pages.total() - 1, free: pages.free(), evictable: pages.evictable() }
    }

    /// Takes out the page copies that the backend has to do before the next step, in this order.
    pub fn drain_page_copies(&mut self) -> Drain<'_, PageCopy> {
        self.page_copies.drain(..)
    }

    /// Takes out the slot copies that the backend has to do before the next step, in this order.
    pub fn drain_slot_copies(&mut self) -> Drain<'_, SlotCopy> {
        self.slots.copies.drain(..)
    }

    /// A slot, if sequences have one. If none is free, the least recently used snapshot is dropped.
    pub(super) fn take_slot(&mut self) -> Result<Option<u32>, Full> {
        if !self.slots.exist() {
            return Ok(None);
        }
        if self.slots.free() == 0 && !self.snapshots.list.is_empty() {
            self.drop_snapshot(0);
        }
        let full = Full { resource: Resource::Slots, needed: 1, free: 0 };
        self.slots.take().map(Some).ok_or(full)
    }
}
