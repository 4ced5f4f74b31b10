//! How fast devices decode, measured: what a plan weighs them by. A roofline says what a device could do, this what our kernels get
//! out of it for one token.

use super::Work;
use crate::base::{DType, Meta, Result, Role};
use crate::cpu::{self, Bytes, ThreadPool};
use crate::gpu;
use crate::graph::{Graph, Input, Node, Place, Schedule};
use crate::ops::{Linear, PreNorm, Threads, Unary};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use web_time::{Duration, Instant};

/// What a token's steps take on a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeviceRates {
    /// Bytes per second that products with one column read of plain weights.
    pub bytes: f64,
    /// Weights in blocks that they multiply by per second: unpacking may take longer than reading.
    pub weights: f64,
    /// Seconds that a step takes beside its work.
    pub step: f64,
    /// Seconds from handing over next to nothing to having its result.
    pub round_trip: f64,
}

impl DeviceRates {
    /// Whether it can be: what is read from a file may be anything.
    pub fn is_sane(&self) -> bool {
        [self.bytes, self.weights, self.step, self.round_trip].iter().all(|v| v.is_finite() && *v > 0.0)
    }

    /// Seconds of one node with `past` tokens in the cache.
    pub fn seconds(&self, graph: &Graph, node: &Node, past: usize) -> f64 {
        let work = Work::of_node(graph, node, past);
        (work.bytes() / self.bytes).max(work.operations() / 2.0 / self.weights) + self.step
    }
}

/// Rows and columns of a matrix that is multiplied, and how many there are of each type: more than caches hold, but for software
/// adapters, which have little speed.
const LARGE: ([usize; 2], [usize; 2]) = ([8192, 4096], [2, 6]);
const SMALL: ([usize; 2], [usize; 2]) = ([2048, 2048], [1, 2]);
/// Steps of next to nothing.
const STEPS: usize = 64;
/// Runs, of which the best counts: others at work only ever take away. The first one wakes the device up.
const RUNS: usize = 7;

/// Measures a GPU.
pub fn gpu(device: &gpu::Device) -> Result<DeviceRates> {
    let size = if device.info().software { SMALL } else { LARGE };
    measure(size, &mut |graph| {
        let mut memory = gpu::Memory::new(device, 64);
        let mut weights = gpu::Weights::new(device, Arc::new(Ones));
        let plan = Schedule::single(graph, Place::Gpu);
        let nodes = 0..graph.nodes.len();
        let mut program = gpu::Program::new(device, graph, nodes, &plan, &mut memory, &mut weights)?;
        let output = graph.output.expect("what is measured has a result");
        best(|| program.run_read(&output)?.wait().map(drop))
    })
}

/// Measures the CPU.
pub fn cpu(threads: usize) -> Result<DeviceRates> {
    let pool = if threads == 0 { ThreadPool::per_core() } else { ThreadPool::new(threads) };
    measure(LARGE, &mut |graph| {
        let (mut memory, weights) = (cpu::Memory::default(), Packed(cpu::Panels::default()));
        let plan = Schedule::single(graph, Place::Cpu);
        let nodes = 0..graph.nodes.len();
        let mut program = cpu::Program::new(graph, nodes, &plan, &mut memory, &weights, &pool)?;
        best(|| {
            program.run(graph, &mut memory, &pool, None);
            Ok(())
        })
    })
}

type Time<'a> = &'a mut dyn FnMut(&Graph) -> Result<Duration>;

fn measure(([n, k], counts): ([usize; 2], [usize; 2]), time: Time<'_>) -> Result<DeviceRates> {
    let seconds = |time: Duration| time.as_secs_f64();
    let one = seconds(time(&steps(1)?)?);
    let step = ((seconds(time(&steps(1 + STEPS)?)?) - one) / STEPS as f64).max(1e-8);
    let round_trip = (one - step).max(1e-8);
    let mut product = |dtype, count: usize| -> Result<f64> {
        let graph = products(dtype, [n, k], count)?;
        let fixed = round_trip + step * graph.nodes.len() as f64;
        Ok((seconds(time(&graph)?) - fixed).max(1e-6) / (count * n * k) as f64)
    };
    let (plain, blocks) = (product(DType::F16, counts[0])?, product(DType::Q4_0, counts[1])?);
    Ok(DeviceRates { bytes: 2.0 / plain, weights: 1.0 / blocks, step, round_trip })
}

