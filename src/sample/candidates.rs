//! The tokens still in the running, with their logits and probabilities.
//!
//! Order matters twice: truncating stages need the best first, and the draw walks the list. Sorting a vocabulary of
//! 256,000 for a top-k of 40 would cost more than the rest of the sampler, so only a prefix is ever put in order, and
//! it grows as stages ask for more of it.

use super::math::exp;
use crate::base::{Error, ErrorKind, Result};
use std::cmp::Ordering;

/// One token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Token id.
    pub id: u32,
    /// Logit; never NaN, never +inf; -inf is a banned token.
    pub logit: f32,
    /// Probability, as of the last softmax.
    pub p: f32,
}

/// The tokens still in the running.
#[derive(Debug, Default)]
pub struct Candidates {
    items: Vec<Candidate>,
    /// Memory of the longer or shorter list that was in use before, kept for the next.
    spare: Vec<Candidate>,
    /// Length of the prefix that is in final order and not below anything behind it.
    ordered: usize,
    /// `items[i].id == i`: nothing has been moved or removed.
    by_id: bool,
    /// Index of the token that a drawing stage chose.
    selected: Option<usize>,
}

/// Higher logit first; of equal ones the lower id, so that no result depends on how a sort treats ties.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// The candidates of `logits`, by id.
fn candidates_of(logits: &[f32]) -> impl ExactSizeIterator<Item = Candidate> {
    logits.iter().enumerate().map(|(id, &logit)| Candidate { id: id as u32, logit, p: 0.0 })
}

impl Candidates {
    /// All tokens of `logits`, whose index is the token id. Fails like [`Candidates::load`].
    pub fn new(logits: &[f32]) -> Result<Self> {
        let mut all = Candidates::default();
        all.load(logits)?;
        Ok(all)
    }

    /// Replaces the contents by all tokens of `logits` `[vocab]`, reusing the memory.
    /// Fails with [`ErrorKind::Numeric`] if a logit is NaN or +inf, or none is finite.
    pub fn load(&mut self, logits: &[f32]) -> Result<()> {
        check(logits)?;
        if self.items.capacity() < logits.len() {
            std::mem::swap(&mut self.items, &mut self.spare);
        }
        self.items.clear();
        self.items.extend(candidates_of(logits));
        (self.ordered, self.by_id, self.selected) = (0, true, None);
        Ok(())
    }

    /// Like [`Candidates::load`] then [`Candidates::keep_top`], without ever holding the whole vocabulary.
    pub fn load_top(&mut self, logits: &[f32], k: usize) -> Result<()> {
        check(logits)?;
        self.selected = None;
        self.collect_top(k, candidates_of(logits));
        Ok(())
    }

    /// Replaces the contents by the best `k` of `all`, in order. What is not above the worst of the best so far is
    /// passed over, and that is nearly everything.
    fn collect_top(&mut self, k: usize, all: impl ExactSizeIterator<Item = Candidate>) {
        let k = k.max(1).min(all.len());
        let room = 2 * k + 64;
        self.items.clear();
        self.items.reserve(room.min(all.len()));
        // None yet: nothing is below this one, and no id above it.
        let mut worst = Candidate { id: u32::MAX, logit: f32::NEG_INFINITY, p: 0.0 };
        for c in all {
            if c.logit < worst.logit || c.logit == worst.logit && c.id > worst.id {
                continue;
            }
            self.items.push(c);
            if self.items.len() == room {
                self.items.select_nth_unstable_by(k - 1, order);
                self.items.truncate(k);
                worst = self.items[k - 1];
            }
        }
        (self.ordered, self.by_id) = (0, false);
        self.order_top(k);
        self.truncate(k);
    }

    /// The candidates in their present order: best first after most stages, by id before any.
    pub fn as_slice(&self) -> &[Candidate] {
        &self.items
    }

    /// Number of candidates, banned ones included.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Probability of token `id` as of the last softmax; 0 where it is out of the running.
    pub fn probability(&self, id: u32) -> f32 {
        self.items.iter().find(|c| c.id == id).map_or(0.0, |c| c.p)
    }

    /// The token that a drawing stage chose.
    pub fn selected(&self) -> Option<Candidate> {
        self.selected.map(|i| self.items[i])
    }

    /// Index of that token in the present order.
    pub(super) fn selected_index(&self) -> Option<usize> {
        self.selected
    }

    /// Chooses the token at `index` of the present order.
    pub fn select(&mut self, index: usize) {
        assert!(index < self.items.len(), "candidate {index} of {}", self.items.len());
        self.selected = Some(index);
    }

    /// Highest logit; -inf where every token is banned.
    pub fn max_logit(&self) -> f32 {
        match self.ordered {
            0 => self.items.iter().fold(f32::NEG_INFINITY, |max, c| max.max(c.logit)),
            _ => self.items[0].logit,
        }
    }

