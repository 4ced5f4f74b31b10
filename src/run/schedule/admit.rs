//! Admission: who may run besides those that do, and who waits for another that computes the same prompt.

use super::event::{Event, FinishReason};
use super::scheduler::Scheduler;
use super::sequence::{Leader, Running, Sequence};
use crate::state::{GroupSpec, PAGE_CELLS};

/// One of so many pages is left free when a sequence is admitted.
const FREE_PART: usize = 50;

/// Tokens of an answer that there is memory for from the beginning, in the books of a sequence.
const EXPECTED: usize = 2048;

impl Scheduler {
    /// Lets waiting sequences run, the most urgent first, until one does not fit.
    pub(super) fn admit(&mut self) {
        while self.running.len() < self.settings.sequences {
            let first = self.waiting.keys().next().copied();
            let available = self.available();
            let blocked = |urgency| self.blocked.is_some_and(|(first, then)| urgency == first && available <= then);
            let Some(urgency) = first.filter(|urgency| !blocked(*urgency)) else { return };
            if let Some(sequence) = self.waiting.remove(&urgency)
                && let Err(sequence) = self.open(sequence)
            {
                self.waiting.insert(urgency, sequence);
                if self.running.is_empty() {
                    self.finish(urgency, FinishReason::Failed);
                } else {
                    self.blocked = Some((urgency, available));
                    return;
                }
            }
        }
    }

    /// Opens a sequence in the pool and lets it run, or returns it: there is no slot for it, or others need the pages.
    fn open(&mut self, mut sequence: Sequence) -> Result<(), Sequence> {
        let answer = (sequence.limit - sequence.drawn()).min(EXPECTED);
        sequence.items.reserve_exact(answer);
        let expected = (sequence.items.len() + answer).min(self.settings.context);
        let Ok(seq) = self.pool.open(sequence.salt, expected) else { return Err(sequence) };
        let cached = self.pool.adopt(seq, sequence.shareable());
        let running = Running::new(sequence, seq, cached, self.next_admission());
        let leader = self.leader(&running);
        self.try_run(Running { leader, ..running })
    }

    /// Lets a sequence run that is open in the pool, or closes it there and returns it. The first one runs in any case.
    pub(super) fn try_run(&mut self, running: Running) -> Result<(), Sequence> {
        if !self.running.is_empty() && !self.fits(&running) {
            self.pool.close(running.seq);
            return Err(running.sequence);
        }
        self.events.push(Event::Admitted { choice: running.urgency().id, cached: running.computed });
        running.leader.into_iter().for_each(|leader| self.branch(leader));
        self.insert(running);
        Ok(())
    }

    /// Whether there are pages for all that is known of the running sequences and of a new one, and one more for each.
    fn fits(&self, new: &Running) -> bool {
        self.spec.groups.iter().enumerate().all(|(group, spec)| {
            let window = spec.window.map(|window| GroupSpec::window_pages(window, self.settings.prompt_rows));
            let missing = |running: &Running| running.missing_pages(self.pool.table(running.seq, group).len(), window);
            let missing: usize = self.running.iter().chain([new]).map(missing).sum();
            let usage = self.pool.usage(group);
            usage.free + usage.evictable > missing + self.running.len() + usage.pages / FREE_PART
        })
    }

    /// Pages that are free or can be made so, of all groups.
    fn available(&self) -> usize {
        let usage = (0..self.spec.groups.len()).map(|group| self.pool.usage(group));
        usage.map(|usage| usage.free + usage.evictable).sum()
    }

    /// Whom a sequence should wait for: a running one, as urgent as it at least, that is computing a beginning that both have.
    fn leader(&self, new: &Running) -> Option<Leader> {
        let salt = new.sequence.salt?;
        let leads = |other: &&Running| {
            let urgent = other.urgency().priority <= new.urgency().priority;
            urgent && other.sequence.salt == Some(salt) && other.admission < new.admission
        };
        let shared = |other: &Running| {
            // The last item is never shared.
            let most = other.sequence.prompt.min(new.sequence.shareable().len() - 1);
            let until = new.sequence.common(&other.sequence, most);
            let computes = other.computed >= new.computed && other.computed < until;
            // If layers forget, nothing is shared from a place that has rows in flight already.
            let in_time = self.stops.is_none() || other.planned < until;
            let worth_it = until >= new.computed + PAGE_CELLS;
            (computes && in_time && worth_it).then_some(Leader { urgency: other.urgency(), until })
        };
        self.running.iter().filter(leads).filter_map(shared).max_by_key(|leader| leader.until)
    }

    /// Has a snapshot taken where a sequence branches off from its leader. The one at the end of the prompt also reaches the
    /// item before, unless there are states.
    fn branch(&mut self, leader: Leader) {
        if let Some(stops) = self.stops
            && let Some(index) = self.index(leader.urgency)
            && (stops.states || leader.until + 1 < self.running[index].sequence.prompt)
        {
            self.running[index].junctions.push(leader.until);
        }
    }

    /// Lets those go on whose leader has computed what they share, or does not run any more.
    pub(super) fn follow(&mut self) {
        for index in 0..self.running.len() {
            let running = &self.running[index];
            if running.leader.is_none_or(|leader| self.computes(leader, running.admission)) {
                continue;
            }
            let running = &mut self.running[index];
            running.computed = self.pool.adopt(running.seq, running.sequence.shareable());
            running.planned = running.computed;
            self.events.push(Event::Shared { choice: running.urgency().id, cached: running.computed });
            let next = self.leader(&self.running[index]);
            self.running[index].leader = next;
            next.into_iter().for_each(|leader| self.branch(leader));
        }
    }

    /// Whether a leader is still on its way for the sequence with this admission.
    fn computes(&self, leader: Leader, admission: u64) -> bool {
        let found = self.index(leader.urgency).map(|index| &self.running[index]);
        found.is_some_and(|found| found.admission < admission && found.computed < leader.until)
    }
}
