//! Too few pages: who gives way; and how sequences end.

use super::event::{Event, FinishReason};
use super::scheduler::Scheduler;
use super::sequence::Sequence;
use super::sequence::Urgency;
use crate::state::{Full, PAGE_CELLS};

/// A sequence that gave way this often does so no more, as long as there are others.
const MOST_PREEMPTIONS: u32 = 3;

impl Scheduler {
    /// Reserves cells for the rows that a sequence was granted. If pages are short, it gets fewer rows; if not even one has
    /// room, the least urgent sequence is preempted, which may be itself. Alone, it ends.
    pub(super) fn secure(&mut self, urgency: Urgency) {
        let mut forgot = false;
        while let Some(index) = self.index(urgency) {
            let alone = self.running.len() == 1;
            let running = &mut self.running[index];
            let rows = running.planned - running.computed + running.granted;
            let Err(full) = self.pool.reserve(running.seq, rows) else { return };
            let fewer = fitting(full, running.granted);
            if fewer > 0 {
                running.granted = fewer;
            } else if !alone {
                self.preempt(self.victim());
            } else if running.in_flight() {
                // It may end with a token that is being drawn.
                running.granted = 0;
                return;
            } else if !forgot {
                // Only the tree may hold what it needs: a page that it shares must be copied before it is written.
                self.pool.forget_prefixes();
                forgot = true;
            } else {
                self.finish(urgency, FinishReason::Context);
            }
        }
    }

    /// Whom to preempt: the least urgent, the youngest of equals; one that gave way too often only if all did.
    fn victim(&self) -> usize {
        let gives_way = self.running.iter().rposition(|running| running.sequence.preemptions < MOST_PREEMPTIONS);
        gives_way.unwrap_or(self.running.len() - 1)
    }

    /// Lets a running sequence wait again. What it computed stays in the tree until the pages are needed; what was drawn for it
    /// is kept, and what is being drawn will be.
    fn preempt(&mut self, index: usize) {
        let mut sequence = self.close(index, true);
        sequence.preemptions += 1;
        self.preemptions += 1;
        self.events.push(Event::Preempted { choice: sequence.urgency.id });
        self.waiting.insert(sequence.urgency, sequence);
    }

    /// Closes a running sequence in the pool. If layers have states, a row in flight has changed the state already, and it cannot
    /// be kept.
    fn close(&mut self, index: usize, keep: bool) -> Sequence {
        let running = self.running.remove(index);
        let spoiled = running.in_flight() && self.stops.is_some_and(|stops| stops.states);
        // Its prompt is kept already.
        let private = running.computed > running.sequence.prompt && !running.sequence.cache_answer;
        if keep && !spoiled && !private {
            // Without a slot for it, the prefix is not kept.
            let _ = self.pool.snapshot(running.seq);
        }
        self.pool.close(running.seq);
        self.blocked = None;
        running.sequence
    }

    /// Ends a sequence, running or waiting.
    pub(super) fn finish(&mut self, urgency: Urgency, reason: FinishReason) {
        let sequence = match self.index(urgency) {
            Some(index) => Some(self.close(index, reason != FinishReason::Failed)),
            None => self.waiting.remove(&urgency),
        };
        sequence.into_iter().for_each(|sequence| report(&mut self.events, &sequence, reason));
    }

    /// Ends all sequences that a condition holds for; returns whether there were any.
    pub(super) fn finish_all(&mut self, reason: FinishReason, ends: impl Fn(&Sequence) -> bool) -> bool {
        let before = self.running.len() + self.waiting.len();
        while let Some(running) = self.running.iter().find(|running| ends(&running.sequence)) {
            self.finish(running.urgency(), reason);
        }
        let events = &mut self.events;
        self.waiting.retain(|_, sequence| {
            let goes = ends(sequence);
            if goes {
                report(events, sequence, reason);
            }
            !goes
        });
        before > self.running.len() + self.waiting.len()
    }
}

/// How many of `rows` have room in the pages that there are.
fn fitting(full: Full, rows: usize) -> usize {
    rows.saturating_sub((full.needed - full.free) * PAGE_CELLS)
}

/// Reports the end of all choices that a sequence stands for.
fn report(events: &mut Vec<Event>, sequence: &Sequence, reason: FinishReason) {
    let (first, tokens) = (sequence.urgency.id, sequence.drawn());
    for choice in first.choice..first.choice + sequence.choices {
        events.push(Event::Finished { choice: super::ChoiceId { choice, ..first }, reason, tokens });
    }
}
