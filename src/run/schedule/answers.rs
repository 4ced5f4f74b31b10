//! Answer rows: one for every sequence that decodes, in turns if there are too many.

use super::scheduler::Scheduler;
use super::sequence::Running;
use crate::base::Role;

impl Scheduler {
    /// Grants answer rows: one to each sequence that has a token to feed; what is left, to those that compute again what was
    /// drawn before. Returns how many prompt rows the step may have besides.
    pub(super) fn grant_answers(&mut self) -> usize {
        let (context, stops) = (self.settings.context, self.stops);
        let ready = |running: &Running| running.answers_ready(context, stops);
        let count = self.running.iter().filter(|running| ready(running) > 0).count();
        let most = self.settings.answer_rows.min(self.settings.outputs - self.owed);
        let after = self.turn.take().filter(|_| count > most);
        let start = after.map_or(0, |last| self.running.partition_point(|running| running.urgency() <= last));
        let mut left = most;
        for index in (start..self.running.len()).chain(0..start) {
            let running = &mut self.running[index];
            if left > 0 && ready(running) > 0 {
                running.granted = 1;
                left -= 1;
                self.turn = Some(running.urgency()).filter(|_| count > most);
            }
        }
        // Rows that are computed again cost others time as prompt rows do.
        let mut budget = self.prompt_budget();
        for running in self.running.iter_mut().filter(|running| running.granted > 0 && running.catches_up()) {
            let more = (ready(running) - 1).min(left).min(budget);
            running.granted += more;
            left -= more;
            budget -= more;
        }
        budget
    }

    /// The most prompt rows of the next step: all there may be, unless somebody waits for a token.
    fn prompt_budget(&self) -> usize {
        let decodes = |running: &Running| running.role() == Role::Answer && !running.catches_up();
        match self.running.iter().any(decodes) {
            true => self.rates.budget(self.settings.step_time, self.settings.prompt_rows),
            false => self.settings.prompt_rows,
        }
    }
}
