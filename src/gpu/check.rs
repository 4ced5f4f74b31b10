//! Runs single ops on a device and compares them with their f64 oracles: for tests, and for users whose GPU is in doubt.

use super::build::cache_bytes;
use super::device::Device;
use super::memory::Memory;
use super::runner::Program;
use super::weights::{Source, Weights};
use crate::base::{DType, Error, Meta, Result, View};
use crate::graph::{Cache, CachePart, Graph, Place, Schedule, Storage, Tensor};
use crate::ops::{AnyOp, Case, Exact, nmse};
use crate::quant;
use std::collections::HashMap;
use std::sync::Arc;

/// A case on a device: a graph of one node, with made-up inputs and the right answer.
///
/// Sources are weights, but for those that are updated in place, and blocks that attention reads, which are caches.
pub struct Check {
    device: Device,
    graph: Graph,
    output: Tensor,
    weights: Weights,
    /// What the caches hold before a run.
    caches: Vec<(Cache, Vec<u8>)>,
    /// What is updated beside the output.
    updated: Vec<Tensor>,
    want: Vec<f64>,
    kernels: Vec<&'static str>,
    roundings: Vec<f64>,
}

/// How a kernel did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    /// The kernel's variant.
    pub variant: &'static str,
    /// Normalised mean squared error against the oracle; infinite where a value is missing or not finite.
    pub nmse: f64,
    /// What the kernel's arithmetic may add to the error that the case allows.
    pub rounding: f64,
}

struct Tensors(HashMap<String, Vec<u8>>);

impl Source for Tensors {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let bytes = self.0.get(name).ok_or_else(|| Error::usage(format!("no tensor {name}")))?;
        out.copy_from_slice(&bytes[at as usize..][..out.len()]);
        Ok(())
    }
}

impl Check {
    /// Makes up inputs for `case` from `seed` and computes the right answer, which takes the CPU a while for large cases.
    pub fn new(device: &Device, case: &Case<AnyOp>, seed: u64) -> Result<Check> {
        let mut graph = Graph::new();
        let (mut tensors, mut src, mut exact, mut caches) = (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        for (i, input) in case.src.iter().enumerate() {
            let bytes = input.bytes(seed + i as u64);
            exact.push(Exact::of(&input.view(&bytes)));
            let whole = match input.offset == 0 && input.meta.is_packed() {
                true => input.meta,
                false => Meta::new(
                    input.meta.dtype,
                    [bytes.len() / input.meta.dtype.block_bytes() * input.meta.dtype.block()],
                ),
            };
            let name = format!("src{i}");
            // In a cache, blocks lie in planes.
            let read = case.op.caches().contains(&i) && whole.dtype.is_quantized();
            let buffer = if read || case.op.written().any(|w| w == i) {
                let cache = Cache { layer: i as u32, part: CachePart::Key };
                // Caches in blocks lie in planes.
                let bytes = match whole.dtype.is_quantized() {
                    true => {
                        let words = quant::gpu_layout(whole.dtype, whole.outer(), whole.inner(), &bytes);
                        bytemuck::cast_slice(&words).to_vec()
                    }
                    false => bytes,
                };
                caches.push((cache, bytes));
                graph.cache(cache, whole)
            } else {
                tensors.insert(name.clone(), bytes);
                graph.weight(&name, whole)
            };
            src.push(Tensor { meta: input.meta, offset: input.offset, ..buffer });
        }
        let output = graph.op("check", case.op.clone(), &src)?;
        graph.output = Some(output);
        let metas: Vec<Meta> = src.iter().map(|t| t.meta).collect();
        let kernels = case.op.gpu(&metas, &output.meta, device.caps());
        Ok(Check {
            kernels: kernels.iter().map(|k| k.variant).collect(),
            roundings: kernels.iter().map(|k| k.rounding).collect(),
            weights: Weights::new(device, Arc::new(Tensors(tensors))),
            want: case.op.oracle(&exact),
            device: device.clone(),
            graph,
            output,
            caches,
            updated: case.op.updates().map(|i| src[i]).collect(),
        })
    }

    /// The variants of the kernels there are, best first.
    pub fn kernels(&self) -> &[&'static str] {
        &self.kernels
    }

    /// Runs kernel number `n` of [`kernels`](Self::kernels). Fails with `Unsupported` where the tensors at hand are not for it:
    /// some kernels read four values at a time and want them aligned, some want whole weights. Blocks; see
    /// [`run_async`](Self::run_async).
    pub fn run(&mut self, n: usize) -> Result<Checked> {
        pollster::block_on(self.run_async(n))
    }

    /// As [`run`](Self::run).
    pub async fn run_async(&mut self, n: usize) -> Result<Checked> {
        let schedule = Schedule::single(&self.graph, Place::Gpu);
        let mut memory = Memory::new(&self.device, 1);
        let only = |_: usize, kernels: Vec<_>| kernels.into_iter().skip(n).take(1).collect();
        let mut program = Program::with_kernels(
            &self.device,
            &self.graph,
            0..self.graph.nodes.len(),
            &schedule,
            &mut memory,
            &mut self.weights,
            &only,
        )
        .await?;
        for (cache, bytes) in &self.caches {
            memory.write_cache(*cache, 0, bytes)?;
        }
        if *self.graph.storage(&self.output) == Storage::Temp {
            // NaNs, so that what is not written is noticed.
            let blank = vec![0xff; self.output.meta.span_bytes().next_multiple_of(4)];
            program.write_temp(self.output.buf, &blank)?;
        }
        program.run()?;
        let mut got = Vec::new();
        for tensor in [&self.output].into_iter().chain(&self.updated) {
            got.extend(self.values(&mut program, tensor).await?);
        }
        Ok(Checked { variant: self.kernels[n], nmse: nmse(&got, &self.want), rounding: self.roundings[n] })
    }

    /// The values of `tensor` after a run.
    async fn values(&self, program: &mut Program, tensor: &Tensor) -> Result<Vec<f32>> {
        let meta = tensor.meta;
        if meta.dtype.is_quantized() {
            let words = cache_bytes(&meta) / 4;
            let whole = Tensor { meta: Meta::new(DType::U32, [words]), ..*tensor };
            let words: Vec<u32> = bytemuck::pod_collect_to_vec(&program.read(&whole)?.wait_async().await?);
            return Ok(quant::gpu_decode(meta.dtype, meta.outer(), meta.inner(), &words));
        }
        let bytes = program.read(tensor)?.wait_async().await?;
        Ok(Exact::of(&View::new(meta, &bytes)).data.iter().map(|v| *v as f32).collect())
    }
}
