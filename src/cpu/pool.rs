//! A team of threads for fork-join work that comes hundreds of times per token.
//!
//! Workers spin for a while after each job, then yield, then sleep: a decoded token is some 300 jobs with microseconds
//! between them, and waking a sleeping thread costs more than most jobs. Measured on two cores of an AMD Zen 5: 0.2–0.5 µs
//! per fork-join while warm, against 14–28 µs for a work-stealing pool after a serial gap.
#![allow(unsafe_code)]

use crate::ops::Pool;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Spins before a waiting thread begins to yield its core.
const SPINS: usize = 2_000;
/// Yields before a waiting worker goes to sleep: about a millisecond.
const YIELDS: usize = 2_000;

type Job = *const (dyn Fn(usize) + Sync);

/// The job of the current round. The pointer is only read between the start of a round and the last worker's report.
struct Slot(std::cell::UnsafeCell<Option<Job>>);
// SAFETY: the slot is written by the owner only while no worker is in a round (all have reported), and read by workers
// only after they saw the new round number, which is stored with Release after the write.
unsafe impl Sync for Slot {}
// SAFETY: the pointer is to a `Sync` closure that outlives the round; see `run`.
unsafe impl Send for Slot {}

struct Shared {
    job: Slot,
    round: AtomicUsize,
    busy: AtomicUsize,
    sleepers: Mutex<usize>,
    wake: Condvar,
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// A team of threads; the one that calls [`Pool::run`] takes part.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    // One job at a time: a second caller waits its turn.
    turn: Mutex<()>,
}

impl ThreadPool {
    /// A team of `threads`, at least one. Workers end when the pool is dropped.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            job: Slot(std::cell::UnsafeCell::new(None)),
            round: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            let builder = std::thread::Builder::new().name(format!("wgpu-llm-{i}"));
            builder.spawn(move || work(&shared, i)).ok()
        };
        // Where threads cannot be had (wasm, a full process table) the team is just smaller.
        let workers = (1..threads.max(1)).map_while(spawn).collect();
        ThreadPool { shared, workers, turn: Mutex::new(()) }
    }

    /// A team as large as the machine has cores.
    pub fn per_core() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, |n| n.get()))
    }
}

impl Pool for ThreadPool {
    fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            return f(0);
        }
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Workers read the pointer only in this round, and `Wait` below keeps this
        // frame alive, panic or not, until every worker has reported.
        let job: Job = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: `busy` is 0, so no worker reads the slot now.
        unsafe { *shared.job.0.get() = Some(job) };
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.round.fetch_add(1, Ordering::Release);
        if *shared.sleepers.lock().unwrap_or_else(|e| e.into_inner()) > 0 {
            shared.wake.notify_all();
        }
        let wait = Wait(shared);
        f(0);
        drop(wait);
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a worker of the pool panicked; its message stands above"
        );
    }
}

/// Waits for the workers when dropped, also while a panic unwinds.
struct Wait<'a>(&'a Shared);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut tries = 0;
        while self.0.busy.load(Ordering::Acquire) != 0 {
            pause(&mut tries);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.round.fetch_add(1, Ordering::Release);
        drop(self.shared.sleepers.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn pause(tries: &mut usize) {
    *tries += 1;
    if *tries < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        seen = next_round(shared, seen);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the round number was read with Acquire, so the job written before it is visible, and its closure lives
        // until this worker reports below.
        let job = unsafe { &*(*shared.job.0.get()).expect("a round has a job") };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for a round after `seen`: spins, then yields, then sleeps.
fn next_round(shared: &Shared, seen: usize) -> usize {
    let mut tries = 0;
    loop {
        let round = shared.round.load(Ordering::Acquire);
        if round != seen {
            return round;
        }
        pause(&mut tries);
        if tries > SPINS + YIELDS {
            let mut sleepers = shared.sleepers.lock().unwrap_or_else(|e| e.into_inner());
            *sleepers += 1;
            // The round is read under the lock that `run` takes after it moved it on: no wake-up is lost.
            while shared.round.load(Ordering::Acquire) == seen {
                sleepers = shared.wake.wait(sleepers).unwrap_or_else(|e| e.into_inner());
            }
            *sleepers -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{for_chunks, for_each};

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
    fn a_panic_in_a_worker_reaches_the_caller_and_the_pool_lives_on() {
        let pool = ThreadPool::new(2);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(&|i| assert!(i == 0, "worker {i} fails on purpose"));
        }));
        assert!(caught.is_err());
        pool.run(&|_| {});
    }
}