/// `n` steps that each wait for the one before: small products, as most steps are products.
fn steps(n: usize) -> Result<Graph> {
    let mut graph = Graph::new();
    let k = 64;
    let (matrix, ones) = (graph.weight("step", Meta::new(DType::F16, [k, k])), graph.weight("ones", Meta::f32([k])));
    let mut x = graph.input(Input::Rows, Meta::f32([1, k]));
    // Normalised, so that values neither grow nor vanish.
    let op =
        Linear { norm: Some(PreNorm::Rms { eps: 1e-5, params: 1 }), role: Role::Answer, ..Linear::plain(false, false) };
    for _ in 0..n {
        x = graph.op("step", op, &[matrix, x, ones])?;
    }
    graph.output = Some(x);
    Ok(graph)
}

/// Products of one vector with `count` matrices.
fn products(dtype: DType, [n, k]: [usize; 2], count: usize) -> Result<Graph> {
    let mut graph = Graph::new();
    let ones = graph.weight("ones", Meta::f32([1, k]));
    let x = graph.op("x", Unary::Scale(0.5), &[ones])?;
    for i in 0..count {
        let matrix = graph.weight(&format!("matrix {i}"), Meta::new(dtype, [n, k]));
        let y = graph.op("product", Linear { role: Role::Answer, ..Linear::plain(false, false) }, &[matrix, x])?;
        graph.output = Some(y);
    }
    Ok(graph)
}

fn best(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    run()?;
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

/// Tensors whose values do not matter, as long as they are numbers of ordinary size: ones, and bytes that are so in f16 and in blocks.
struct Ones;

const BYTE: u8 = 0x2c;

impl gpu::Source for Ones {
    fn read(&self, name: &str, _: u64, out: &mut [u8]) -> Result<()> {
        match name {
            "ones" => out.as_chunks_mut().0.iter_mut().for_each(|v| *v = 1f32.to_ne_bytes()),
            _ => out.fill(BYTE),
        }
        Ok(())
    }
}

struct Packed(cpu::Panels);

impl cpu::WeightSource for Packed {
    fn bytes(&self, name: &str) -> Result<Bytes> {
        // What a vector or a plain matrix needs at the most.
        let bytes = if name == "ones" { 4 * LARGE.0[1] } else { 2 * LARGE.0[0] * LARGE.0[1] };
        let mut words = Words(vec![0; bytes / 8]);
        gpu::Source::read(&Ones, name, 0, bytemuck::cast_slice_mut(&mut words.0))?;
        Ok(Arc::new(words))
    }

    fn panels(&self, name: &str, meta: &Meta, pool: &dyn Threads) -> Result<Option<Bytes>> {
        let fill = |_: usize, out: &mut [u8]| {
            out.fill(BYTE);
            Ok(())
        };
        Ok(self.0.get(name, meta, pool, &fill)?.map(|p| p as Bytes))
    }
}

struct Words(Vec<u64>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_those_of_the_clock() {
        // A device that takes 1 µs per step, 10 µs for a round trip, and reads 1 GB/s, or 0.5 weights in blocks per nanosecond.
        let mut time = |graph: &Graph| {
            let work: f64 = (graph.nodes.iter())
                .map(|n| {
                    // Products of next to nothing take no time beside a step's.
                    let weights = Work::of_node(graph, n, 0).operations() / 2.0;
                    1e-6 + if weights > 1e5 { weights * 2e-9 } else { 0.0 }
                })
                .sum();
            Ok(Duration::from_secs_f64(1e-5 + work))
        };
        let speed = measure(SMALL, &mut time).unwrap();
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.01;
        assert!(near(speed.step, 1e-6) && near(speed.round_trip, 1e-5), "{speed:?}");
        assert!(near(speed.bytes, 1e9) && near(speed.weights, 0.5e9), "{speed:?}");
    }
}
