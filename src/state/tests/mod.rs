//! The pool beside naive models of it: random operations with fixed seeds, and the cases that people ask about.

mod model;
mod prefixes;
mod random;
mod recurrent;
mod resume;
mod sharing;
mod tree;
mod windows;

use super::*;
use crate::base::uniform;

/// Random numbers, the same in every run.
struct Random {
    seed: u64,
    step: u64,
}

impl Random {
    fn new(seed: u64) -> Self {
        Random { seed, step: 0 }
    }

    /// One of `0..n`.
    fn below(&mut self, n: usize) -> usize {
        self.step += 1;
        (uniform(self.seed, self.step) * n as f32) as usize
    }

    /// True once in `n` times.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A text like those before it: the beginning of one of them, and some more items out of few.
    fn text(&mut self, known: &[Vec<Item>], longest: usize) -> Vec<Item> {
        let mut text = match known.len() {
            0 => Vec::new(),
            n => known[self.below(n)].clone(),
        };
        if !text.is_empty() && !self.once_in(4) {
            text.truncate(self.below(text.len() + 1));
        }
        let more = if self.once_in(2) { self.below(12) } else { self.below(longest) };
        text.extend((0..more).map(|_| item(self.below(3) as u32)));
        text.truncate(longest);
        text
    }
}

/// An item for a number: a row of a medium for every third.
fn item(code: u32) -> Item {
    if code % 3 == 2 { Item::Media { hash: code.into(), row: code } } else { Item::Token(code) }
}

/// Items that no other call with another `first` has.
fn items(first: u32, n: usize) -> Vec<Item> {
    (0..n as u32).map(|i| Item::Token(first + i)).collect()
}

/// How many items two texts begin with alike.
fn common(a: &[Item], b: &[Item]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A pool with groups of a window and pages that can be handed out.
fn pool(groups: &[(Option<usize>, usize)], slots: usize, snapshots: usize) -> Pool {
    let group = |(window, pages): &(Option<usize>, usize)| GroupSpec { window: *window, pages: pages + 1 };
    Pool::new(&PoolSpec { groups: groups.iter().map(group).collect(), slots, snapshots })
}
