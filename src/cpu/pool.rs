//! Threads for fork-join work that comes hundreds of times per token.
//!
//! Workers spin for a while after each job, then yield, then sleep: a decoded token is some 300 jobs with microseconds
//! between them, and waking a sleeping thread costs more than most jobs. Measured on two cores of an AMD Zen 5: 0.2–0.5 µs
//! per fork-join while warm, against 14–28 µs for a work-stealing pool after a serial gap.
//!
//! A worker that has not come when the work is done is not waited for, and one whose core another process uses is left out
//! now and then (`backoff`): the system stops it for milliseconds, wherever it is.
#![allow(unsafe_code)]

use super::backoff::Backoff;
use crate::ops::Threads;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use web_time::Instant;

/// Spins before a waiting thread begins to yield its core.
const SPINS: usize = 2_000;
/// Yields before a waiting worker goes to sleep: about a millisecond.
const YIELDS: usize = 2_000;

type Job = *const (dyn Fn(usize) + Sync);

/// The job of the current round. The pointer is only read by workers that took a call, until they report.
struct Slot(std::cell::UnsafeCell<Option<Job>>);
// SAFETY: the slot is written by the owner only while no seat is called or busy, and read by a worker only between taking
// its call, which was stored with Release after the write, and reporting.
unsafe impl Sync for Slot {}
// SAFETY: the pointer is to a `Sync` closure that outlives the round; see `ThreadPool::round`.
unsafe impl Send for Slot {}

/// The worker waits for a call.
const IDLE: u8 = 0;
/// The same, asleep or about to be: a call must wake it.
const ASLEEP: u8 = 1;
/// There is a job for it, which it has not taken yet.
const CALLED: u8 = 2;
/// It has taken the call, and is at the job until it stores another state.
const BUSY: u8 = 3;

/// Where the owner and one worker meet. The owner calls, takes the call back, and sends to sleep; the worker takes the call,
/// reports, and falls asleep. In a cache line of its own (two, for processors that fetch pairs).
#[repr(align(128))]
struct Seat(AtomicU8);

impl Seat {
    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Waits until the worker is called, and takes the call: spins, then yields, then sleeps. False at the pool's end.
    fn take(&self, stop: &AtomicBool) -> bool {
        let mut tries = 0;
        while !stop.load(Ordering::Relaxed) {
            match self.0.load(Ordering::Relaxed) {
                CALLED if self.change(CALLED, BUSY) => return true,
                // Whoever ends this state unparks, and an unpark that comes before the park is not lost.
                ASLEEP => {
                    std::thread::park();
                    tries = 0;
                }
                _ => pause(&mut tries),
            }
            if tries > SPINS + YIELDS {
                self.change(IDLE, ASLEEP);
            }
        }
        false
    }
}

struct Shared {
    job: Slot,
    seats: Box<[Seat]>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// Threads; the one that calls [`Threads::run`] takes part.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    // One job at a time: a second caller waits its turn.
    turn: Mutex<Vec<Backoff>>,
}

impl ThreadPool {
    /// A pool of `threads`, at least one. Workers end when the pool is dropped.
    pub fn new(threads: usize) -> Self {
        Self::of(threads, work)
    }

    fn of(threads: usize, work: fn(&Shared, usize)) -> Self {
        let others = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            job: Slot(std::cell::UnsafeCell::new(None)),
            seats: (0..others).map(|_| Seat(AtomicU8::new(IDLE))).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("wgpu-llm-{}", i + 1));
            builder.spawn(move || work(&shared, i)).ok()
        };
        // Where threads cannot be had (wasm, a full process table) the threads is just smaller.
        let workers: Vec<_> = (0..others).map_while(spawn).collect();
        let turn = Mutex::new(workers.iter().map(|_| Backoff::default()).collect());
        ThreadPool { shared, workers, turn }
    }

    /// A pool as large as the machine has cores.
    pub fn per_core() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }

    /// Runs `f` on the caller and on workers: on `all`, or on those that come while there is work.
    fn round(&self, f: &(dyn Fn(usize) + Sync), all: bool) {
        if self.workers.is_empty() {
            return f(0);
        }
        let mut turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers read the pointer only after they took a call of this round, and `Round`
        // below keeps this frame alive, panic or not, until each call is taken back or its worker has reported.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: this thread has `turn`, and the round before it left no seat called or busy, so no worker reads the slot.
        unsafe { *shared.job.0.get() = Some(job) };
        let round = Round { shared, backoff: &mut turn, all, start: Instant::now() };
        for (i, (worker, seat)) in self.workers.iter().zip(&shared.seats).enumerate() {
            // Release: whoever takes the call sees the job.
            if (all || round.backoff[i].calls(round.start)) && seat.0.swap(CALLED, Ordering::Release) == ASLEEP {
                worker.thread().unpark();
            }
        }
        f(0);
        drop(round);
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a worker of the pool panicked; its message stands above"
        );
    }
}

