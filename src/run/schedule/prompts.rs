//! Prompt rows: sharing out what a step may have among the prompts that run.

use super::scheduler::Scheduler;
use super::sequence::Running;

/// A prompt with at most this many rows left is short: it goes before longer ones.
const SHORT: usize = 64;

/// How many steps in a row short prompts may overtake longer ones.
const OVERTAKES: u32 = 4;

/// The fewest rows of a share: a tile of rows costs the same if it is not full.
const LEAST: usize = 16;

impl Scheduler {
    /// Grants up to `budget` prompt rows: the most urgent prompts first, short ones first within a priority. No long one gets
    /// more than half if another of its priority waits.
    pub(super) fn grant_prompts(&mut self, budget: usize) {
        self.sort_prompts();
        let draws = |running: &&Running| {
            running.granted > 0 && running.planned + running.granted >= running.sequence.items.len()
        };
        let drawing = self.running.iter().filter(draws);
        let mut outputs = self.settings.outputs.saturating_sub(drawing.count());
        let (mut left, half) = (budget, (budget / 2).max(LEAST));
        self.owed = 0;
        // What is left because of the halves goes to the first ones in the second round.
        for halves in [true, false] {
            for at in 0..self.order.len() {
                let (priority, long, urgency) = self.order[at];
                let waits = self.order[at + 1..].iter().any(|other| other.0 == priority);
                let most = if halves && long && waits { half.min(left) } else { left };
                let (stops, index) = (self.stops, self.index(urgency).expect("it runs"));
                let running = &mut self.running[index];
                let mut rows = (running.prompt_ready(stops) - running.granted).min(most);
                let end = running.planned + running.granted + rows;
                if rows > 0 && end == running.sequence.items.len() && running.draws() {
                    let needed = running.sequence.choices as usize;
                    if needed <= outputs {
                        outputs -= needed;
                    } else {
                        rows -= 1;
                        self.owed = self.owed.max(needed).min(self.settings.outputs);
                    }
                }
                running.granted += rows;
                left -= rows;
            }
        }
    }

    /// Lists the prompts that can have rows, in the order in which they get them.
    fn sort_prompts(&mut self) {
        let (stops, order) = (self.stops, &mut self.order);
        let ready = self.running.iter().filter(|running| running.prompt_ready(stops) > 0);
        let long = |running: &Running| running.sequence.prompt - running.planned > SHORT;
        order.clear();
        order.extend(ready.map(|running| (running.urgency().priority, long(running), running.urgency())));
        if order.is_sorted() || self.overtakes == OVERTAKES {
            self.overtakes = 0;
        } else {
            order.sort_unstable();
            self.overtakes += 1;
        }
    }
}
