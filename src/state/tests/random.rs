//! The whole pool against a naive model, under shortage: each sequence a plain vector of items, cells and states simulated.

use super::model::Simulation;
use super::*;

/// What is known of an open sequence without asking the pool.
struct Sequence {
    id: SeqId,
    salt: Option<u64>,
    items: Vec<Item>,
}

struct Run {
    simulation: Simulation,
    random: Random,
    open: Vec<Sequence>,
    /// Texts to make others from.
    known: Vec<Vec<Item>>,
    /// Whether there are windows or slots.
    forgets: bool,
    /// How often the pool was full, and how many cells were found.
    full: usize,
    found: usize,
}

/// The longest text.
const LONGEST: usize = 400;

impl Run {
    fn new(seed: u64, groups: &[(Option<usize>, usize)], slots: usize) -> Self {
        Run {
            simulation: Simulation::new(groups, slots, 5),
            random: Random::new(seed),
            open: Vec::new(),
            known: Vec::new(),
            forgets: slots > 0 || groups.iter().any(|(window, _)| window.is_some()),
            full: 0,
            found: 0,
        }
    }

    fn operate(&mut self) {
        if self.open.is_empty() || (self.open.len() < 8 && self.random.once_in(8)) {
            return self.open();
        }
        let i = self.random.below(self.open.len());
        match self.random.below(20) {
            0..=2 => self.adopt(i),
            3..=9 => self.write(i),
            10 => self.reserve(i),
            11 => self.fork(i),
            12 | 13 => self.truncate(i),
            14 | 15 => self.snapshot(i),
            16 => self.simulation.pool.publish(self.open[i].id),
            17 if self.random.once_in(40) => self.simulation.pool.forget_prefixes(),
            _ => self.close(i),
        }
    }

    fn verify(&mut self, i: usize) {
        self.simulation.verify(self.open[i].id, &self.open[i].items);
    }

    fn open(&mut self) {
        let salt = [None, Some(0), Some(0), Some(1)][self.random.below(4)];
        match self.simulation.pool.open(salt, 0) {
            Ok(id) => self.open.push(Sequence { id, salt, items: Vec::new() }),
            Err(_) => self.full += 1,
        }
    }

    fn adopt(&mut self, i: usize) {
        let sequence = &mut self.open[i];
        let mut prompt = self.random.text(&self.known, LONGEST);
        let same = common(&prompt, &sequence.items);
        if same < sequence.items.len() {
            prompt = sequence.items.clone();
        }
        let (pool, before) = (&mut self.simulation.pool, sequence.items.len());
        let expected = sequence.salt.map_or(0, |salt| pool.cached(salt, &prompt)).max(before);
        let len = pool.adopt(sequence.id, &prompt);
        assert_eq!(len, expected);
        assert!(len == before || len < prompt.len());
        self.found += len - before;
        sequence.items = prompt[..len].to_vec();
        self.verify(i);
    }

    /// Computes some items more, and commits them or not all of them.
    fn write(&mut self, i: usize) {
        let sequence = &mut self.open[i];
        let text = self.random.text(&self.known, LONGEST);
        let more = match common(&text, &sequence.items) {
            same if same == sequence.items.len() => text[same..].to_vec(),
            _ => (0..self.random.below(80)).map(|_| item(self.random.below(3) as u32)).collect(),
        };
        let spare = if self.random.once_in(3) { self.random.below(100) } else { 0 };
        if sequence.items.len() + more.len() + spare > LONGEST {
            return;
        }
        match self.simulation.pool.reserve(sequence.id, more.len() + spare) {
            Ok(()) => {
                self.simulation.compute(sequence.id, &more);
                sequence.items.extend(more);
            }
            Err(full) => {
                assert!(full.needed > full.free, "{full}");
                self.full += 1;
                if self.random.once_in(2) {
                    let victim = self.random.below(self.open.len());
                    return self.close(victim);
                }
            }
        }
        self.verify(i);
    }

