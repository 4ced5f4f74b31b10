//! What devices can do at the most: bandwidth of memory and rates of arithmetic. Decoding is bound by the one, reading prompts by
//! the other, and both are told as parts of what is measured here.

use crate::base::{DType, Result};
use crate::cpu::ThreadPool;
use crate::gpu;
use crate::ops::Threads;
use crate::simd::Arena;
use crate::simd::roofline::{Arithmetic, multiply, read};
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use web_time::Instant;

/// The most that a device was seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Roofline {
    /// Bytes per second read from memory.
    pub read: f64,
    /// Bytes per second copied; each counts once read and once written.
    pub copy: f64,
    /// Operations per second in `f32`; a multiplication and an addition are two.
    pub f32: f64,
    /// In `f16`, where the device computes in it.
    pub f16: Option<f64>,
    /// Products of `bf16`, added up in `f32`.
    pub bf16: Option<f64>,
    /// Products of bytes, added up in 32 bits.
    pub int8: Option<f64>,
    /// Products of `f16` matrices by units for it, added up in `f32`.
    pub matrix: Option<f64>,
}

impl Roofline {
    /// Operations per second at the most with factors of type `dtype` on one side: those of the fastest unit that takes them.
    pub fn rate(&self, dtype: DType) -> f64 {
        let units = match dtype {
            DType::F32 => [None; 4],
            DType::F16 => [self.f16, self.bf16, self.matrix, None],
            DType::BF16 => [self.bf16, self.matrix, None, None],
            _ => [self.f16, self.bf16, self.int8, self.matrix],
        };
        units.into_iter().flatten().fold(self.f32, f64::max)
    }
}

/// Bytes to read and copy: far more than caches hold.
const BYTES: usize = 256 << 20;
/// Rounds, of which the best counts: neighbours on the machine only ever take away.
const ROUNDS: usize = 15;
/// Operations of one thread in a round: some 20 ms.
const OPERATIONS: f64 = 2e9;

/// Everything of the CPU with `threads` threads. `None` if there is too little memory.
pub fn cpu(threads: usize) -> Option<Roofline> {
    let pool = ThreadPool::new(threads);
    // In large pages, as weights are kept.
    let arena = Arena::new(2 * BYTES)?;
    let (mut from, mut to) = (arena.take(BYTES)?, arena.take(BYTES)?);
    from.fill(1);
    to.fill(2);
    let (read, copy) = (read_rate(&pool, &from), copy_rate(&pool, &from, &mut to));
    drop((from, to, arena));
    forget_peak();
    let arithmetic = |what| arithmetic_rate(&pool, what);
    Some(Roofline {
        read,
        copy,
        f32: arithmetic(Arithmetic::F32).unwrap_or(0.0),
        bf16: arithmetic(Arithmetic::Bf16),
        int8: arithmetic(Arithmetic::Int8),
        ..Roofline::default()
    })
}

/// Makes Linux count the peak of this process's memory anew: what is measured afterwards shall not be told with this memory.
fn forget_peak() {
    // proc_pid_clear_refs(5). Where it does not work the peak is too large, which harms nobody.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Everything of a GPU.
pub fn gpu(device: &gpu::Device) -> Result<Roofline> {
    use gpu::roofline::{Limit, measure};
    let rate = |limit| measure(device, limit);
    Ok(Roofline {
        read: rate(Limit::Read)?.unwrap_or(0.0),
        copy: rate(Limit::Copy)?.unwrap_or(0.0),
        f32: rate(Limit::F32)?.unwrap_or(0.0),
        f16: rate(Limit::F16)?,
        bf16: None,
        int8: rate(Limit::Int8)?,
        matrix: rate(Limit::Matrix)?,
    })
}

/// The best rate of several rounds in which the threads does `amount`.
fn best(amount: f64, mut round: impl FnMut()) -> f64 {
    let time = |round: &mut dyn FnMut()| {
        let start = Instant::now();
        round();
        start.elapsed().as_secs_f64().max(1e-9)
    };
    (0..ROUNDS).map(|_| amount / time(&mut round)).fold(0.0, f64::max)
}

fn read_rate(pool: &ThreadPool, memory: &[u8]) -> f64 {
    let part = memory.len().div_ceil(pool.threads()).next_multiple_of(4096);
    let rate = |ahead: usize| {
        best(memory.len() as f64, || {
            pool.run(&|thread| {
                let mine = memory.chunks(part).nth(thread).unwrap_or_default();
                std::hint::black_box(read(mine, ahead));
            });
        })
    };
    // Whether the hardware's prefetch does better alone differs from machine to machine.
    [0, 1024, 4096].into_iter().map(rate).fold(0.0, f64::max)
}

fn copy_rate(pool: &ThreadPool, from: &[u8], to: &mut [u8]) -> f64 {
    let part = from.len().div_ceil(pool.threads()).next_multiple_of(4096);
    best(2.0 * from.len() as f64, || {
        let parts: Vec<Mutex<&mut [u8]>> = to.chunks_mut(part).map(Mutex::new).collect();
        pool.run(&|thread| {
            if let (Some(to), Some(from)) = (parts.get(thread), from.chunks(part).nth(thread)) {
                to.lock().expect("each thread has its own").copy_from_slice(from);
            }
        });
    })
}

fn arithmetic_rate(pool: &ThreadPool, what: Arithmetic) -> Option<f64> {
    let rounds = (OPERATIONS / multiply(what, 1)?) as usize;
    let operations = multiply(what, rounds)? * pool.threads() as f64;
    Some(best(operations, || pool.run(&|_| _ = multiply(what, rounds))))
}
