//! The prefix tree: which runs of items are computed, and in which pages.
//!
//! A radix tree: a node has a run of items that follows its parent's, and nodes split at any item. For each group without a
//! window a node holds the pages that its items touch. Two nodes may touch one page: if a run ends inside a page, the page of
//! the node below begins with the same cells, so on a path the page of the deepest node has them all.
//!
//! Groups with windows have no pages here: snapshots at the ends of nodes keep what they need.

use super::arena::{Arena, Key};
use super::group::Group;
use super::item::Item;
use super::lru::{Ends, Links};
use super::pages::{Holder, PAGE_CELLS, pages_of};
use super::sequence::Table;
use std::collections::HashMap;

pub(super) type NodeId = Key;

/// What stands before a run of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Parent {
    /// Nothing: sequences with this salt begin with the run.
    Salt(u64),
    /// The run of another node.
    Node(NodeId),
}

#[derive(Debug)]
pub(super) struct Node {
    pub parent: Parent,
    /// Items before the run.
    pub start: usize,
    /// The run: never empty.
    pub items: Vec<Item>,
    /// By group, the pages of the run's cells, in order; empty for groups with windows.
    pub pages: Vec<Vec<u32>>,
    /// How many nodes follow.
    pub children: usize,
    /// Whether a snapshot stands at the end of the run.
    pub snapshot: bool,
    /// Its place in the order of use.
    pub links: Links,
}

impl Node {
    /// Items up to the end of the run.
    pub fn end(&self) -> usize {
        self.start + self.items.len()
    }
}

/// A place in the tree: `len` items from the beginning, the last of them in the run of `node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub node: NodeId,
    pub len: usize,
}

#[derive(Debug, Default)]
pub(super) struct Tree {
    pub nodes: Arena<Node>,
    /// The node that follows a parent with a first item.
    pub edges: HashMap<(Parent, Item), NodeId>,
    pub ends: Ends,
}

impl Tree {
    /// The end of the longest run from the beginning that `items` begin with; `None` if not even the first item is there.
    pub fn find(&self, salt: u64, items: &[Item]) -> Option<Place> {
        let mut found = None;
        let (mut parent, mut len) = (Parent::Salt(salt), 0);
        while let Some(id) = items.get(len).and_then(|first| self.edges.get(&(parent, *first))) {
            let node = &self.nodes[*id];
            let same = node.items.iter().zip(&items[len..]).take_while(|(a, b)| a == b).count();
            len += same;
            found = Some(Place { node: *id, len });
            if same < node.items.len() {
                break;
            }
            parent = Parent::Node(*id);
        }
        found
    }

    /// How many items two places have in common.
    pub fn common(&self, mut a: Place, mut b: Place) -> usize {
        while a.node != b.node {
            let deeper = if self.nodes[a.node].start >= self.nodes[b.node].start { &mut a } else { &mut b };
            let node = &self.nodes[deeper.node];
            match node.parent {
                Parent::Salt(_) => return 0,
                Parent::Node(parent) => *deeper = Place { node: parent, len: node.start },
            }
        }
        a.len.min(b.len)
    }

    /// Nodes from `id` up to the beginning.
    fn path(&self, id: NodeId) -> impl Iterator<Item = &Node> {
        std::iter::successors(Some(id), |id| match self.nodes[*id].parent {
            Parent::Salt(_) => None,
            Parent::Node(parent) => Some(parent),
        })
        .map(|id| &self.nodes[id])
    }

    /// Lets a sequence share the pages up to `place`, behind those that its table has already.
    pub fn share(&self, groups: &mut [Group], group: usize, place: Place, table: &mut Table) {
        let (from, to) = (table.pages.len(), pages_of(place.len));
        table.pages.resize(to.max(from), 0);
        let mut missing = to;
        for node in self.path(place.node) {
            let first = node.start / PAGE_CELLS;
            // The deepest node comes first, and leaves the pages before its own to those above.
            for number in first.max(from)..missing {
                table.pages[number] = node.pages[group][number - first];
                groups[group].pages.hold(table.pages[number], Holder::Sequence);
            }
            missing = missing.min(first);
            if missing <= from {
                break;
            }
        }
    }

    /// Adds `items`, at least one, whose cells lie in the pages of `tables`; returns their end. The tree keeps its own pages for
    /// items that it has already. Counts as a use.
    pub fn insert(&mut self, groups: &mut [Group], salt: u64, items: &[Item], tables: &[Table]) -> Place {
        let found = self.find(salt, items);
        let len = found.map_or(0, |place| place.len);
        if let Some(place) = found
            && len == items.len()
        {
            self.touch(place.node);
            return place;
        }
        let above = found.map(|place| self.end_at(groups, place));
        let id = match above {
            Some(id) if self.nodes[id].children == 0 && !self.nodes[id].snapshot => id,
            _ => self.add_child(groups.len(), above.map_or(Parent::Salt(salt), Parent::Node), len, items[len]),
        };
        self.extend(groups, id, items, tables);
        self.touch(id);
        Place { node: id, len: items.len() }
    }

