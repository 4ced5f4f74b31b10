//! How CPU code uses several threads, without knowing who owns them.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most parts that work is split into at first; more threads than that share them.
const MAX_PARTS: usize = 64;

/// Threads that run the same function. The caller is one of them.
pub trait Threads: Sync {
    /// How many there are.
    fn threads(&self) -> usize;

    /// Runs `f(thread)` once on every thread and returns when all are done.
    fn run(&self, f: &(dyn Fn(usize) + Sync));

    /// The same on the caller and on those of the other threads that come while it is at it: for work of which each takes what
    /// is left. Nobody waits for a thread whose core has other work.
    fn share(&self, f: &(dyn Fn(usize) + Sync)) {
        self.run(f);
    }
}

/// The caller alone: tests, tools, wasm without threads.
pub struct Serial;

impl Threads for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn run(&self, f: &(dyn Fn(usize) + Sync)) {
        f(0);
    }
}

/// In cache lines of its own (two, for processors that fetch pairs): threads that take from different parts do not meet.
#[repr(align(128))]
struct Apart<T>(T);

/// Part `p` of `parts` of `n` things.
fn part_of(n: usize, p: usize, parts: usize) -> Range<usize> {
    n * p / parts..n * (p + 1) / parts
}

/// Calls `f(i, chunk)` for every `len` values of `data`: each thread goes through a part of its own, which is the same from call to call, so
/// that rows stay in its caches, and then helps the others.
///
/// The last chunk may be shorter. A single one is the caller's.
pub fn for_chunks<T: Send>(pool: &dyn Threads, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let len = len.max(1);
    let n = data.len().div_ceil(len);
    if pool.threads() == 1 || n < 2 {
        return data.chunks_mut(len).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
    let (parts, mut rest) = (pool.threads().min(MAX_PARTS).min(n), data);
    // A lock around an iterator hands out disjoint slices without unsafe code; it is held for nanoseconds.
    let shares: [_; MAX_PARTS] = std::array::from_fn(|p| {
        let part = if p < parts { part_of(n, p, parts) } else { n..n };
        let all = std::mem::take(&mut rest);
        let (now, later) = all.split_at_mut((part.len() * len).min(all.len()));
        rest = later;
        Apart(Mutex::new(part.zip(now.chunks_mut(len))))
    });
    pool.share(&|thread| {
        for p in (0..parts).map(|p| (thread + p) % parts) {
            let next = || shares[p].0.lock().expect("no thread panics while it holds an iterator").next();
            while let Some((i, chunk)) = next() {
                f(i, chunk);
            }
        }
    });
}

/// The most parts that a thread takes at once.
const RUN: usize = 16;

/// Calls `f` with each of some parts of equal work, shared out among the threads as they come free, several at a time while many are left. A
/// single one is the caller's.
pub fn share_out_alike<T: Send>(
    pool: &dyn Threads,
    parts: impl ExactSizeIterator<Item = T> + Send,
    f: impl Fn(T) + Sync,
) {
    share_out(pool, RUN, parts, f);
}

/// The same of any parts, at most `most` at a time.
fn share_out<T: Send>(
    pool: &dyn Threads,
    most: usize,
    parts: impl ExactSizeIterator<Item = T> + Send,
    f: impl Fn(T) + Sync,
) {
    if pool.threads() == 1 || parts.len() < 2 {
        return parts.for_each(f);
    }
    let parts = Mutex::new(parts);
    let next = || {
        let mut run = [const { None }; RUN];
        let mut parts = parts.lock().expect("no thread panics while it holds the iterator");
        let count = parts.len().div_ceil(2 * pool.threads()).min(most);
        run[..count].fill_with(|| parts.next());
        run
    };
    pool.share(&|_| {
        loop {
            let run = next();
            if run[0].is_none() {
                break;
            }
            run.into_iter().flatten().for_each(&f);
        }
    });
}

/// Calls `f(i, &mut data[range])` for the `i`-th of some ranges, which ascend and do not overlap, shared out among the
/// threads as they come free.
pub fn for_ranges<T: Send>(
    pool: &dyn Threads,
    data: &mut [T],
    ranges: impl ExactSizeIterator<Item = Range<usize>> + Send,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    let (mut rest, mut start) = (data, 0);
    let parts = ranges.enumerate().map(move |(i, range)| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(range.end - start);
        let part = &mut part[range.start - start..];
        (rest, start) = (after, range.end);
        (i, part)
    });
    // One at a time: their work may differ.
    share_out(pool, 1, parts, |(i, part)| f(i, part));
}

/// Calls `f(i)` for `0..n`: each thread goes through a part of its own in order, so that it reads what belongs to it as one
/// stream, and then helps the others.
pub fn for_each(pool: &dyn Threads, n: usize, f: impl Fn(usize) + Sync) {
    if pool.threads() == 1 || n <= 1 {
        return (0..n).for_each(f);
    }
    let parts = pool.threads().min(MAX_PARTS);
    let done = [const { Apart(AtomicUsize::new(0)) }; MAX_PARTS];
    pool.share(&|thread| {
        for p in (0..parts).map(|p| (thread + p) % parts) {
            let part = part_of(n, p, parts);
            loop {
                // A part that is done is only looked at: its line stays where it is.
                if done[p].0.load(Ordering::Relaxed) >= part.len() {
                    break;
                }
                let i = part.start + done[p].0.fetch_add(1, Ordering::Relaxed);
                if i >= part.end {
                    break;
                }
                f(i);
            }
        }
    });
}
