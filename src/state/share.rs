//! Prefixes: keeping what was computed, finding it for other sequences, and taking a sequence back.

use super::error::Full;
use super::item::Item;
use super::pages::{PAGE_CELLS, pages_of};
use super::pool::{Pool, SeqId};
use super::slots::SlotCopy;
use super::snapshot::{Snapshot, keep_windows, share_window};
use super::tree::Place;

/// A place in the tree from which a sequence can continue.
#[derive(Debug, Clone, Copy)]
struct Hit {
    /// `len` may end before the run of `node` begins.
    place: Place,
    /// Index of the snapshot that windows and states come from, if there are any.
    snapshot: Option<usize>,
}

/// How a sequence is taken back.
#[derive(Debug, Clone, Copy)]
enum WayBack {
    /// To this length, with what it has. A slot is filled with zeros: it has no other state of its own.
    InPlace(usize),
    /// To a snapshot.
    Restore(Hit),
}

impl Pool {
    /// Whether layers forget: a group has a window, or sequences have slots. Then a prefix is found only up to a snapshot.
    pub fn needs_snapshots(&self) -> bool {
        self.slots.exist() || self.groups.iter().any(|group| group.window.is_some())
    }

    /// How many of `items` an empty sequence with this salt would have after [`Pool::adopt`].
    pub fn cached(&self, salt: u64, items: &[Item]) -> usize {
        self.find(salt, &items[..items.len().saturating_sub(1)]).map_or(0, |hit| hit.place.len)
    }

    /// Lets a sequence share what others have computed of `items`, its prompt; returns how many of them it has then. The last
    /// item is never shared: its row must be computed for its logits.
    ///
    /// A sequence that waits for another to compute a common prefix calls it again: it keeps the whole pages that it has, and
    /// shares those that follow. No step of the sequence may be in flight.
    pub fn adopt(&mut self, seq: SeqId, items: &[Item]) -> usize {
        let sequence = &self.sequences[seq.0];
        debug_assert!(items.starts_with(&sequence.items), "the prompt does not begin with what the sequence has");
        let wanted = &items[..items.len().saturating_sub(1)];
        if let Some(hit) = sequence.salt.and_then(|salt| self.find(salt, wanted))
            && hit.place.len > sequence.len()
        {
            self.restore(seq, hit);
            let sequence = &mut self.sequences[seq.0];
            sequence.items.extend_from_slice(&items[sequence.len()..hit.place.len]);
            sequence.writable = sequence.len();
        }
        self.len(seq)
    }

    /// Adds what is committed to the prefix tree, so that others may share it. Does nothing if layers forget (see
    /// [`Pool::snapshot`]), or if the sequence has no salt.
    ///
    /// If the tree has some of the items already, it keeps its own pages for them, and so does the sequence: what a sequence reads
    /// never changes while it runs. Such duplicates become free when it is closed.
    pub fn publish(&mut self, seq: SeqId) {
        let sequence = &self.sequences[seq.0];
        if let Some(salt) = sequence.salt.filter(|_| sequence.len() > 0 && !self.needs_snapshots()) {
            self.tree.insert(&mut self.groups, salt, &sequence.items, &sequence.tables);
        }
    }

    /// Adds what is committed to the prefix tree, with what layers that forget need to continue from here: the pages of windows,
    /// and a copy of the slot. Drops the least recently used snapshot if there are as many as there may be, or if it needs
    /// its slot. If sequences have slots, no step of this one may be in flight.
    ///
    /// Call it at points from which a conversation may continue or branch: at the ends of prompts and answers, and now and then
    /// within long prompts. If sequences have slots, also before a prompt's last item: only then is the same prompt found again.
    ///
    /// # Errors
    /// If open sequences have all slots; then nothing is added.
    pub fn snapshot(&mut self, seq: SeqId) -> Result<(), Full> {
        if !self.needs_snapshots() {
            self.publish(seq);
            return Ok(());
        }
        let sequence = &self.sequences[seq.0];
        let Some(salt) = sequence.salt.filter(|_| sequence.len() > 0 && self.snapshots.most > 0) else {
            return Ok(());
        };
        if let Some(place) = self.tree.find(salt, &sequence.items)
            && let Some(known) = self.snapshots.list.iter().position(|known| known.stands_at(place, sequence.len()))
        {
            self.tree.touch(place.node);
            self.snapshots.touch(known);
            return Ok(());
        }
        while self.snapshots.list.len() >= self.snapshots.most {
            self.drop_snapshot(0);
        }
        let slot = self.take_slot()?;
        let sequence = &self.sequences[seq.0];
        let place = self.tree.insert(&mut self.groups, salt, &sequence.items, &sequence.tables);
        let node = self.tree.end_at(&mut self.groups, place);
        self.tree.nodes[node].snapshot = true;
        let windows = keep_windows(&mut self.groups, sequence);
        self.slots.copies.extend(slot.map(|to| SlotCopy { from: sequence.slot, to }));
        self.snapshots.list.push(Snapshot { node, len: place.len, windows, slot });
        Ok(())
    }

