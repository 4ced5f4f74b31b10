//! The prefix tree against a sorted set of texts.

use super::model::values;
use super::*;
use crate::state::pages::pages_of;
use crate::state::sequence::Table;
use crate::state::tree::{NodeId, Parent, Place};
use std::collections::BTreeSet;

/// Texts in order: of all of them one of the two next to a text has the most in common with it.
#[derive(Default)]
struct Naive(BTreeSet<(u64, Vec<u64>)>);

impl Naive {
    fn find(&self, salt: u64, codes: &[u64]) -> usize {
        let key = (salt, codes.to_vec());
        let next = [self.0.range(..&key).next_back(), self.0.range(&key..).next()];
        let same = |text: &&(u64, Vec<u64>)| text.0 == salt;
        let common = |text: &(u64, Vec<u64>)| text.1.iter().zip(codes).take_while(|(a, b)| a == b).count();
        next.into_iter().flatten().filter(same).map(common).max().unwrap_or(0)
    }

    /// Removes what follows `codes[..keep]` as in `codes`.
    fn cut(&mut self, salt: u64, codes: &[u64], keep: usize) {
        let gone = &codes[..keep + 1];
        let from = (salt, gone.to_vec());
        let texts: Vec<_> =
            self.0.range(from..).take_while(|t| t.0 == salt && t.1.starts_with(gone)).cloned().collect();
        texts.iter().for_each(|text| assert!(self.0.remove(text)));
        if keep > 0 {
            self.0.insert((salt, codes[..keep].to_vec()));
        }
    }
}

struct Both {
    pool: Pool,
    naive: Naive,
    /// By cell: the value of the text up to there.
    cells: Vec<u64>,
}

impl Both {
    const PAGES: usize = 60;

    fn new() -> Self {
        let pool = pool(&[(None, Self::PAGES)], 0, 0);
        Both { pool, naive: Naive::default(), cells: vec![0; (Self::PAGES + 1) * PAGE_CELLS] }
    }

    /// The text up to the end of a node.
    fn path(&self, id: NodeId) -> (u64, Vec<Item>) {
        let node = &self.pool.tree.nodes[id];
        let (salt, mut text) = match node.parent {
            Parent::Salt(salt) => (salt, Vec::new()),
            Parent::Node(parent) => self.path(parent),
        };
        text.extend_from_slice(&node.items);
        (salt, text)
    }

    fn evict(&mut self) {
        let leaf = self.pool.tree.least_used_leaf(&self.pool.groups, 0).expect("pages are held by nodes");
        let (salt, text) = self.path(leaf);
        let start = self.pool.tree.nodes[leaf].start;
        let keep = start.max((text.len() - 1) / PAGE_CELLS * PAGE_CELLS);
        self.pool.tree.cut_last_page(&mut self.pool.groups, leaf);
        self.naive.cut(salt, &values(&text), keep);
    }

    /// A sequence computes a text alone, adds it, and is closed.
    fn insert(&mut self, salt: u64, text: &[Item]) {
        while self.pool.groups[0].pages.free() < pages_of(text.len()) {
            self.evict();
        }
        let mut table = Table::default();
        table.pages.extend((0..pages_of(text.len())).map(|_| self.pool.groups[0].pages.take().expect("room was made")));
        let codes = values(text);
        for (position, code) in codes.iter().enumerate() {
            self.cells[table.pages[position / PAGE_CELLS] as usize * PAGE_CELLS + position % PAGE_CELLS] = *code;
        }
        let place = self.pool.tree.insert(&mut self.pool.groups, salt, text, std::slice::from_ref(&table));
        assert_eq!(place.len, text.len());
        table.cut(&mut self.pool.groups[0].pages, 0);
        self.naive.0.insert((salt, codes));
    }

    /// Both find the same length, and the pages there hold the text.
    fn find(&mut self, salt: u64, text: &[Item], random: &mut Random) {
        let codes = values(text);
        let found = self.pool.tree.find(salt, text);
        assert_eq!(found.map_or(0, |place| place.len), self.naive.find(salt, &codes));
        let Some(Place { node, len }) = found else { return };
        let len = if random.once_in(2) { len } else { 1 + random.below(len) };
        let mut table = Table::default();
        self.pool.tree.share(&mut self.pool.groups, 0, Place { node, len }, &mut table);
        assert_eq!(table.pages.len(), pages_of(len));
        for (position, code) in codes[..len].iter().enumerate() {
            let cell = table.pages[position / PAGE_CELLS] as usize * PAGE_CELLS + position % PAGE_CELLS;
            assert_eq!(self.cells[cell], *code, "position {position} of {len}");
        }
        table.cut(&mut self.pool.groups[0].pages, 0);
        if random.once_in(4) {
            self.pool.tree.end_at(&mut self.pool.groups, found.expect("it was found"));
        }
        self.pool.tree.touch(node);
    }
}

#[test]
fn the_tree_finds_what_a_sorted_set_of_texts_finds() {
    let mut random = Random::new(1);
    let mut both = Both::new();
    let mut known: Vec<Vec<Item>> = Vec::new();
    for operation in 0..100_000 {
        let text = random.text(&known, 200);
        let salt = random.below(2) as u64;
        match random.below(8) {
            0 | 1 if !text.is_empty() => {
                both.insert(salt, &text);
                if known.len() < 20 {
                    known.push(text);
                } else {
                    let replaced = random.below(20);
                    known[replaced] = text;
                }
            }
            2 if both.pool.usage(0).evictable > 0 => both.evict(),
            _ => both.find(salt, &text, &mut random),
        }
        if operation % 200 == 0 {
            both.pool.check().unwrap_or_else(|e| panic!("operation {operation}: {e}"));
        }
    }
    while both.pool.usage(0).evictable > 0 {
        both.evict();
    }
    assert_eq!(both.pool.usage(0).free, Both::PAGES);
    assert!(both.naive.0.is_empty() && both.pool.tree.edges.is_empty());
}

#[test]
fn runs_split_and_grow_at_any_item() {
    let mut pool = pool(&[(None, 10)], 0, 0);
    for (text, nodes) in [(items(0, 100), 1), (items(0, 130), 1), (items(0, 70), 1)] {
        let seq = pool.open(Some(0), 0).unwrap();
        pool.reserve(seq, text.len()).unwrap();
        pool.commit(seq, &text);
        pool.publish(seq);
        pool.close(seq);
        assert_eq!(pool.tree.nodes.iter().count(), nodes, "{} items", text.len());
    }
    // The second text took the place of the first one's last page, and of the third nothing was kept.
    assert_eq!(pool.usage(0).evictable, 3);
    let seq = pool.open(Some(0), 0).unwrap();
    let other = [items(0, 77), items(1000, 10)].concat();
    assert_eq!(pool.adopt(seq, &other), 77);
    pool.reserve(seq, 10).unwrap();
    pool.commit(seq, &other[77..]);
    pool.publish(seq);
    assert_eq!(pool.tree.nodes.iter().count(), 3);
    pool.check().unwrap();
}