    /// Sets every `p` to its share of Σ exp(logit). All are 0 if every token is banned.
    pub fn softmax(&mut self) {
        let max = self.max_logit();
        if max == f32::NEG_INFINITY {
            self.items.iter_mut().for_each(|c| c.p = 0.0);
            return;
        }
        // f64: over a large vocabulary a sum in f32 loses the tail.
        let mut sum = 0.0;
        for c in &mut self.items {
            let e = exp(c.logit as f64 - max as f64);
            c.p = e as f32;
            sum += e;
        }
        for c in &mut self.items {
            c.p = (c.p as f64 / sum) as f32;
        }
    }

    /// Puts the best `n` (or all there are) in order at the front: descending logit, ties by ascending id.
    pub fn order_top(&mut self, n: usize) {
        let n = n.min(self.items.len());
        if n <= self.ordered {
            return;
        }
        let rest = &mut self.items[self.ordered..];
        let wanted = n - self.ordered;
        if wanted < rest.len() {
            rest.select_nth_unstable_by(wanted - 1, order);
        }
        rest[..wanted].sort_unstable_by(order);
        (self.ordered, self.by_id) = (n, false);
    }

    /// Keeps the best `n`, in order; at least one.
    pub fn keep_top(&mut self, n: usize) {
        let n = n.max(1);
        if n.saturating_mul(8) >= self.items.len() || n <= self.ordered {
            self.order_top(n);
            return self.truncate(n);
        }
        // A few of many: one pass that compares costs less than a selection that moves all of them about.
        let all = std::mem::replace(&mut self.items, std::mem::take(&mut self.spare));
        self.collect_top(n, all.iter().copied());
        self.spare = all;
    }

    /// Drops all behind the first `n` of the present order.
    pub fn truncate(&mut self, n: usize) {
        self.by_id &= n >= self.items.len();
        self.items.truncate(n);
        self.ordered = self.ordered.min(n);
    }

    /// Drops the first `n` of the present order.
    pub fn drop_first(&mut self, n: usize) {
        self.items.drain(..n);
        self.ordered = self.ordered.saturating_sub(n);
        self.by_id &= n == 0;
    }

    /// Keeps those whose logit is at least `floor`, but never fewer than the best `min_keep` or the best one.
    pub fn keep_logits_from(&mut self, floor: f32, min_keep: usize) {
        let count = self.items.iter().filter(|c| c.logit >= floor).count();
        if count < min_keep.max(1) {
            return self.keep_top(min_keep);
        }
        if self.ordered == self.items.len() {
            return self.truncate(count);
        }
        if count < self.items.len() {
            self.by_id = false;
            // The prefix holds the best, so those of it that stay are the first to stay.
            self.ordered = self.ordered.min(count);
            self.items.retain(|c| c.logit >= floor);
        }
    }

    /// Keeps those at `indices` of the present order; `indices` ascend.
    pub fn keep_indices(&mut self, indices: &[u32]) {
        let kept_of_prefix = indices.partition_point(|&i| (i as usize) < self.ordered);
        for (to, &from) in indices.iter().enumerate() {
            self.items[to] = self.items[from as usize];
        }
        self.items.truncate(indices.len());
        (self.ordered, self.by_id) = (kept_of_prefix, false);
    }

    /// Gives every logit a new value that keeps the order: a division, a mask from some rank on.
    pub fn map_in_order(&mut self, f: impl Fn(f32) -> f32) {
        self.items.iter_mut().for_each(|c| c.logit = f(c.logit).min(f32::MAX));
    }

    /// Gives every logit a new value.
    pub fn map(&mut self, f: impl Fn(&Candidate) -> f32) {
        self.items.iter_mut().for_each(|c| c.logit = f(c).min(f32::MAX));
        self.ordered = 0;
    }

    /// Gives the tokens `ids`, distinct, new logits `f(id, logit)`; those out of the running are passed over.
    /// `named` tells whether an id is in `ids`: after a reordering it costs less to ask for each candidate.
    pub fn map_ids(&mut self, ids: &[u32], named: impl Fn(u32) -> bool, mut f: impl FnMut(u32, f32) -> f32) {
        // A sum beyond f32 would be +inf, and inf - inf a NaN in the softmax.
        let mut set = |c: &mut Candidate| c.logit = f(c.id, c.logit).min(f32::MAX);
        if self.by_id {
            for &id in ids {
                self.items.get_mut(id as usize).map(&mut set);
            }
        } else {
            self.items.iter_mut().filter(|c| named(c.id)).for_each(set);
        }
        self.ordered = 0;
    }
}

