//! A backend made of arrays: cells remember which items they were computed from, slots all items of their sequence.

use super::*;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a cell or a state is after one item more: all items before it count, as they do in a model.
fn after(before: u64, item: Item) -> u64 {
    let mut hasher = DefaultHasher::new();
    (before, item).hash(&mut hasher);
    hasher.finish()
}

/// The value after each item of a text.
pub(super) fn values(items: &[Item]) -> Vec<u64> {
    let step = |before: &mut u64, item: &Item| {
        *before = after(*before, *item);
        Some(*before)
    };
    items.iter().scan(0, step).collect()
}

/// A pool with the tensors it keeps the books of.
pub(super) struct Simulation {
    pub pool: Pool,
    windows: Vec<Option<usize>>,
    /// By group and cell.
    cells: Vec<Vec<u64>>,
    /// By slot.
    states: Vec<u64>,
    /// Cells and slots that were copied.
    pub copied: usize,
}

impl Simulation {
    pub fn new(groups: &[(Option<usize>, usize)], slots: usize, snapshots: usize) -> Self {
        let cells = groups.iter().map(|(_, pages)| vec![0; (pages + 1) * PAGE_CELLS]).collect();
        let windows = groups.iter().map(|(window, _)| *window).collect();
        // No state of a sequence: slots must be filled with zeros first.
        let states = vec![!0; slots];
        Simulation { pool: pool(groups, slots, snapshots), windows, cells, states, copied: 0 }
    }

    /// What the backend does before a step.
    pub fn copy(&mut self) {
        for copy in self.pool.drain_page_copies() {
            let (from, to) = (copy.from as usize * PAGE_CELLS, copy.to as usize * PAGE_CELLS);
            self.cells[copy.group].copy_within(from..from + copy.cells, to);
            self.copied += copy.cells;
        }
        for copy in self.pool.drain_slot_copies() {
            self.states[copy.to as usize] = copy.from.map_or(0, |from| self.states[from as usize]);
            self.copied += 1;
        }
    }

    /// A step: computes items in cells that are reserved, and commits them.
    pub fn compute(&mut self, seq: SeqId, items: &[Item]) {
        self.copy();
        let start = self.pool.len(seq);
        let mut value = values(self.pool.items(seq)).last().copied().unwrap_or(0);
        if let Some(slot) = self.pool.slot(seq) {
            assert_eq!(self.states[slot as usize], value, "the state before the step");
        }
        for (i, item) in items.iter().enumerate() {
            value = after(value, *item);
            for group in 0..self.cells.len() {
                let cell = self.cell(seq, group, start + i);
                self.cells[group][cell] = value;
            }
        }
        if let Some(slot) = self.pool.slot(seq) {
            self.states[slot as usize] = value;
        }
        self.pool.commit(seq, items);
        // Steps that run ahead also write what is reserved behind.
        for group in 0..self.cells.len() {
            for position in self.pool.len(seq)..self.pool.sequences[seq.0].writable {
                let cell = self.cell(seq, group, position);
                self.cells[group][cell] = !0;
            }
        }
    }

    /// Reserves and computes.
    pub fn write(&mut self, seq: SeqId, items: &[Item]) -> Result<(), Full> {
        self.pool.reserve(seq, items.len())?;
        self.compute(seq, items);
        Ok(())
    }

    fn cell(&self, seq: SeqId, group: usize, position: usize) -> usize {
        let page = self.pool.table(seq, group)[position / PAGE_CELLS];
        assert_ne!(page, NULL_PAGE, "position {position} of group {group} is gone");
        page as usize * PAGE_CELLS + position % PAGE_CELLS
    }

    /// The sequence has these items, and what the next row reads was computed from them.
    pub fn verify(&mut self, seq: SeqId, items: &[Item]) {
        self.copy();
        assert_eq!(self.pool.items(seq), items);
        let values = values(items);
        for group in 0..self.cells.len() {
            let first = self.windows[group].map_or(0, |window| (items.len() + 1).saturating_sub(window));
            for (position, value) in values.iter().enumerate().skip(first) {
                let cell = self.cells[group][self.cell(seq, group, position)];
                assert_eq!(cell, *value, "position {position} of {} in group {group}", items.len());
            }
        }
        if let Some(slot) = self.pool.slot(seq) {
            assert_eq!(self.states[slot as usize], values.last().copied().unwrap_or(0), "state");
        }
    }

    /// The books agree with themselves.
    pub fn check(&self) {
        self.pool.check().unwrap_or_else(|e| panic!("{e}"));
    }
}
