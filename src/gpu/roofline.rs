//! What a GPU can do at the most: kernels that do nothing but read, copy or multiply.
//! Shaders: shaders/roofline_memory.wgsl, shaders/roofline_math.wgsl,
//! shaders/roofline_matrix.wgsl.

use super::device::{Buffer, Device};
use super::memory::STORAGE;
use super::pipeline::Entry;
use super::preprocess::{COOP, F16};
use super::profile;
use super::runner::Step;
use crate::base::{ErrorKind, Result};
use crate::ops::{Bind, Caps, Kernel, Param, Pass, WG};
use std::sync::Arc;
use web_time::Instant;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes read.
    Read,
    /// Bytes copied; each counts once read and once written.
    Copy,
    /// Operations in `f32`; a multiplication and an addition are two.
    F32,
    /// Operations in `f16`.
    F16,
    /// Operations on bytes, added up in 32 bits.
    Int8,
    /// Products of small `f16` matrices by units for them, added up in `f32`.
    Matrix,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 6] = [Limit::Read, Limit::Copy, Limit::F32, Limit::F16, Limit::Int8, Limit::Matrix];
}

/// Bytes to read: more than any GPU's caches. Software adapters have a CPU's caches and a CPU's patience.
const BYTES: usize = 512 << 20;
const SOFTWARE_BYTES: usize = 64 << 20;
/// Workgroups: enough to fill the largest GPU several times.
const GROUPS: u32 = 4096;
const SOFTWARE_GROUPS: u32 = 64;
/// Rounds of one thread's arithmetic, and the operations in a round: 16 vectors of four, each multiplied and added.
const MATH_ROUNDS: usize = 256;
const ROUND_OPS: f64 = 16.0 * 4.0 * 2.0;
/// Threads of a workgroup that multiplies matrices: one subgroup on whatever has units for it.
const MATRIX_THREADS: u32 = 32;
/// Matrix products in a round.
const MATRIX_PRODUCTS: f64 = 4.0;
/// Repetitions, of which the best counts.
const REPETITIONS: usize = 7;
/// Seconds of work to be timed at a time, and the most dispatches for it.
const AIM: f64 = 0.02;
const MOST_DISPATCHES: usize = 64;

/// The kernel that measures `limit` with source 0 of `bytes` and as many in the result; `None` if devices with `caps` cannot.
pub fn kernel(limit: Limit, caps: &Caps, bytes: usize, groups: u32) -> Option<Kernel> {
    let groups = groups.min(caps.max_workgroups);
    let memory = |flags: Vec<&'static str>| Pass {
        shader: "roofline_memory",
        flags,
        params: vec![("vectors", (bytes / 16).into())],
        binds: vec![("x", Bind::Src(0)), ("y", Bind::Dst)],
        ..Pass::default()
    };
    let math = |flags: Vec<&'static str>| Pass {
        shader: "roofline_math",
        flags,
        params: vec![
            ("rounds", MATH_ROUNDS.into()),
            ("factor", 0.5f32.into()),
            // 1, −1, 1, −1.
            ("bytes", Param::U32(0xff01_ff01)),
        ],
        binds: vec![("y", Bind::Dst)],
        ..Pass::default()
    };
    // What each thread of a reader writes must be little beside what it reads.
    let groups = if matches!(limit, Limit::Read | Limit::Copy) { groups / 4 } else { groups };
    let (variant, pass) = match limit {
        Limit::Read => ("read", memory(vec![])),
        Limit::Copy => ("copy", memory(vec!["COPY"])),
        Limit::F32 => ("f32", math(vec![])),
        Limit::F16 if caps.f16 => ("f16", math(vec![F16])),
        Limit::F16 => return None,
        Limit::Int8 => ("int8", math(vec!["DOT4"])),
        Limit::Matrix => ("matrix", matrix(caps.coop?)),
    };
    let consts = if pass.consts.is_empty() { vec![("WG", WG)] } else { pass.consts.clone() };
    Some(Kernel::single(variant, Pass { consts, workgroups: [groups, 1, 1], ..pass }))
}

