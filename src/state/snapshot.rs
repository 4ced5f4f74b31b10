//! Snapshots: what layers that forget need to continue from a place in the tree.
//!
//! A group with a window has only the last cells of a sequence, and a slot only its last state. So a sequence can continue from
//! a prefix only if a snapshot kept both: the pages of each window, shared like all others, and a copy of the slot.

use super::group::Group;
use super::pages::{Holder, pages_of};
use super::sequence::{Sequence, Table};
use super::tree::{NodeId, Place, Tree};

#[derive(Debug)]
pub(super) struct Snapshot {
    /// It stands at the end of this node.
    pub node: NodeId,
    /// Items up to there.
    pub len: usize,
    /// By group, as tables of sequences are; empty for groups without a window.
    pub windows: Vec<Table>,
    /// The copy of the slot, if sequences have one.
    pub slot: Option<u32>,
}

impl Snapshot {
    /// Whether it stands at a place, with `len` items up to there.
    pub fn stands_at(&self, place: Place, len: usize) -> bool {
        self.node == place.node && self.len == place.len && place.len == len
    }

    /// Whether every window has the cells to continue from `len` items, at most the snapshot's.
    fn reaches(&self, groups: &[Group], len: usize) -> bool {
        self.windows.iter().zip(groups).all(|(window, group)| window.first <= group.first_read(len))
    }

    /// From how many of the items up to `place` a sequence can continue with it. A state is of one length only; a window also
    /// has the cells for lengths a little below its own.
    pub fn usable(&self, tree: &Tree, groups: &[Group], place: Place) -> usize {
        let common = tree.common(Place { node: self.node, len: self.len }, place);
        let fits = if self.slot.is_some() { common == self.len } else { self.reaches(groups, common) };
        if fits { common } else { 0 }
    }

    /// Whether some page of a group would be free without it.
    fn frees(&self, groups: &[Group], group: usize) -> bool {
        self.windows[group].pages.iter().any(|page| *page != 0 && !groups[group].pages.is_shared(*page))
    }
}

/// Lets the tree share what the next row of a sequence reads in windows.
pub(super) fn keep_windows(groups: &mut [Group], sequence: &Sequence) -> Vec<Table> {
    let keep = |(table, group): (&Table, &mut Group)| {
        if group.window.is_none() {
            return Table::default();
        }
        let first = group.first_kept(sequence.len()).max(table.first);
        let mut pages = vec![0; first];
        pages.extend_from_slice(&table.pages[first..pages_of(sequence.len())]);
        pages.iter().for_each(|page| group.pages.hold(*page, Holder::Tree));
        Table { pages, first }
    };
    sequence.tables.iter().zip(groups).map(keep).collect()
}

/// Lets a sequence of `len` items share a snapshot's window. The table was empty before.
pub(super) fn share_window(window: &Table, group: &mut Group, len: usize, table: &mut Table) {
    table.first = group.first_kept(len).max(window.first);
    table.pages.resize(table.first, 0);
    for page in &window.pages[table.first..pages_of(len)] {
        table.share(&mut group.pages, *page);
    }
}

/// All snapshots, few enough to look at each.
#[derive(Debug)]
pub(super) struct Snapshots {
    /// The least recently used first.
    pub list: Vec<Snapshot>,
    /// How many there may be.
    pub most: usize,
}

impl Snapshots {
    /// The one with which a sequence can continue from the most items up to `place`, and their number.
    pub fn best(&self, tree: &Tree, groups: &[Group], place: Place) -> Option<(usize, usize)> {
        let usable = self.list.iter().enumerate().map(|(i, snapshot)| (snapshot.usable(tree, groups, place), i));
        usable.max().filter(|(len, _)| *len > 0).map(|(len, i)| (i, len))
    }

    /// Records a use.
    pub fn touch(&mut self, index: usize) {
        self.list[index..].rotate_left(1);
    }

    /// The one that is dropped if a group with a window is short of pages: the least recently used of those that free some.
    pub fn least_used_in(&self, groups: &[Group], group: usize) -> Option<usize> {
        let frees = self.list.iter().position(|snapshot| snapshot.frees(groups, group));
        frees.or((!self.list.is_empty()).then_some(0))
    }
}