/// Logits that can be sampled from: no NaN, no +inf, not all -inf.
fn check(logits: &[f32]) -> Result<()> {
    // By the bits: a compiler told that floats are finite may drop `is_nan`, but not integer operations.
    const EXPONENT: u32 = 0x7f80_0000;
    const BANNED: u32 = f32::NEG_INFINITY.to_bits();
    let poisoned = |bits: u32| bits & EXPONENT == EXPONENT && bits != BANNED;
    // No early exit, so that the loop vectorizes; the place is looked for only if there is one.
    let (mut bad, mut finite) = (false, false);
    for logit in logits {
        let bits = logit.to_bits();
        bad |= poisoned(bits);
        finite |= bits & EXPONENT != EXPONENT;
    }
    let what = if bad {
        let at = logits.iter().position(|l| poisoned(l.to_bits())).expect("seen above");
        format!("the logit of token {at} is {}", logits[at])
    } else if !finite {
        format!("none of the {} logits is finite", logits.len())
    } else {
        return Ok(());
    };
    let help = "the model's output is broken: check the file, and the device with `wgpu-llm doctor`";
    Err(Error::new(ErrorKind::Numeric, what).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(c: &Candidates) -> Vec<u32> {
        c.as_slice().iter().map(|c| c.id).collect()
    }

    #[test]
    fn ties_go_to_the_lower_id() {
        let logits = [1.0, 2.0, -0.0, 2.0, 0.0, 1.0];
        let mut c = Candidates::new(&logits).unwrap();
        c.order_top(3);
        assert_eq!(ids(&c)[..3], [1, 3, 0]);
        c.order_top(6);
        assert_eq!(ids(&c), [1, 3, 0, 5, 2, 4]);
    }

    #[test]
    fn all_ways_to_the_top_k_agree() {
        // Few distinct values over many tokens: ties everywhere, also across the k-th place.
        let logits: Vec<f32> = (0..5000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as f32 / 8.0).collect();
        for k in [1, 2, 31, 32, 33, 100, 2499, 2500, 4999, 5000, 9000] {
            let mut all = Candidates::new(&logits).unwrap();
            all.order_top(k);
            all.truncate(k);
            let mut loaded = Candidates::default();
            loaded.load_top(&logits, k).unwrap();
            let mut kept = Candidates::new(&logits).unwrap();
            kept.order_top(k / 3);
            kept.keep_top(k);
            assert_eq!((ids(&all), ids(&all)), (ids(&loaded), ids(&kept)), "k = {k}");
        }
    }

    #[test]
    fn fewer_finite_logits_than_asked_for() {
        let mut logits = vec![f32::NEG_INFINITY; 500];
        logits[499] = 1.0;
        let mut c = Candidates::default();
        c.load_top(&logits, 3).unwrap();
        assert_eq!(ids(&c), [499, 0, 1]);
        c.softmax();
        assert_eq!((c.probability(499), c.probability(0)), (1.0, 0.0));
    }

    #[test]
    fn keeping_by_floor_keeps_the_best_whatever_the_order() {
        let logits = [0.0, 5.0, 3.0, 4.0, 1.0];
        for prefix in 0..=5 {
            let mut c = Candidates::new(&logits).unwrap();
            c.order_top(prefix);
            c.keep_logits_from(3.0, 1);
            c.order_top(3);
            assert_eq!(ids(&c), [1, 3, 2], "prefix {prefix}");
            c.keep_logits_from(100.0, 2);
            assert_eq!(ids(&c), [1, 3]);
        }
    }

    #[test]
    fn editing_finds_tokens_before_and_after_a_reordering() {
        let changes: [fn(&mut Candidates); 4] = [|_| (), |c| c.order_top(2), |c| c.keep_top(3), |c| c.drop_first(1)];
        for change in changes {
            let mut c = Candidates::new(&[0.0, 1.0, 2.0, 3.0]).unwrap();
            change(&mut c);
            c.map_ids(&[0, 2, 9], |id| [0, 2, 9].contains(&id), |id, logit| logit + 10.0 * (id + 1) as f32);
            c.order_top(4);
            assert_eq!(ids(&c)[0], 2);
            assert_eq!(c.max_logit(), 32.0);
        }
    }

    #[test]
    fn poison_is_named() {
        for (bad, name) in [(f32::NAN, "NaN"), (-f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            let mut logits = vec![0.5; 300];
            logits[271] = bad;
            for result in
                [Candidates::new(&logits), Candidates::default().load_top(&logits, 3).map(|_| Candidates::default())]
            {
                let e = result.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Numeric);
                assert!(e.to_string().contains("token 271") && e.to_string().contains(name), "{e}");
            }
        }
        let e = Candidates::new(&[f32::NEG_INFINITY; 4]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Numeric);
        assert!(Candidates::new(&[]).is_err());
    }
}
