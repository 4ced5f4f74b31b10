//! The order in which the tree's nodes were used: a list through them, the least recently used first.
//!
//! A use of a node is a use of all nodes above it, and the deeper ones are put first. So every node comes before those above it,
//! and the first of the list is a leaf.

use super::group::Group;
use super::tree::{Node, NodeId, Parent, Tree};

/// Where a node stands in the list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    /// The next less recently used node.
    older: Option<NodeId>,
    /// The next more recently used node.
    newer: Option<NodeId>,
}

/// The ends of the list.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ends {
    oldest: Option<NodeId>,
    newest: Option<NodeId>,
}

impl Tree {
    /// Records a use of a node.
    pub fn touch(&mut self, id: NodeId) {
        let mut next = Parent::Node(id);
        while let Parent::Node(id) = next {
            self.unlink(id);
            self.link_newest(id);
            next = self.nodes[id].parent;
        }
    }

    /// Puts a node that is not in the list at its end.
    pub fn link_newest(&mut self, id: NodeId) {
        self.link(id, self.ends.newest);
    }

    /// Puts a node that is not in the list behind another; at the front if there is none.
    pub fn link(&mut self, id: NodeId, older: Option<NodeId>) {
        let newer = match older {
            Some(older) => self.nodes[older].links.newer.replace(id),
            None => self.ends.oldest.replace(id),
        };
        match newer {
            Some(newer) => self.nodes[newer].links.older = Some(id),
            None => self.ends.newest = Some(id),
        }
        self.nodes[id].links = Links { older, newer };
    }

    /// Takes a node out of the list.
    pub fn unlink(&mut self, id: NodeId) {
        let Links { older, newer } = std::mem::take(&mut self.nodes[id].links);
        match older {
            Some(older) => self.nodes[older].links.newer = newer,
            None => self.ends.oldest = newer,
        }
        match newer {
            Some(newer) => self.nodes[newer].links.older = older,
            None => self.ends.newest = older,
        }
    }

    /// All nodes, the least recently used first.
    pub fn by_use(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        std::iter::successors(self.ends.oldest, |id| self.nodes[*id].links.newer).map(|id| (id, &self.nodes[id]))
    }

    /// The leaf that loses its last page if `group` is short of pages: the least recently used. Leaves whose last page others
    /// hold come after all others, and those whose last page a sequence reads at the very end: to shorten them frees no page, but
    /// makes leaves of the nodes above.
    pub fn least_used_leaf(&self, groups: &[Group], group: usize) -> Option<NodeId> {
        let pages = &groups[group].pages;
        let last = |node: &Node| node.pages[group].last().copied();
        let leaves = || self.by_use().filter(|(_, node)| node.children == 0);
        let unshared = leaves().find(|(_, node)| last(node).is_some_and(|page| !pages.is_shared(page)));
        let unread = || leaves().find(|(_, node)| last(node).is_some_and(|page| !pages.in_use(page)));
        unshared.or_else(unread).or_else(|| leaves().next()).map(|(id, _)| id)
    }
}
