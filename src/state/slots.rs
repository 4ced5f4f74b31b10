//! Slots: state of a fixed size per sequence, as recurrent layers have it.

/// The slot that is never handed out: padding rows write there.
pub const NULL_SLOT: u32 = 0;

/// A slot that the backend has to write before the next step, for every layer with such state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotCopy {
    /// The slot to copy from; `None`: fill with zeros.
    pub from: Option<u32>,
    /// The slot to write.
    pub to: u32,
}

/// Which slots are free, and the copies that are to be done.
#[derive(Debug)]
pub(super) struct Slots {
    total: usize,
    free: Vec<u32>,
    pub copies: Vec<SlotCopy>,
}

impl Slots {
    /// `total` slots, the null slot among them; 0 if no layer has state per sequence.
    pub fn new(total: usize) -> Self {
        Slots { total, free: (1..total as u32).rev().collect(), copies: Vec::new() }
    }

    /// Whether sequences have state at all.
    pub fn exist(&self) -> bool {
        self.total > 0
    }

    /// Slots that nobody has.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Hands out a free slot.
    pub fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Takes a slot back.
    pub fn give(&mut self, slot: u32) {
        self.free.push(slot);
    }

    /// Compares the books with the slots that are held.
    pub fn check(&self, mut held: Vec<u32>) -> Result<(), String> {
        held.extend(&self.free);
        held.sort_unstable();
        if held.iter().copied().eq(1..self.total as u32) {
            Ok(())
        } else {
            Err(format!("slots held or free: {held:?}"))
        }
    }
}
