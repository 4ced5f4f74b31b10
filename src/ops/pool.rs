//! How an op's CPU code uses several threads, without knowing who owns them.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most parts that work is split into at first; more threads than that share them.
const MAX_PARTS: usize = 64;

/// A team of threads. The caller is one of them.
pub trait Pool: Sync {
    /// Size of the team.
    fn threads(&self) -> usize;

    /// Runs `f(thread)` once on every thread of the team and returns when all are done.
    fn run(&self, f: &(dyn Fn(usize) + Sync));

    /// The same on the caller and on those of the other threads that come while it is at it: for work of which each takes what
    /// is left. Nobody waits for a thread whose core has other work.
    fn share(&self, f: &(dyn Fn(usize) + Sync)) {
        self.run(f);
    }
}

/// The team of one: tests, tools, wasm without threads.
pub struct Serial;

impl Pool for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        f(0);
    }
}

/// Calls `f(i, chunk)` for every `len` values of `data`, shared out among the threads as they come free.
///
/// The last chunk may be shorter. Work below one chunk per thread runs on the caller alone.
pub fn for_chunks<T: Send>(pool: &dyn Pool, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let alone = pool.threads() == 1 || data.len() <= len;
    share_out(pool, alone, data.chunks_mut(len.max(1)).enumerate(), f);
}

/// Hands out the parts, all to the caller if it is to be `alone`.
fn share_out<'a, T: Send + 'a>(
    pool: &dyn Pool,
    alone: bool,
    parts: impl Iterator<Item = (usize, &'a mut [T])> + Send,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    if alone {
        return parts.for_each(|(i, part)| f(i, part));
    }
    // A lock around the iterator hands out disjoint slices without unsafe code; it is held for nanoseconds.
    let parts = Mutex::new(parts);
    let next = || parts.lock().expect("no thread panics while it holds the iterator").next();
    pool.share(&|_| {
        while let Some((i, part)) = next() {
            f(i, part);
        }
    });
}

/// Calls `f(i, &mut data[range])` for the `i`-th of some ranges, which ascend and do not overlap, shared out as by [`for_chunks`].
pub fn for_ranges<T: Send>(
    pool: &dyn Pool,
    data: &mut [T],
    ranges: impl ExactSizeIterator<Item = Range<usize>> + Send,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let alone = pool.threads() == 1 || ranges.len() < 2;
    let (mut rest, mut start) = (data, 0);
    let parts = ranges.enumerate().map(move |(i, range)| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(range.end - start);
        let part = &mut part[range.start - start..];
        (rest, start) = (after, range.end);
        (i, part)
    });
    share_out(pool, alone, parts, f);
}

/// Calls `f(i)` for `0..n`: each thread goes through a part of its own in order, so that it reads what belongs to it as one
/// stream, and then helps the others.
pub fn for_each(pool: &dyn Pool, n: usize, f: impl Fn(usize) + Sync) {
    if pool.threads() == 1 || n <= 1 {
        return (0..n).for_each(f);
    }
    let parts = pool.threads().min(MAX_PARTS);
    let done = [const { AtomicUsize::new(0) }; MAX_PARTS];
    pool.share(&|thread| {
        for part in (0..parts).map(|p| (thread + p) % parts) {
            let (start, end) = (n * part / parts, n * (part + 1) / parts);
            loop {
                let i = start + done[part].fetch_add(1, Ordering::Relaxed);
                if i >= end {
                    break;
                }
                f(i);
            }
        }
    });
}
