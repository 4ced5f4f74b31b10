//! A sequence, as the scheduler knows it: waiting or running.

use super::request::{ChoiceId, Sampling};
use crate::base::Role;
use crate::state::{Item, PAGE_CELLS, SeqId};
use std::time::Duration;

/// The order in which sequences are served, the first ones first. No two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Urgency {
    pub priority: i32,
    pub id: ChoiceId,
}

/// What is known of a sequence without the device: enough to compute it again.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub urgency: Urgency,
    /// The prompt, then the tokens that were drawn.
    pub items: Vec<Item>,
    /// How many of the items are the prompt's: their rows are prompt rows, all others answer rows.
    pub prompt: usize,
    /// How many choices begin at the end of the prompt; 1 once they have begun.
    pub choices: u32,
    /// The most tokens that are drawn.
    pub limit: usize,
    pub deadline: Option<Duration>,
    pub salt: Option<u64>,
    /// Whether its answer is shared with others.
    pub cache_answer: bool,
    pub sampling: Sampling,
    /// How often others took its pages.
    pub preemptions: u32,
}

impl Sequence {
    /// Tokens that were drawn.
    pub fn drawn(&self) -> usize {
        self.items.len() - self.prompt
    }

    /// The items that others may have computed for it, and one more: the last is never shared.
    pub fn shareable(&self) -> &[Item] {
        let end = if self.cache_answer { self.items.len() } else { self.items.len().min(self.prompt + 1) };
        &self.items[..end]
    }

    /// Whether it stands for this choice.
    pub fn is_of(&self, id: ChoiceId) -> bool {
        let own = self.urgency.id;
        own.request == id.request && (own.choice..own.choice + self.choices).contains(&id.choice)
    }

    /// How many items it has in common with another, at most `len`.
    pub fn common(&self, other: &Sequence, len: usize) -> usize {
        self.items.iter().zip(&other.items).take(len).take_while(|(a, b)| a == b).count()
    }
}

/// Waiting for another sequence that computes the same beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leader {
    pub urgency: Urgency,
    /// Items that both have in common.
    pub until: usize,
}

/// A sequence that is open in the pool.
#[derive(Debug)]
pub(super) struct Running {
    pub sequence: Sequence,
    pub seq: SeqId,
    /// Committed items. Those from here to `planned` are in flight.
    pub computed: usize,
    /// Items that have a row in this step or one before. One more than are known, while the device draws the last.
    pub planned: usize,
    /// Rows that it gets in the step that is being planned.
    pub granted: usize,
    /// Index among the outputs of the step before, if that one draws for it.
    pub output: usize,
    /// Whom it waits for.
    pub leader: Option<Leader>,
    /// Places in the prompt at which others branch off.
    pub junctions: Vec<usize>,
    /// Number among all that ever ran: whom it waits for has a lower one.
    pub admission: u64,
}

impl Running {
    pub fn new(sequence: Sequence, seq: SeqId, computed: usize, admission: u64) -> Self {
        let (planned, granted, output, leader, junctions) = (computed, 0, 0, None, Vec::new());
        Running { sequence, seq, computed, planned, granted, output, leader, junctions, admission }
    }

    pub fn urgency(&self) -> Urgency {
        self.sequence.urgency
    }

    /// The role of its next row.
    pub fn role(&self) -> Role {
        if self.planned < self.sequence.prompt { Role::Prompt } else { Role::Answer }
    }

    /// Whether rows are computed whose outcome is not known.
    pub fn in_flight(&self) -> bool {
        self.planned > self.computed
    }

    /// Whether the row of the last known item draws a token.
    pub fn draws(&self) -> bool {
        self.sequence.drawn() < self.sequence.limit
    }

    /// How many answer rows it can have in the next step: the tokens that are known, or the one that the device draws.
    pub fn answers_ready(&self, context: usize, stops: Option<Stops>) -> usize {
        let sequence = &self.sequence;
        if self.role() == Role::Prompt || self.waits_for_snapshot(stops) {
            return 0;
        }
        match sequence.items.len().saturating_sub(self.planned) {
            0 => {
                let device = sequence.sampling == Sampling::Device && sequence.choices == 1;
                let drawing = self.in_flight() && self.planned == sequence.items.len();
                let wanted = sequence.drawn() + 1 < sequence.limit && self.planned < context;
                usize::from(device && drawing && wanted)
            }
            known => known,
        }
    }

    /// Whether the next answer row is of a token that was drawn before and whose successor is known too: it computes again.
    pub fn catches_up(&self) -> bool {
        self.planned + 1 < self.sequence.items.len()
    }

    /// How many prompt rows it can have in the next step. If layers forget, pieces end where a snapshot is due.
    pub fn prompt_ready(&self, stops: Option<Stops>) -> usize {
        if self.role() == Role::Answer || self.leader.is_some() || self.waits_for_snapshot(stops) {
            return 0;
        }
        stops.map_or(self.sequence.prompt, |stops| self.next_stop(stops, self.planned)) - self.planned
    }

    /// Whether a snapshot of its state is due, and the rows before are in flight: those behind would change the state.
    fn waits_for_snapshot(&self, stops: Option<Stops>) -> bool {
        let states = stops.is_some_and(|stops| stops.states);
        states && self.in_flight() && self.is_stop(stops, self.planned)
    }

    /// Whether a snapshot is due after `len` items.
    pub fn is_stop(&self, stops: Option<Stops>, len: usize) -> bool {
        let inside = (1..=self.sequence.prompt).contains(&len);
        inside && stops.is_some_and(|stops| self.next_stop(stops, len - 1) == len)
    }

    /// The first place behind `len` where a snapshot is due, at most the prompt's end.
    fn next_stop(&self, stops: Stops, len: usize) -> usize {
        let prompt = self.sequence.prompt;
        let grid = len.checked_div(stops.interval).map_or(prompt, |n| (n + 1).saturating_mul(stops.interval));
        // A state is found only at its own length, and the last item is never shared.
        let before_last = if stops.states { prompt - 1 } else { prompt };
        let places = self.junctions.iter().copied().chain([grid, before_last]);
        places.filter(|place| *place > len).min().unwrap_or(prompt).min(prompt)
    }

    /// Pages to take until all known items and one more are computed, in a group with a table of `table` pages, of which steps
    /// need at most `window` at a time.
    pub fn missing_pages(&self, table: usize, window: Option<usize>) -> usize {
        let shared = self.leader.map_or(0, |leader| leader.until / PAGE_CELLS);
        let pages = (self.sequence.items.len() + 1).div_ceil(PAGE_CELLS);
        let missing = pages.saturating_sub(table.max(shared));
        window.map_or(missing, |window| missing.min(window))
    }
}

/// Where snapshots are taken in prompts, if layers forget.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stops {
    /// Items between them; 0: none within.
    pub interval: usize,
    /// Whether sequences have slots.
    pub states: bool,
}
