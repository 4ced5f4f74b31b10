//! Runs single ops on a device and compares them with their f64 oracles: for tests, and for users whose GPU is in doubt.

use super::device::Device;
use super::memory::Memory;
use super::runner::Program;
use super::weights::{Source, Weights};
use crate::base::{Error, Meta, Result, View};
use crate::graph::{Cache, CachePart, Graph, Place, Plan, Tensor};
use crate::ops::{AnyOp, Case, Exact, nmse};
use std::collections::HashMap;
use std::sync::Arc;

/// A case on a device: a graph of one node, with made-up inputs and the right answer.
///
/// Sources are weights, but for the one that is updated in place, which is a cache.
pub struct Check {
    device: Device,
    graph: Graph,
    output: Tensor,
    weights: Weights,
    /// What the cache holds before the run.
    cache: Option<Vec<u8>>,
    want: Vec<f64>,
    kernels: Vec<&'static str>,
}

/// How a kernel did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    /// The kernel's variant.
    pub variant: &'static str,
    /// Normalised mean squared error against the oracle; infinite where a value is missing or not finite.
    pub nmse: f64,
}

const CACHE: Cache = Cache { layer: 0, part: CachePart::Key };

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
        let (mut tensors, mut src, mut exact, mut cache) = (HashMap::new(), Vec::new(), Vec::new(), None);
        for (i, input) in case.src.iter().enumerate() {
            let bytes = input.bytes(seed + i as u64);
            exact.push(Exact::of(&input.view(&bytes)));
            let whole = match input.offset == 0 && input.meta.is_packed() {
                true => input.meta,
                false => Meta::new(input.meta.dtype, [bytes.len() / input.meta.dtype.block_bytes()]),
            };
            let name = format!("src{i}");
            let buffer = if case.op.in_place() == Some(i) {
                cache = Some(bytes);
                graph.cache(CACHE, whole)
            } else {
                tensors.insert(name.clone(), bytes);
                graph.weight(&name, whole)
            };
            src.push(Tensor { meta: input.meta, offset: input.offset, ..buffer });
        }
        let output = graph.op("check", case.op.clone(), &src)?;
        graph.output = Some(output);
        let metas: Vec<Meta> = src.iter().map(|t| t.meta).collect();
        Ok(Check {
            kernels: case.op.gpu(&metas, &output.meta, device.caps()).iter().map(|k| k.variant).collect(),
            weights: Weights::new(device, Arc::new(Tensors(tensors))),
            want: case.op.oracle(&exact),
            device: device.clone(),
            graph,
            output,
            cache,
        })
    }

    /// The variants of the kernels there are, best first.
    pub fn kernels(&self) -> &[&'static str] {
        &self.kernels
    }

    /// Runs kernel number `n` of [`kernels`](Self::kernels). Fails with `Unsupported` where the tensors at hand are not for it:
    /// some kernels read four values at a time and want them aligned, some want whole weights.
    pub fn run(&mut self, n: usize) -> Result<Checked> {
        let plan = Plan::single(&self.graph, Place::Gpu);
        let mut memory = Memory::new(&self.device, 1);
        let only = |_: usize, kernels: Vec<_>| kernels.into_iter().skip(n).take(1).collect();
        let program = Program::new_async(
            &self.device,
            &self.graph,
            0..self.graph.nodes.len(),
            &plan,
            &mut memory,
            &mut self.weights,
            &only,
        );
        let mut program = pollster::block_on(program)?;
        match &self.cache {
            Some(bytes) => memory.write_cache(CACHE, 0, bytes)?,
            None => {
                // NaNs, so that what is not written is noticed.
                let blank = vec![0xff; self.output.meta.span_bytes().next_multiple_of(4)];
                program.write_temp(self.output.buf, &blank)?;
            }
        }
        let bytes = program.run_read(&self.output)?.wait()?;
        let got = Exact::of(&View::new(self.output.meta, &bytes)).data;
        let got: Vec<f32> = got.iter().map(|v| *v as f32).collect();
        Ok(Checked { variant: self.kernels[n], nmse: nmse(&got, &self.want) })
    }
}
