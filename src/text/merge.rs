//! Greedy pair merging, shared by SPM and BPE: join the best neighbours until no pair is left.
//!
//! n symbols cost O(n log n) time and O(n) memory whatever the text, since every merge removes a symbol and adds at
//! most two candidates; a list and a heap, no recursion.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// A piece of the text that is (so far) one token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// Byte offset in the text.
    pub start: u32,
    /// Length in bytes; 0 once it has been merged into its left neighbour.
    pub len: u32,
    /// Whatever [`Pairs`] tells symbols apart by.
    pub id: u32,
    prev: u32,
    next: u32,
}

impl Symbol {
    /// The bytes it covers.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.len) as usize
    }
}

/// Which pairs may merge.
pub(super) trait Pairs {
    /// The rank of the merge (lower merges first, ties from the left) and the merged symbol's id.
    fn pair(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)>;
}

/// A merge that was possible when it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    len: u32,
    id: u32,
}

/// The symbols of one word and the queue of their merges; reused from word to word.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Starts a new word.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol of `len` bytes that begins where the last one ends.
    /// The word must be shorter than 4 GiB.
    pub fn push(&mut self, len: usize, id: u32) {
        let at = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.start + last.len);
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        self.symbols.push(Symbol { start, len: len as u32, id, prev: at.wrapping_sub(1), next: NONE });
    }

    /// Merges until no pair is left.
    pub fn run(&mut self, text: &[u8], pairs: &impl Pairs) {
        for left in 1..self.symbols.len() as u32 {
            self.offer(text, pairs, left - 1, left);
        }
        while let Some(Reverse(best)) = self.queue.pop() {
            let left = self.symbols[best.left as usize];
            let Some(right) = self.symbols.get(left.next as usize).copied() else { continue };
            // Stale: one of the two has been merged elsewhere since. The boundary between them may have moved and the
            // text still be the same; then the pair counts if it merges into the same token, as in the `tokenizers` crate.
            if left.len == 0 || left.len + right.len != best.len {
                continue;
            }
            if pairs.pair(text, &left, &right).is_none_or(|(_, id)| id != best.id) {
                continue;
            }
            self.symbols[left.next as usize].len = 0;
            if let Some(after) = self.symbols.get_mut(right.next as usize) {
                after.prev = best.left;
            }
            let joined = Symbol { len: best.len, id: best.id, next: right.next, ..left };
            self.symbols[best.left as usize] = joined;
            self.offer(text, pairs, joined.prev, best.left);
            self.offer(text, pairs, best.left, joined.next);
        }
    }

    /// What is left of the word, in order.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.len > 0)
    }

    fn offer(&mut self, text: &[u8], pairs: &impl Pairs, left: u32, right: u32) {
        let (Some(l), Some(r)) = (self.symbols.get(left as usize), self.symbols.get(right as usize)) else { return };
        if let Some((rank, id)) = pairs.pair(text, l, r) {
            self.queue.push(Reverse(Candidate { rank, left, len: l.len + r.len, id }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges by the merged text's place in a list.
    struct Words<'a>(&'a [&'a str]);

    impl Pairs for Words<'_> {
        fn pair(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
            let joined = &text[left.range().start..right.range().end];
            let rank = self.0.iter().position(|word| word.as_bytes() == joined)? as u32;
            Some((rank, rank))
        }
    }

    fn split<'a>(words: &[&str], text: &'a str) -> Vec<&'a str> {
        let mut merger = Merger::default();
        text.bytes().for_each(|_| merger.push(1, NONE));
        merger.run(text.as_bytes(), &Words(words));
        merger.symbols().map(|symbol| &text[symbol.range()]).collect()
    }

    #[test]
    fn best_rank_first_then_leftmost() {
        assert_eq!(split(&["bc", "ab", "abc"], "abc"), ["abc"]);
        assert_eq!(split(&["bc", "ab"], "abc"), ["a", "bc"]);
        assert_eq!(split(&["aa"], "aaaaa"), ["aa", "aa", "a"]);
        assert_eq!(split(&[], "ab"), ["a", "b"]);
        assert_eq!(split(&["ab"], ""), [""; 0]);
    }

    #[test]
    fn the_queue_never_holds_more_than_three_candidates_a_symbol() {
        let words: Vec<String> = (1..12).map(|n| "a".repeat(1 << n)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let text = "a".repeat(4096);
        let mut merger = Merger::default();
        text.bytes().for_each(|_| merger.push(1, NONE));
        merger.run(text.as_bytes(), &Words(&words));
        assert_eq!(merger.symbols().count(), 2);
        assert!(merger.queue.capacity() <= 3 * 4096, "{}", merger.queue.capacity());
    }
}