/// Products of matrices with `edge` rows and columns.
fn matrix(edge: u32) -> Pass {
    let size: &[&'static str] = if edge == 16 { &["EDGE16"] } else { &[] };
    Pass {
        shader: "roofline_matrix",
        flags: [&[F16, COOP], size].concat(),
        consts: vec![("WG", MATRIX_THREADS), ("EDGE", edge)],
        params: vec![("rounds", MATH_ROUNDS.into())],
        binds: vec![("y", Bind::Dst)],
        ..Pass::default()
    }
}

/// Bytes or operations per second that `device` reaches; `None` if it has nothing of the kind, or too little memory to tell.
pub fn measure(device: &Device, limit: Limit) -> Result<Option<f64>> {
    let (most, least) = if device.info().software { (SOFTWARE_BYTES, SOFTWARE_BYTES / 4) } else { (BYTES, BYTES / 4) };
    let mut bytes = most.min(device.caps().max_binding as usize) / 4096 * 4096;
    loop {
        match measure_with(device, limit, bytes) {
            Err(e) if e.kind() == ErrorKind::OutOfMemory && device.check().is_ok() => {
                if bytes / 2 < least {
                    return Ok(None);
                }
                bytes = bytes / 2 / 4096 * 4096;
            }
            done => return done,
        }
    }
}

fn measure_with(device: &Device, limit: Limit, bytes: usize) -> Result<Option<f64>> {
    let groups = if device.info().software { SOFTWARE_GROUPS } else { GROUPS };
    let Some(kernel) = kernel(limit, device.caps(), bytes, groups) else { return Ok(None) };
    let pass = &kernel.passes[0];
    let amount = match limit {
        Limit::Read => bytes as f64,
        Limit::Copy => 2.0 * bytes as f64,
        Limit::Matrix => {
            let product = 2.0 * f64::from(device.caps().coop.unwrap_or(0)).powi(3);
            f64::from(pass.workgroups[0]) * MATH_ROUNDS as f64 * MATRIX_PRODUCTS * product
        }
        _ => f64::from(pass.workgroups[0] * WG) * MATH_ROUNDS as f64 * ROUND_OPS,
    };
    let scope = device.scope();
    let step = step(device, pass, bytes);
    pollster::block_on(scope.finish())?;
    let (step, _held) = step?;
    // Once to warm up, once to see how many dispatches make the time to be measured.
    time(device, &step, 1)?;
    let once = time(device, &step, 1)?;
    let dispatches = ((AIM / once) as usize).clamp(1, MOST_DISPATCHES);
    let mut best = once / amount;
    for _ in 0..REPETITIONS {
        best = best.min(time(device, &step, dispatches)? / (amount * dispatches as f64));
    }
    Ok(Some(1.0 / best))
}

/// The dispatch with its buffers, of `bytes` each, and what keeps them.
fn step(device: &Device, pass: &Pass, bytes: usize) -> Result<(Step, Vec<Buffer>)> {
    let entry: Arc<Entry> = device.inner.pipelines.shader(pass)?;
    let pipeline = entry.pipeline(device, pass)?;
    let params = entry.shader.params(&pass.params, &|_| None)?;
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let uniform = device.buffer("parameters", params.len() as u64, usage)?;
    device.write(&uniform, 0, &params);
    let mut entries = vec![(entry.shader.params_index().expect("both shaders have them"), uniform)];
    for (name, bind) in &pass.binds {
        let buffer = device.buffer("roofline", bytes as u64, STORAGE)?;
        if *bind == Bind::Src(0) {
            fill(device, &buffer)?;
        }
        entries.push((entry.shader.binding(name).expect("listed by name").index, buffer));
    }
    let group = device.inner.raw.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(pass.shader),
        layout: &pipeline.layout,
        entries: &entries
            .iter()
            .map(|(binding, b)| wgpu::BindGroupEntry { binding: *binding, resource: b.raw.as_entire_binding() })
            .collect::<Vec<_>>(),
    });
    let step = Step { node: 0, entry, group, workgroups: pass.workgroups, share: 1.0 };
    Ok((step, entries.into_iter().map(|(_, buffer)| buffer).collect()))
}

/// Fills a buffer with what no memory controller can compress.
fn fill(device: &Device, buffer: &Buffer) -> Result<()> {
    const PIECE: u64 = 16 << 20;
    let mut random = crate::ops::Random(1);
    let words: Vec<u32> = (0..PIECE.min(buffer.size) / 4).map(|_| random.bits()).collect();
    let mut at = 0;
    while at < buffer.size {
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let piece = (buffer.size - at).min(PIECE);
        device.write(buffer, at, &bytes[..piece as usize]);
        // So that little waits in staging memory.
        device.submit(device.encoder());
        device.finish()?;
        at += piece;
    }
    Ok(())
}

/// Seconds that `dispatches` take: by the device's clock where it has one, else by ours.
fn time(device: &Device, step: &Step, dispatches: usize) -> Result<f64> {
    if device.has_timestamps() {
        let ticks = profile::ticks(device, step, dispatches)?;
        let seconds = ticks as f64 * f64::from(device.inner.queue.get_timestamp_period()) / 1e9;
        if seconds > 0.0 {
            return Ok(seconds);
        }
    }
    let start = Instant::now();
    let mut encoder = device.encoder();
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        (0..dispatches).for_each(|_| step.encode(&mut pass));
    }
    device.submit(encoder);
    device.finish()?;
    Ok(start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_device_has_is_measured() {
        let has = |caps: &Caps| Limit::ALL.into_iter().filter(|l| kernel(*l, caps, 1 << 20, 64).is_some()).count();
        assert_eq!(has(&Caps::BASELINE), Limit::ALL.len() - 2);
        assert_eq!(has(&Caps { f16: true, coop: Some(16), ..Caps::BASELINE }), Limit::ALL.len());
    }
}