    fn reserve(&mut self, i: usize) {
        let n = self.random.below(130);
        let (pool, id) = (&mut self.simulation.pool, self.open[i].id);
        let groups = 0..pool.groups.len();
        let before: Vec<_> = groups.clone().map(|group| pool.table(id, group).len()).collect();
        let reserved = pool.reserve(id, n).is_ok();
        let end = self.open[i].items.len() + n;
        for (group, before) in groups.zip(before) {
            let pages = pool.table(id, group).len();
            assert!(
                if reserved { pages * PAGE_CELLS >= end } else { pages == before },
                "{pages} pages for {end} cells"
            );
        }
        self.full += usize::from(!reserved);
        self.verify(i);
    }

    fn fork(&mut self, i: usize) {
        let Sequence { id, salt, items } = &self.open[i];
        let (salt, items) = (*salt, items.clone());
        match self.simulation.pool.fork(*id) {
            Ok(id) => self.open.push(Sequence { id, salt, items }),
            Err(_) => self.full += 1,
        }
        self.verify(i);
        self.verify(self.open.len() - 1);
    }

    fn truncate(&mut self, i: usize) {
        let sequence = &mut self.open[i];
        let before = sequence.items.len();
        let len = if self.random.once_in(2) { before.saturating_sub(1) } else { self.random.below(before + 1) };
        let expected = self.simulation.pool.restorable(sequence.id, len);
        let kept = self.simulation.pool.truncate(sequence.id, len);
        assert_eq!(kept, expected);
        assert!(kept <= len);
        assert!(kept == len || self.forgets, "{kept} of {len} items are left, before there were {before}");
        sequence.items.truncate(kept);
        self.verify(i);
    }

    fn snapshot(&mut self, i: usize) {
        let Sequence { id, salt, items } = &self.open[i];
        match self.simulation.pool.snapshot(*id) {
            Ok(()) => {
                let pool = &self.simulation.pool;
                let next = [&items[..], &[Item::Token(9)]].concat();
                assert!(salt.is_none_or(|salt| pool.cached(salt, &next) == items.len()));
                if self.known.len() < 12 {
                    self.known.push(items.clone());
                } else {
                    self.known[self.random.below(12)].clone_from(items);
                }
            }
            Err(_) => self.full += 1,
        }
        self.verify(i);
    }

    fn close(&mut self, i: usize) {
        self.simulation.pool.close(self.open.swap_remove(i).id);
    }

    fn run(mut self, operations: usize) {
        for operation in 0..operations {
            self.operate();
            if operation % 100 == 0 {
                self.simulation.check();
                (0..self.open.len()).for_each(|i| self.verify(i));
            }
        }
        assert!(self.full > 100 && self.found > 1000, "full {} times, found {} cells", self.full, self.found);
        (0..self.open.len()).rev().for_each(|i| self.close(i));
        self.simulation.check();
        self.simulation.pool.forget_prefixes();
        self.simulation.check();
        for group in 0..self.simulation.pool.groups.len() {
            let usage = self.simulation.pool.usage(group);
            assert_eq!((usage.free, usage.evictable), (usage.pages, 0), "pages of group {group} are lost");
        }
    }
}

#[test]
fn every_sequence_reads_its_own_items() {
    Run::new(1, &[(None, 24)], 0).run(100_000);
}

#[test]
fn every_sequence_reads_its_own_items_with_a_window() {
    Run::new(2, &[(None, 24), (Some(100), 18)], 0).run(100_000);
}

#[test]
fn every_sequence_reads_its_own_items_with_windows_only() {
    Run::new(3, &[(Some(64), 14), (Some(150), 20)], 0).run(100_000);
}

#[test]
fn every_sequence_reads_its_own_items_with_slots() {
    Run::new(4, &[(None, 24)], 9).run(100_000);
}

#[test]
fn every_sequence_has_its_own_state_with_slots_only() {
    Run::new(5, &[], 8).run(100_000);
}

#[test]
fn every_sequence_reads_its_own_items_with_windows_and_slots() {
    Run::new(6, &[(Some(90), 16), (None, 24), (None, 20)], 9).run(100_000);
}
