//! When the pool leaves a worker out. A worker whose core another process uses is stopped in the middle of its work, for
//! milliseconds in which everyone waits. One that sleeps half of the time is within its share, and the system lets it work when
//! it wakes: so such a worker takes turns that end before its core is taken away, and rests between them.
//!
//! Measured on two cores with a busy neighbour on one (Linux 6.18, slices of 4 ms): answers at Q4_0 keep 56 % of their speed, 37 %
//! where the worker is always called; one thread alone makes 53 %, and three fair shares of two cores are 67 %.

use web_time::{Duration, Instant};

/// A worker that keeps the caller waiting for longer, and for longer than twice the caller's own share took, was stopped.
const LATE: Duration = Duration::from_micros(100);
/// Twice within this time is no accident.
const AGAIN: Duration = Duration::from_millis(20);
/// The first turn, a little less than systems give at a time, and the shortest.
const FIRST_TURN: Duration = Duration::from_millis(3);
const LEAST_TURN: Duration = Duration::from_micros(500);
/// Turns longer than this are not cut off by anyone: they double, until none is needed.
const SAFE_TURN: Duration = Duration::from_millis(5);
const MOST_TURN: Duration = Duration::from_millis(20);
/// The rest after a turn that was not cut off, and the longest after several that were.
const REST: Duration = Duration::from_micros(500);
const MOST_REST: Duration = Duration::from_millis(24);

/// What the caller knows of one worker.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// How long it works until it rests; `None` as long as its core is its own.
    turn: Option<Duration>,
    /// How long it rests.
    rest: Duration,
    /// When it began to work, since its last rest.
    began: Option<Instant>,
    /// It rests until then.
    until: Option<Instant>,
    /// When it was late the last time.
    late: Option<Instant>,
}

impl Backoff {
    /// Whether to call the worker.
    pub fn calls(&mut self, now: Instant) -> bool {
        if self.until.is_some_and(|until| now < until) {
            return false;
        }
        self.until = None;
        true
    }

    /// The worker may have taken part in a job that began at `start`: the caller did its share in `own` and then waited for
    /// the worker. Whether the worker shall sleep now.
    pub fn worked(&mut self, start: Instant, own: Duration, waited: Duration) -> bool {
        if self.until.is_some() {
            return false;
        }
        let end = start + own + waited;
        if waited > LATE + 2 * own {
            let before = self.late.replace(end);
            if self.turn.is_none() && before.is_none_or(|before| end - before > AGAIN) {
                return false;
            }
            self.turn = Some(self.turn.map_or(FIRST_TURN, |turn| (turn * 3 / 4).max(LEAST_TURN)));
            self.rest = (2 * self.rest).clamp(REST, MOST_REST);
            return self.sends_off(end);
        }
        let Some(turn) = self.turn else { return false };
        if end - *self.began.get_or_insert(start) < turn {
            return false;
        }
        self.rest = REST;
        let longer = if turn > SAFE_TURN { 2 * turn } else { turn + turn / 48 };
        self.turn = Some(longer).filter(|turn| *turn <= MOST_TURN);
        self.sends_off(end)
    }

    fn sends_off(&mut self, now: Instant) -> bool {
        (self.began, self.until) = (None, Some(now + self.rest));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_worker_that_is_stopped_again_and_again_rests_longer_each_time() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        assert!(backoff.calls(now) && !backoff.worked(now, MS, MS), "late, but not by much");
        assert!(backoff.calls(now) && !backoff.worked(now, MS / 10, 4 * MS), "late once");
        let mut rests = Vec::new();
        for _ in 0..8 {
            now += 5 * MS;
            assert!(backoff.calls(now) && backoff.worked(now, MS / 10, 4 * MS));
            let start = now + 4 * MS;
            now = start;
            while !backoff.calls(now) {
                now += MS / 10;
            }
            rests.push(now - start);
        }
        assert!(rests[0] >= REST && rests.is_sorted() && rests[7] > 5 * MS && rests[7] <= MOST_REST + MS, "{rests:?}");
    }

    #[test]
    fn turns_grow_until_none_is_needed() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        assert!(!backoff.worked(now, MS / 10, 4 * MS) && backoff.worked(now + 5 * MS, MS / 10, 4 * MS));
        let mut slept = 0;
        for _ in 0..10_000 {
            now += MS / 10;
            slept += usize::from(backoff.calls(now) && backoff.worked(now, MS / 10, MS / 100));
        }
        assert!(backoff.turn.is_none() && (5..50).contains(&slept), "{slept} rests");
    }
}
