//! One sequence: its items, and in which pages their cells lie.

use super::group::Group;
use super::item::Item;
use super::pages::{Holder, NULL_PAGE, Pages, pages_of};

/// Pages of a sequence in one group, in order. Those behind the window are gone; the null page stands for them.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub pages: Vec<u32>,
    /// How many are gone.
    pub first: usize,
}

impl Table {
    /// Lets go of the pages before `first`.
    pub fn trim(&mut self, pages: &mut Pages, first: usize) {
        while self.first < first.min(self.pages.len()) {
            pages.release(std::mem::replace(&mut self.pages[self.first], NULL_PAGE), Holder::Sequence);
            self.first += 1;
        }
    }

    /// Lets go of the pages from number `keep` on.
    pub fn cut(&mut self, pages: &mut Pages, keep: usize) {
        self.pages.drain(keep.min(self.pages.len())..).for_each(|page| pages.release(page, Holder::Sequence));
        self.first = self.first.min(self.pages.len());
    }

    /// Adds a page that others hold.
    pub fn share(&mut self, pages: &mut Pages, page: u32) {
        pages.hold(page, Holder::Sequence);
        self.pages.push(page);
    }
}

/// An open sequence.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Sequences with the same salt share prefixes; `None`: this one shares nothing.
    pub salt: Option<u64>,
    /// The committed items: those whose cells are computed.
    pub items: Vec<Item>,
    /// By group.
    pub tables: Vec<Table>,
    /// Only this sequence writes the cells from `items.len()` to here. Equals `items.len()`, or else is a whole number of pages:
    /// then the sequence may write in its last page, though others may read the cells before.
    pub writable: usize,
    /// State of layers that have one per sequence.
    pub slot: Option<u32>,
}

impl Sequence {
    /// Without items, with memory for `expected` of them.
    pub fn new(salt: Option<u64>, groups: usize, expected: usize, slot: Option<u32>) -> Self {
        let table = || Table { pages: Vec::with_capacity(pages_of(expected)), first: 0 };
        let tables = (0..groups).map(|_| table()).collect();
        Sequence { salt, items: Vec::with_capacity(expected), tables, writable: 0, slot }
    }

    /// Items that are committed.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Lets go of everything after `len` items, the cells reserved for more among them.
    pub fn cut(&mut self, groups: &mut [Group], len: usize) {
        for (table, group) in self.tables.iter_mut().zip(groups) {
            table.cut(&mut group.pages, pages_of(len));
        }
        self.items.truncate(len);
        self.writable = len;
    }

    /// The page with the last item's cell, if it has room and the sequence has not filled it alone.
    pub fn unowned_tail(&self, group: usize) -> Option<u32> {
        let inside = !self.len().is_multiple_of(super::PAGE_CELLS) && self.writable == self.len();
        inside.then(|| self.tables[group].pages[self.len() / super::PAGE_CELLS])
    }

    /// Whether every group still has the cells to continue from `len` items, at most its own.
    pub fn reaches(&self, groups: &[Group], len: usize) -> bool {
        len == 0 || self.tables.iter().zip(groups).all(|(table, group)| table.first <= group.first_read(len))
    }
}
