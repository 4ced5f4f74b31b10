//! Compares the pool's books with each other, for tests.

use super::group::Group;
use super::pages::{Holders, PAGE_CELLS, pages_of};
use super::pool::Pool;
use super::sequence::{Sequence, Table};
use super::tree::{Node, NodeId, Parent, Tree};
use std::collections::{HashMap, HashSet};

/// Ends with the message unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

impl Pool {
    /// Counts all holders of pages and slots anew, and looks at every table, node and snapshot. Takes time in the size of the
    /// pool.
    ///
    /// # Errors
    /// The first contradiction, in words.
    pub fn check(&self) -> Result<(), String> {
        for (id, sequence) in self.sequences.iter() {
            sequence.check(&self.groups).map_err(|e| format!("sequence {id:?}: {e}"))?;
        }
        for (id, node) in self.tree.nodes.iter() {
            self.tree.check(&self.groups, id, node).map_err(|e| format!("node {id:?}: {e}"))?;
            let snapshots = self.snapshots.list.iter().filter(|snapshot| snapshot.node == id).count();
            ensure!(snapshots == usize::from(node.snapshot), "node {id:?} has {snapshots} snapshots");
            let found = !self.needs_snapshots() || node.snapshot || node.children > 0;
            ensure!(found, "node {id:?} is a leaf without a snapshot");
        }
        self.tree.check_children()?;
        self.tree.check_order()?;
        self.check_snapshots()?;
        for (g, group) in self.groups.iter().enumerate() {
            group.pages.check(&self.count_holders(g)).map_err(|e| format!("group {g}: {e}"))?;
            self.check_writers(g)?;
        }
        let sequences = self.sequences.iter().filter_map(|(_, sequence)| sequence.slot);
        self.slots.check(sequences.chain(self.snapshots.list.iter().filter_map(|snapshot| snapshot.slot)).collect())
    }

    fn check_snapshots(&self) -> Result<(), String> {
        ensure!(self.snapshots.list.len() <= self.snapshots.most, "{} snapshots", self.snapshots.list.len());
        for snapshot in &self.snapshots.list {
            let node = self.tree.nodes.get(snapshot.node).ok_or("a snapshot's node is gone")?;
            ensure!(node.end() == snapshot.len, "a snapshot of {} items stands at {}", snapshot.len, node.end());
            ensure!(snapshot.slot.is_some() == self.slots.exist(), "a snapshot without state");
            for (window, group) in snapshot.windows.iter().zip(&self.groups).filter(|(_, g)| g.window.is_some()) {
                check_table(window, group, snapshot.len).map_err(|e| format!("snapshot: {e}"))?;
                ensure!(window.pages.len() == pages_of(snapshot.len), "a snapshot has pages behind its end");
            }
        }
        Ok(())
    }

    fn count_holders(&self, group: usize) -> Vec<Holders> {
        let mut counted = vec![Holders::default(); self.groups[group].pages.total()];
        for page in self.sequences.iter().flat_map(|(_, sequence)| &sequence.tables[group].pages) {
            counted[*page as usize].sequences += 1;
        }
        let nodes = self.tree.nodes.iter().flat_map(|(_, node)| &node.pages[group]);
        for page in nodes.chain(self.snapshots.list.iter().flat_map(|snapshot| &snapshot.windows[group].pages)) {
            counted[*page as usize].tree += 1;
        }
        // The null page stands for pages that are gone, and is not counted.
        counted[0] = Holders::default();
        counted
    }

    /// No page has two writers, and pages without committed cells have one holder.
    fn check_writers(&self, group: usize) -> Result<(), String> {
        let pages = &self.groups[group].pages;
        let mut written = vec![false; pages.total()];
        for (_, sequence) in self.sequences.iter().filter(|(_, sequence)| sequence.writable > sequence.len()) {
            for number in sequence.len() / PAGE_CELLS..pages_of(sequence.writable) {
                let page = sequence.tables[group].pages[number];
                ensure!(page != 0, "group {group}: the null page is written");
                ensure!(!std::mem::replace(&mut written[page as usize], true), "page {page} has two writers");
                let fresh = number * PAGE_CELLS >= sequence.len();
                ensure!(!fresh || !pages.is_shared(page), "page {page} is shared before it is committed");
            }
        }
        Ok(())
    }
}

/// The pages that the row at position `len` attends to are there, those before `first` are not.
fn check_table(table: &Table, group: &Group, len: usize) -> Result<(), String> {
    ensure!(table.first <= group.first_read(len) || len == 0, "begins at page {} at length {len}", table.first);
    let (gone, there) = table.pages.split_at(table.first);
    ensure!(gone.iter().all(|page| *page == 0) && there.iter().all(|page| *page != 0), "holes in {:?}", table.pages);
    Ok(())
}

impl Sequence {
    fn check(&self, groups: &[Group]) -> Result<(), String> {
        let whole = self.writable.is_multiple_of(PAGE_CELLS);
        ensure!(self.writable == self.len() || (self.writable > self.len() && whole), "writable to {}", self.writable);
        for (table, group) in self.tables.iter().zip(groups) {
            check_table(table, group, self.len())?;
            ensure!(table.pages.len() == pages_of(self.writable), "{} pages", table.pages.len());
        }
        Ok(())
    }
}

impl Tree {
    fn check_children(&self) -> Result<(), String> {
        let mut counted: HashMap<Parent, usize> = HashMap::new();
        self.nodes.iter().for_each(|(_, node)| *counted.entry(node.parent).or_default() += 1);
        for (id, node) in self.nodes.iter() {
            let children = counted.get(&Parent::Node(id)).copied().unwrap_or(0);
            ensure!(children == node.children, "{children} nodes follow {id:?}, the books have {}", node.children);
        }
        Ok(())
    }

    /// The list by use has all nodes, each before its parent.
    fn check_order(&self) -> Result<(), String> {
        let nodes = self.nodes.iter().count();
        ensure!(self.edges.len() == nodes, "{} edges lead to {nodes} nodes", self.edges.len());
        let mut seen = HashSet::new();
        for (id, node) in self.by_use().take(nodes + 1) {
            ensure!(seen.insert(id), "node {id:?} stands twice in the order of use");
            let Parent::Node(parent) = node.parent else { continue };
            ensure!(!seen.contains(&parent), "node {id:?} was used later than its parent");
        }
        ensure!(seen.len() == nodes, "{} of {nodes} nodes stand in the order of use", seen.len());
        Ok(())
    }

    fn check(&self, groups: &[Group], id: NodeId, node: &Node) -> Result<(), String> {
        let start = match node.parent {
            Parent::Salt(_) => 0,
            Parent::Node(parent) => self.nodes.get(parent).ok_or("its parent is gone")?.end(),
        };
        ensure!(start == node.start, "begins at {}, its parent ends at {start}", node.start);
        let first = node.items.first().ok_or("has no items")?;
        ensure!(self.edges.get(&(node.parent, *first)) == Some(&id), "no edge leads to it");
        for (pages, group) in node.pages.iter().zip(groups) {
            let span = pages_of(node.end()) - node.start / PAGE_CELLS;
            let expected = if group.window.is_some() { 0 } else { span };
            ensure!(pages.len() == expected && pages.iter().all(|page| *page != 0), "pages {pages:?}");
        }
        Ok(())
    }
}
