//! Runs graphs of a fixture on the CPU.

use super::fixture::Fixture;
use std::sync::Arc;
use wgpu_llm::low_level::base::{DType, Meta, Result};
use wgpu_llm::low_level::cpu::{Bytes, Memory, Panels, Program, ThreadPool};
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::graph::{Graph, Input, Place, Schedule, Storage};
use wgpu_llm::low_level::ops::{Serial, Threads, places_of_one};

/// A graph ready to run.
pub struct Runner<'a> {
    fixture: &'a Fixture,
    graph: Graph,
    program: Program,
}

impl<'a> Runner<'a> {
    /// Prepares `graph` with the fixture's weights.
    pub fn new(fixture: &'a Fixture, graph: Graph, memory: &mut Memory) -> Self {
        let schedule = Schedule::single(&graph, Place::Cpu);
        let nodes = 0..graph.nodes.len();
        let weights = Weights { gguf: &fixture.gguf, panels: Panels::default() };
        let program = Program::new(&graph, nodes, &schedule, memory, &weights, &Serial).unwrap();
        Runner { fixture, graph, program }
    }

    /// Runs the prompt's tokens from `start` on, all of whose rows are wanted; gives the rows of the output.
    pub fn decode(&mut self, start: usize, memory: &mut Memory, pool: &ThreadPool) -> Vec<Vec<f32>> {
        let tokens = self.graph.output.expect("something is wanted").meta.outer();
        fill(memory, Input::Tokens, &self.fixture.tokens[start..start + tokens]);
        let pages = self.graph.buffers.iter().find(|b| b.storage == Storage::Input(Input::Places));
        let pages = pages.expect("a batch has places").meta.outer() - 2 * tokens;
        fill(memory, Input::Places, &places_of_one(start, tokens, pages));
        fill(memory, Input::Rows, &Vec::from_iter(0..tokens as u32));
        self.run(memory, pool)
    }

    /// Runs with the inputs as they are; gives the rows of an output in `f32` (none of another).
    pub fn run(&mut self, memory: &mut Memory, pool: &ThreadPool) -> Vec<Vec<f32>> {
        self.program.run(&self.graph, memory, pool, None);
        let Some(output) = self.graph.output.filter(|t| t.meta.dtype == DType::F32) else { return Vec::new() };
        let values: &[f32] = bytemuck::cast_slice(self.program.temp(output.buf, memory));
        values.chunks(output.meta.inner()).take(output.meta.outer()).map(<[f32]>::to_vec).collect()
    }
}

/// Sets an input.
pub fn fill(memory: &mut Memory, input: Input, values: &[u32]) {
    let bytes: &[u8] = bytemuck::cast_slice(values);
    memory.input(input, bytes.len()).unwrap()[..bytes.len()].copy_from_slice(bytes);
}

/// A fixture's weights where the CPU runner wants them.
struct Weights<'a> {
    gguf: &'a Gguf,
    panels: Panels,
}

// u64s, so that every element type is aligned.
struct Aligned(Vec<u64>);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl wgpu_llm::low_level::cpu::WeightSource for Weights<'_> {
    fn bytes(&self, name: &str) -> Result<Arc<dyn AsRef<[u8]> + Send + Sync>> {
        let info = self.gguf.tensor(name).expect("graphs name tensors of the file");
        let data = self.gguf.data(info)?;
        let mut words = vec![0u64; data.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..data.len()].copy_from_slice(data);
        Ok(Arc::new(Aligned(words)))
    }

    // As a model does it, so that the fixtures go the way that users' files go.
    fn panels(&self, name: &str, meta: &Meta, pool: &dyn Threads) -> Result<Option<Bytes>> {
        let info = self.gguf.tensor(name).expect("graphs name tensors of the file");
        let panels =
            self.panels.get(name, meta, pool, &|at: usize, out: &mut [u8]| self.gguf.read_into(info, at, out))?;
        Ok(panels.map(|p| p as Bytes))
    }

    fn made(&self, name: &str) -> Option<Bytes> {
        self.panels.made(name).map(|p| p as Bytes)
    }
}