    /// Adds a node whose run is yet empty.
    fn add_child(&mut self, groups: usize, parent: Parent, start: usize, first: Item) -> NodeId {
        let pages = vec![Vec::new(); groups];
        let (items, links) = (Vec::new(), Links::default());
        let id = self.nodes.insert(Node { parent, start, items, pages, children: 0, snapshot: false, links });
        self.link_newest(id);
        self.edges.insert((parent, first), id);
        if let Parent::Node(parent) = parent {
            self.nodes[parent].children += 1;
        }
        id
    }

    /// Extends the run of a leaf to the end of `items`. If it ended inside a page, the table's page replaces its own: it has the
    /// same cells and more.
    fn extend(&mut self, groups: &mut [Group], id: NodeId, items: &[Item], tables: &[Table]) {
        let node = &mut self.nodes[id];
        let (first, from) = (node.start / PAGE_CELLS, node.end() / PAGE_CELLS);
        node.items.extend_from_slice(&items[node.end()..]);
        for (g, group) in groups.iter_mut().enumerate().filter(|(_, group)| group.window.is_none()) {
            let more = &tables[g].pages[from..pages_of(items.len())];
            more.iter().for_each(|page| group.pages.hold(*page, Holder::Tree));
            node.pages[g].drain(from - first..).for_each(|page| group.pages.release(page, Holder::Tree));
            node.pages[g].extend_from_slice(more);
        }
    }

    /// The node that ends at `place`. If the run of the node there is longer, it is split; the part behind keeps the id.
    pub fn end_at(&mut self, groups: &mut [Group], place: Place) -> NodeId {
        let id = place.node;
        let node = &mut self.nodes[id];
        if place.len == node.end() {
            return id;
        }
        debug_assert!((node.start + 1..node.end()).contains(&place.len), "{place:?} does not lie inside its node");
        let first = node.start / PAGE_CELLS;
        let behind = node.items.split_off(place.len - node.start);
        let items = std::mem::replace(&mut node.items, behind);
        let mut pages = Vec::with_capacity(groups.len());
        for (own, group) in node.pages.iter_mut().zip(groups) {
            let behind = own.split_off((place.len / PAGE_CELLS - first).min(own.len()));
            let mut before = std::mem::replace(own, behind);
            if let Some(page) = own.first().filter(|_| !place.len.is_multiple_of(PAGE_CELLS)) {
                group.pages.hold(*page, Holder::Tree);
                before.push(*page);
            }
            pages.push(before);
        }
        let (parent, start, links) = (node.parent, node.start, Links::default());
        let (head, next) = (items[0], node.items[0]);
        node.start = place.len;
        let before = self.nodes.insert(Node { parent, start, items, pages, children: 1, snapshot: false, links });
        self.link(before, Some(id));
        self.nodes[id].parent = Parent::Node(before);
        self.edges.insert((parent, head), before);
        self.edges.insert((Parent::Node(before), next), id);
        before
    }

    /// Shortens a leaf by the items in its last page; removes it if none are left.
    pub fn cut_last_page(&mut self, groups: &mut [Group], id: NodeId) {
        let node = &self.nodes[id];
        let end = (node.end() - 1) / PAGE_CELLS * PAGE_CELLS;
        if end <= node.start {
            self.remove_leaf(groups, id);
            return;
        }
        let node = &mut self.nodes[id];
        node.items.truncate(end - node.start);
        for (own, group) in node.pages.iter_mut().zip(groups) {
            own.pop().into_iter().for_each(|page| group.pages.release(page, Holder::Tree));
        }
    }

    /// Removes a leaf with its pages; returns its parent.
    fn remove_leaf(&mut self, groups: &mut [Group], id: NodeId) -> Parent {
        self.unlink(id);
        let node = self.nodes.remove(id).expect("a leaf is removed once");
        debug_assert!(node.children == 0 && !node.snapshot, "only bare leaves are removed");
        for (own, group) in node.pages.iter().zip(groups) {
            own.iter().for_each(|page| group.pages.release(*page, Holder::Tree));
        }
        self.edges.remove(&(node.parent, node.items[0]));
        if let Parent::Node(parent) = node.parent {
            self.nodes[parent].children -= 1;
        }
        node.parent
    }

    /// Removes all nodes; no snapshots are left.
    pub fn clear(&mut self, groups: &mut [Group]) {
        for (_, node) in std::mem::take(&mut self.nodes).iter() {
            for (own, group) in node.pages.iter().zip(&mut *groups) {
                own.iter().for_each(|page| group.pages.release(*page, Holder::Tree));
            }
        }
        self.edges.clear();
        self.ends = Ends::default();
    }

    /// Removes a node and those above it, as far as nothing follows them and no snapshot stands at their end.
    pub fn prune(&mut self, groups: &mut [Group], id: NodeId) {
        let mut next = Parent::Node(id);
        while let Parent::Node(id) = next
            && self.nodes[id].children == 0
            && !self.nodes[id].snapshot
        {
            next = self.remove_leaf(groups, id);
        }
    }
}
