//! What came of a step: committing its rows, handing on its tokens, and letting choices begin.

use super::event::{Event, FinishReason, Outcome};
use super::request::ChoiceId;
use super::scheduler::Scheduler;
use super::sequence::{Running, Urgency};
use super::step::{Output, Piece, Step, StepError};
use crate::state::{Item, PAGE_CELLS, SeqId};
use std::time::Duration;

impl Scheduler {
    /// Ends the oldest step in flight, by its number, with an outcome for each of its outputs, in their order. `took` is the time
    /// of the step alone, without the one before; zero if it is not known.
    ///
    /// Outcomes of choices that have ended in the meantime are ignored.
    ///
    /// # Errors
    /// If the step is not the oldest in flight, or the number of outcomes is wrong.
    pub fn done(&mut self, number: u64, took: Duration, outcomes: &[Outcome]) -> Result<(), StepError> {
        let oldest = self.flight.front().filter(|step| step.number == number);
        let outputs = oldest.ok_or(StepError::NotOldest { number })?.outputs.len();
        if outputs != outcomes.len() {
            return Err(StepError::Outcomes { outputs, given: outcomes.len() });
        }
        let Some(step) = self.flight.pop_front() else { return Ok(()) };
        self.rates.measure(&step, took);
        self.commit(&step);
        for (output, outcome) in step.outputs.iter().zip(outcomes) {
            self.apply(output, *outcome);
        }
        step.pieces.iter().for_each(|piece| self.publish(piece));
        self.spare.push(step);
        Ok(())
    }

    /// Commits all rows of sequences that still run.
    fn commit(&mut self, step: &Step) {
        for row in &step.answers {
            self.commit_rows(urgency(row.priority, row.choice), row.seq, row.position + 1);
        }
        for piece in &step.pieces {
            self.commit_rows(urgency(piece.priority, piece.choice), piece.seq, piece.positions.end);
        }
    }

    fn commit_rows(&mut self, urgency: Urgency, seq: SeqId, end: usize) {
        if let Some(running) = find(&mut self.running, urgency, seq) {
            self.pool.commit(seq, &running.sequence.items[running.computed..end]);
            running.computed = end;
        }
    }

    /// Hands on what was drawn, if the choice has not ended.
    fn apply(&mut self, output: &Output, outcome: Outcome) {
        let urgency = urgency(output.priority, output.choice);
        self.begin_choices(urgency);
        let context = self.settings.context;
        let Some(sequence) = self.sequence(urgency) else { return };
        let finish = match outcome {
            Outcome::Token(token) | Outcome::Last(token) => {
                let index = sequence.drawn();
                sequence.items.push(Item::Token(token));
                let finish = match outcome {
                    Outcome::Last(_) => Some(FinishReason::Stop),
                    _ if sequence.drawn() >= sequence.limit => Some(FinishReason::Limit),
                    _ if sequence.items.len() > context => Some(FinishReason::Context),
                    _ => None,
                };
                self.events.push(Event::Token { choice: output.choice, index, token });
                finish
            }
            Outcome::End => Some(FinishReason::Stop),
            Outcome::Failed => Some(FinishReason::Failed),
        };
        finish.into_iter().for_each(|reason| self.finish(urgency, reason));
    }

    /// Lets the choices begin that a sequence stands for, at the end of its prompt: as forks, which wait if there is no room.
    fn begin_choices(&mut self, urgency: Urgency) {
        let Some(trunk) = self.sequence(urgency).filter(|trunk| trunk.choices > 1) else { return };
        let choices = std::mem::replace(&mut trunk.choices, 1);
        let trunk = trunk.clone();
        let seq = self.index(urgency).map(|index| self.running[index].seq);
        for choice in 1..choices {
            let mut child = trunk.clone();
            child.urgency.id.choice = choice;
            let room = self.running.len() < self.settings.sequences;
            let waits = match seq.filter(|_| room).and_then(|seq| self.pool.fork(seq).ok()) {
                Some(fork) => {
                    let running = Running::new(child, fork, trunk.prompt, self.next_admission());
                    self.try_run(running).err()
                }
                None => Some(child),
            };
            waits.into_iter().for_each(|child| drop(self.waiting.insert(child.urgency, child)));
        }
    }

    /// Lets others share what a piece computed of a prompt, if its sequence still runs. A prompt that draws nothing ends.
    fn publish(&mut self, piece: &Piece) {
        let (urgency, stops) = (urgency(piece.priority, piece.choice), self.stops);
        let Some(running) = find(&mut self.running, urgency, piece.seq) else { return };
        let (start, end) = (piece.positions.start, piece.positions.end);
        if running.is_stop(stops, end) {
            // Without a slot for it, the prefix is not kept.
            let _ = self.pool.snapshot(piece.seq);
        } else if stops.is_none() && (end == running.sequence.prompt || start / PAGE_CELLS < end / PAGE_CELLS) {
            self.pool.publish(piece.seq);
        }
        if end == running.sequence.prompt {
            // What waits may find it, and need fewer pages.
            self.blocked = None;
            if running.sequence.limit == 0 {
                self.finish(urgency, FinishReason::Limit);
            }
        }
    }
}

fn urgency(priority: i32, id: ChoiceId) -> Urgency {
    Urgency { priority, id }
}

/// A running sequence, unless it was closed since.
fn find(running: &mut [Running], urgency: Urgency, seq: SeqId) -> Option<&mut Running> {
    let index = running.binary_search_by_key(&urgency, Running::urgency).ok()?;
    running.get_mut(index).filter(|running| running.seq == seq)
}
