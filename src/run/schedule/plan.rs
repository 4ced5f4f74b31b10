//! Planning a step: who gets rows, whether there are pages for them, and writing it down.

use super::scheduler::Scheduler;
use super::sequence::{Running, Urgency};
use super::step::{AnswerRow, Output, Piece, Step, TokenSource};
use crate::base::Role;
use crate::state::Item;
use std::time::Duration;

/// The most steps that are planned and not done: one that is computed, and one that is submitted behind it.
pub(super) const IN_FLIGHT: usize = 2;

impl Scheduler {
    /// Plans the next step; returns whether there is one: [`Scheduler::newest`]. `now` is the time by the caller's clock, from
    /// any beginning; deadlines are compared with it.
    ///
    /// There is none if nothing runs and nothing waits, if all that could go on needs an outcome of the step before, or if two
    /// steps are in flight. Allocates nothing while the same sequences decode.
    pub fn plan(&mut self, now: Duration) -> bool {
        self.expire(now);
        if self.flight.len() >= IN_FLIGHT {
            return false;
        }
        // If the only ones that had rows were preempted, others have room now.
        for _ in 0..=self.running.len() + self.waiting.len() {
            self.grant();
            if self.running.iter().any(|running| running.granted > 0) {
                self.write();
                return true;
            }
            if !self.flight.is_empty() || self.is_idle() {
                break;
            }
        }
        false
    }

    /// Shares out the rows of the step among the running sequences, and reserves cells for them. Pages go to answers first, and
    /// only what is left to new sequences.
    fn grant(&mut self) {
        let preemptions = self.preemptions;
        self.running.iter_mut().for_each(|running| running.granted = 0);
        let prompt_rows = self.grant_answers();
        self.secure_all(Role::Answer);
        if self.preemptions == preemptions {
            self.admit();
        }
        self.follow();
        self.grant_prompts(prompt_rows);
        self.secure_all(Role::Prompt);
    }

    /// Reserves cells for all rows of a role, for the most urgent first.
    fn secure_all(&mut self, role: Role) {
        let mut last: Option<Urgency> = None;
        let next = |running: &&Running, last: Option<Urgency>| {
            running.granted > 0 && running.role() == role && last.is_none_or(|last| running.urgency() > last)
        };
        while let Some(urgency) = self.running.iter().find(|running| next(running, last)).map(Running::urgency) {
            self.secure(urgency);
            last = Some(urgency);
        }
    }

    /// Writes the granted rows down as a step in flight.
    fn write(&mut self) {
        let mut step = self.spare.pop().unwrap_or_default();
        step.clear();
        step.number = self.next_step();
        step.page_copies.extend(self.pool.drain_page_copies());
        step.slot_copies.extend(self.pool.drain_slot_copies());
        let granted = |role: Role| move |running: &&mut Running| running.granted > 0 && running.role() == role;
        self.running.iter_mut().filter(granted(Role::Answer)).for_each(|running| write_answers(&mut step, running));
        self.running.iter_mut().filter(granted(Role::Prompt)).for_each(|running| write_piece(&mut step, running));
        self.flight.push_back(step);
    }
}

/// Adds the answer rows of a sequence. The last one draws, unless the next token is known.
fn write_answers(step: &mut Step, running: &mut Running) {
    let (choice, seq, priority) = (running.urgency().id, running.seq, running.urgency().priority);
    for position in running.planned..running.planned + running.granted {
        let token = match running.sequence.items.get(position) {
            Some(Item::Token(token)) => TokenSource::Host(*token),
            Some(Item::Media { .. }) => unreachable!("answers are tokens"),
            None => TokenSource::Device { output: running.output },
        };
        step.answers.push(AnswerRow { choice, seq, position, token, priority });
    }
    running.planned += running.granted;
    running.granted = 0;
    if running.planned >= running.sequence.items.len() {
        let index = running.planned - running.sequence.prompt;
        let (row, sampling) = (step.answers.len() - 1, running.sequence.sampling);
        running.output = step.outputs.len();
        step.outputs.push(Output { choice, row, index, sampling, priority });
    }
}

/// Adds a piece of a prompt. The prompt's last row draws the first token of every choice, unless that is known.
fn write_piece(step: &mut Step, running: &mut Running) {
    let (choice, seq, priority) = (running.urgency().id, running.seq, running.urgency().priority);
    let positions = running.planned..running.planned + running.granted;
    let first = step.prompt_items.len();
    step.prompt_items.extend_from_slice(&running.sequence.items[positions.clone()]);
    running.planned = positions.end;
    running.granted = 0;
    step.pieces.push(Piece { choice, seq, positions, items: first..step.prompt_items.len(), priority });
    if running.planned == running.sequence.items.len() && running.draws() {
        let (row, sampling) = (step.rows() - 1, running.sequence.sampling);
        running.output = step.outputs.len();
        for more in 0..running.sequence.choices {
            let choice = super::ChoiceId { choice: choice.choice + more, ..choice };
            step.outputs.push(Output { choice, row, index: 0, sampling, priority });
        }
    }
}