    /// How many of its first `len` items a sequence would have after [`Pool::truncate`].
    pub fn restorable(&self, seq: SeqId, len: usize) -> usize {
        match self.way_back(seq, len) {
            WayBack::InPlace(len) => len,
            WayBack::Restore(hit) => hit.place.len,
        }
    }

    /// Takes a sequence back to its first `len` items. If layers have forgotten what they need to continue from there, takes it
    /// back further, to the last snapshot of these items, or to none of them. Returns how many items it has then; the caller
    /// computes the others again. No step of the sequence may be in flight.
    pub fn truncate(&mut self, seq: SeqId, len: usize) -> usize {
        match self.way_back(seq, len) {
            WayBack::InPlace(len) if len == self.len(seq) => {}
            WayBack::InPlace(len) => {
                let sequence = &mut self.sequences[seq.0];
                sequence.cut(&mut self.groups, len);
                self.slots.copies.extend(sequence.slot.map(|to| SlotCopy { from: None, to }));
            }
            WayBack::Restore(hit) => self.restore(seq, hit),
        }
        self.len(seq)
    }

    fn way_back(&self, seq: SeqId, len: usize) -> WayBack {
        let sequence = &self.sequences[seq.0];
        if len >= sequence.len() {
            return WayBack::InPlace(sequence.len());
        }
        if sequence.slot.is_none() && sequence.reaches(&self.groups, len) {
            return WayBack::InPlace(len);
        }
        let hit = sequence.salt.and_then(|salt| self.find(salt, &sequence.items[..len]));
        hit.map_or(WayBack::InPlace(0), WayBack::Restore)
    }

    /// The end of the longest beginning of `items` from which a sequence can continue.
    fn find(&self, salt: u64, items: &[Item]) -> Option<Hit> {
        let place = self.tree.find(salt, items)?;
        if !self.needs_snapshots() {
            return Some(Hit { place, snapshot: None });
        }
        let (snapshot, len) = self.snapshots.best(&self.tree, &self.groups, place)?;
        Some(Hit { place: Place { len, ..place }, snapshot: Some(snapshot) })
    }

    /// Gives a sequence the pages and the state at `hit`. In groups without a window it keeps its own pages: all of them up to
    /// the hit, or only whole ones if the hit reaches further. The caller adds the items that are new.
    fn restore(&mut self, seq: SeqId, hit: Hit) {
        let len = hit.place.len;
        let sequence = &mut self.sequences[seq.0];
        let own = if len <= sequence.len() { pages_of(len) } else { sequence.len() / PAGE_CELLS };
        for (g, table) in sequence.tables.iter_mut().enumerate() {
            match self.groups[g].window {
                None => {
                    table.cut(&mut self.groups[g].pages, own);
                    self.tree.share(&mut self.groups, g, hit.place, table);
                }
                Some(_) => {
                    let snapshot = hit.snapshot.expect("groups with windows need one");
                    table.cut(&mut self.groups[g].pages, 0);
                    share_window(&self.snapshots.list[snapshot].windows[g], &mut self.groups[g], len, table);
                }
            }
        }
        sequence.items.truncate(len);
        sequence.writable = sequence.len();
        self.tree.touch(hit.place.node);
        if let Some(snapshot) = hit.snapshot {
            let slots = self.snapshots.list[snapshot].slot.zip(sequence.slot);
            self.slots.copies.extend(slots.map(|(from, to)| SlotCopy { from: Some(from), to }));
            self.snapshots.touch(snapshot);
        }
    }
}