impl Threads for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        self.round(f, true);
    }

    fn share(&self, f: &(dyn Fn(usize) + Sync)) {
        self.round(f, false);
    }
}

/// A job that workers may be at. When dropped, also while a panic unwinds, it takes back the calls that nobody has taken, unless
/// `all` must come, and waits for the other workers.
struct Round<'a> {
    shared: &'a Shared,
    backoff: &'a mut [Backoff],
    all: bool,
    start: Instant,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        let own = Instant::now();
        let mut now = own;
        for (seat, backoff) in self.shared.seats.iter().zip(&mut *self.backoff) {
            if !self.all && seat.change(CALLED, IDLE) {
                continue;
            }
            let (mut tries, before) = (0, now);
            // Acquire: what the worker wrote is visible to the caller.
            while matches!(seat.0.load(Ordering::Acquire), CALLED | BUSY) {
                pause(&mut tries);
            }
            if tries > 0 {
                now = Instant::now();
            }
            if !self.all && backoff.worked(self.start, own - self.start, now - before) {
                seat.change(IDLE, ASLEEP);
            }
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join();
        }
    }
}

fn pause(tries: &mut usize) {
    *tries += 1;
    if *tries < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

fn work(shared: &Shared, index: usize) {
    let seat = &shared.seats[index];
    while seat.take(&shared.stop) {
        // SAFETY: the call was taken with Acquire, so the job written before it is visible; it can no longer be taken back, so
        // the closure lives until this worker reports below.
        let job = unsafe { &*(*shared.job.0.get()).expect("a round has a job") };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index + 1))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        seat.0.store(IDLE, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{for_chunks, for_each, for_ranges, share_out_alike};
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_thread_runs_each_job_once() {
        let pool = ThreadPool::new(4);
        let runs = [const { AtomicUsize::new(0) }; 4];
        for _ in 0..1000 {
            pool.run(&|i| {
                runs[i].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(runs.iter().all(|r| r.load(Ordering::Relaxed) == 1000));
    }

    #[test]
    fn chunks_cover_the_data_and_sleepers_wake() {
        let pool = ThreadPool::new(3);
        let mut data = vec![0u32; 1001];
        for round in 1..=3 {
            for_chunks(&pool, &mut data, 10, |i, chunk| chunk.iter_mut().for_each(|v| *v += i as u32));
            assert!(data.iter().enumerate().all(|(i, v)| *v == round * (i as u32 / 10)));
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        let sum = AtomicUsize::new(0);
        for_each(&pool, 100, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 4950);
    }

    #[test]
    fn every_part_is_handed_out_once_however_it_is_cut() {
        let pool = ThreadPool::new(3);
        for (len, chunk) in [(0, 4), (1, 4), (2, 1), (7, 3), (8, 4), (100, 1), (1001, 10), (5, 0)] {
            let mut data = vec![0u32; len];
            for_chunks(&pool, &mut data, chunk, |i, part| part.iter_mut().for_each(|v| *v += 1 + i as u32));
            assert!(data.iter().enumerate().all(|(i, v)| *v == 1 + (i / chunk.max(1)) as u32), "{len} by {chunk}");
            // Every third value belongs to no range.
            let ranges = (0..len / 3).map(|i| 3 * i..3 * i + 2);
            for_ranges(&pool, &mut data, ranges, |i, part| part.fill(u32::MAX - i as u32));
            let filled = |i: usize| i % 3 < 2 && i / 3 < len / 3;
            assert!(data.iter().enumerate().all(|(i, v)| filled(i) == (*v == u32::MAX - (i / 3) as u32)), "{len}");
            data.fill(0);
            share_out_alike(&pool, data.iter_mut(), |v| *v += 1);
            assert!(data.iter().all(|v| *v == 1), "{len}");
        }
    }

    #[test]
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(2);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(&|i| assert!(i == 0, "worker {i} fails on purpose"));
        }));
        assert!(caught.is_err());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.share(&|i| assert!(i != 0, "the caller fails on purpose"));
        }));
        assert!(caught.is_err());
        pool.run(&|_| {});
    }

    #[test]
    fn a_worker_that_never_comes_is_not_waited_for() {
        let pool = ThreadPool::of(3, |_, _| ());
        let sum = AtomicUsize::new(0);
        for _ in 0..100 {
            for_each(&pool, 100, |i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 100 * 4950);
        assert!(pool.shared.seats.iter().all(|seat| seat.0.load(Ordering::Relaxed) == IDLE));
    }

    #[test]
    fn shared_work_is_done_once_whoever_comes() {
        let pool = ThreadPool::new(4);
        for round in 0..2000 {
            let done = [const { AtomicUsize::new(0) }; 37];
            for_each(&pool, done.len(), |i| {
                done[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(done.iter().all(|d| d.load(Ordering::Relaxed) == 1), "round {round}");
            if round % 500 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(30));
            }
        }
    }
}
