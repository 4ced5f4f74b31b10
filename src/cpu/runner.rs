//! Runs a segment of a graph on the CPU: resolves every tensor to memory once, then applies op after op.

use super::ThreadPool;
use super::memory::{Buffer, Memory};
use crate::base::{Layout, Meta, Result, View, ViewMut};
use crate::graph::{BufId, Graph, Node, Place, Schedule, Storage, Tensor};
use crate::ops::{Threads, WeightLayout};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use web_time::Instant;

/// Bytes that stay where they are.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Where weights lie in system memory.
pub trait WeightSource: Send + Sync {
    /// The bytes of the tensor called `name`, aligned for its type.
    fn bytes(&self, name: &str) -> Result<Bytes>;

    /// The same tensor interleaved for the matrix product, made by the threads of `pool`; `None` to take its rows as they are.
    fn panels(&self, _name: &str, _meta: &Meta, _pool: &dyn Threads) -> Result<Option<Bytes>> {
        Ok(None)
    }

    /// What [`panels`](Self::panels) gave before, if it was asked.
    fn made(&self, _name: &str) -> Option<Bytes> {
        None
    }
}

/// Most sources of an op, and most that it updates beside its result.
const MAX_SOURCES: usize = 12;
const MAX_UPDATES: usize = 2;

/// How long one node took.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Index of the node in its graph.
    pub node: usize,
    /// When it began.
    pub start: Instant,
    /// When it was done.
    pub end: Instant,
}

#[derive(Clone, Copy)]
enum Location {
    /// Index into the program's fixed data: weights and constants.
    Fixed(usize),
    /// The same, of interleaved weights.
    Panels(usize),
    /// Index into the session's [`Memory`].
    Shared(usize),
}

struct Step {
    node: usize,
    src: Vec<(Location, Tensor)>,
    dst: (Location, Tensor),
}

/// A segment ready to run.
pub struct Program {
    steps: Vec<Step>,
    fixed: Vec<Bytes>,
    // Where in the session's memory each temporary lies.
    temps: HashMap<BufId, usize>,
}

impl Program {
    /// Prepares `nodes` of `graph` for running in memory planned by `schedule`.
    pub fn new(
        graph: &Graph,
        nodes: Range<usize>,
        schedule: &Schedule,
        memory: &mut Memory,
        weights: &dyn WeightSource,
        pool: &dyn Threads,
    ) -> Result<Self> {
        let sizes = schedule.slots.get(&Place::Cpu).map_or(&[][..], Vec::as_slice);
        let slots = memory.temp_indices(sizes)?;
        memory.reserve(graph, &graph.nodes[nodes.clone()]);
        let temps = schedule.slot_of.iter().filter(|((place, _), _)| *place == Place::Cpu);
        let temps = temps.map(|((_, buf), slot)| (*buf, slots[*slot])).collect();
        let mut program = Program { steps: Vec::new(), fixed: Vec::new(), temps };
        let mut known = HashMap::new();
        let multiplied = multiplied(&graph.nodes[nodes.clone()]);
        for i in nodes {
            let Node { op, src, dst, .. } = &graph.nodes[i];
            let mut place = |t: &Tensor, wanted: WeightLayout| -> Result<(Location, Tensor)> {
                let whole = t.offset == 0 && t.meta == graph.buffers[t.buf.0 as usize].meta;
                let wanted = if whole { wanted } else { WeightLayout::Rows };
                if let Some(location) = known.get(&(t.buf, wanted)) {
                    return Ok((*location, *t));
                }
                let panels = match (graph.storage(t), wanted) {
                    (Storage::Weight(name), WeightLayout::Either) if !multiplied.contains(&t.buf) => weights.made(name),
                    (Storage::Weight(name), WeightLayout::Packed | WeightLayout::Either) => {
                        weights.panels(name, &t.meta, pool)?
                    }
                    _ => None,
                };
                let location = match panels {
                    Some(bytes) => {
                        program.fixed.push(bytes);
                        Location::Panels(program.fixed.len() - 1)
                    }
                    None => program.locate(graph, t, memory, weights)?,
                };
                known.insert((t.buf, wanted), location);
                Ok((location, *t))
            };
            let src = src.iter().enumerate().map(|(n, t)| place(t, op.weight_layout(n))).collect::<Result<_>>()?;
            let dst = place(dst, WeightLayout::Rows)?;
            program.steps.push(Step { node: i, src, dst });
        }
        Ok(program)
    }

    fn locate(
        &mut self,
        graph: &Graph,
        t: &Tensor,
        memory: &mut Memory,
        weights: &dyn WeightSource,
    ) -> Result<Location> {
        let bytes = graph.buffers[t.buf.0 as usize].meta.span_bytes();
        Ok(match graph.storage(t) {
            Storage::Weight(name) => {
                self.fixed.push(weights.bytes(name)?);
                Location::Fixed(self.fixed.len() - 1)
            }
            Storage::Const(_, table) => {
                self.fixed.push(Arc::new(table.clone()));
                Location::Fixed(self.fixed.len() - 1)
            }
            Storage::Input(input) => Location::Shared(memory.input_index(*input, bytes)?),
            Storage::Cache(cache) => Location::Shared(memory.cache_index(*cache, bytes)?),
            Storage::Temp => Location::Shared(self.temps[&t.buf]),
        })
    }

    /// Weights and constants that it reads; programs may share them.
    pub fn fixed(&self) -> &[Bytes] {
        &self.fixed
    }

    /// Runs all steps; notes how long each took where `timings` is given.
    pub fn run(&mut self, graph: &Graph, memory: &mut Memory, pool: &ThreadPool, timings: Option<&mut Vec<Timing>>) {
        self.run_until(&|| false, graph, memory, pool, timings);
    }

    /// The same, but `stop` is asked before each step; whether it never said yes. What a run that was stopped has written is of no use.
    pub fn run_until(
        &mut self,
        stop: &dyn Fn() -> bool,
        graph: &Graph,
        memory: &mut Memory,
        pool: &ThreadPool,
        mut timings: Option<&mut Vec<Timing>>,
    ) -> bool {
        // The end of a step is the beginning of the next: the clock is asked once for each.
        let mut start = timings.as_ref().map(|_| Instant::now());
        for i in 0..self.steps.len() {
            if stop() {
                return false;
            }
            self.step(i, graph, memory, pool);
            if let (Some(timings), Some(start)) = (timings.as_deref_mut(), &mut start) {
                let end = Instant::now();
                timings.push(Timing { node: self.steps[i].node, start: std::mem::replace(start, end), end });
            }
        }
        true
    }

    fn step(&mut self, i: usize, graph: &Graph, memory: &mut Memory, pool: &ThreadPool) {
        let step = &self.steps[i];
        let (location, tensor) = step.dst;
        // The result's buffer leaves its table while the op runs, so that no source can alias it.
        let mut out = match location {
            Location::Shared(s) => std::mem::take(&mut memory.buffers[s]),
            Location::Fixed(_) | Location::Panels(_) => unreachable!("no op writes weights"),
        };
        let op = &graph.nodes[step.node].op;
        let empty = View::empty(tensor.meta);
        let mut views = [empty; MAX_SOURCES];
        // So do those that are updated beside it.
        let mut updated: [Buffer; MAX_UPDATES] = Default::default();
        for (buffer, n) in updated.iter_mut().zip(op.updates()) {
            let Location::Shared(s) = step.src[n].0 else { unreachable!("only what outlives a run is updated") };
            *buffer = std::mem::take(&mut memory.buffers[s]);
        }
        for (n, (location, t)) in step.src.iter().enumerate() {
            views[n] = if op.written().any(|w| w == n) { View::empty(t.meta) } else { self.view(*location, t, memory) };
        }
        let data = &mut out.bytes_mut()[start_byte(&tensor)..];
        let mut places = op.updates();
        let mut more = updated.each_mut().map(|buffer| {
            let t = places.next().map_or(&tensor, |n| &step.src[n].1);
            let start = if buffer.bytes().is_empty() { 0 } else { start_byte(t) };
            ViewMut { meta: t.meta, data: &mut buffer.bytes_mut()[start..] }
        });
        let dst = ViewMut { meta: tensor.meta, data };
        op.cpu(&views[..step.src.len()], dst, &mut more[..op.updates().len()], pool);
        for (buffer, n) in updated.into_iter().zip(op.updates()) {
            if let Location::Shared(s) = step.src[n].0 {
                memory.buffers[s] = buffer;
            }
        }
        match location {
            Location::Shared(s) => memory.buffers[s] = out,
            Location::Fixed(_) | Location::Panels(_) => unreachable!("no op writes weights"),
        }
    }

    fn view<'a>(&'a self, location: Location, t: &Tensor, memory: &'a Memory) -> View<'a> {
        let data = self.bytes(location, memory);
        match location {
            Location::Panels(_) => View { meta: t.meta, data, layout: Layout::Packed },
            _ => View::new(t.meta, &data[start_byte(t)..]),
        }
    }

    fn bytes<'a>(&'a self, location: Location, memory: &'a Memory) -> &'a [u8] {
        match location {
            Location::Fixed(i) | Location::Panels(i) => (*self.fixed[i]).as_ref(),
            Location::Shared(i) => memory.buffers[i].bytes(),
        }
    }

    /// The bytes of a tensor that this program uses, from its first value to its last.
    pub fn read<'a>(&'a self, tensor: &Tensor, memory: &'a Memory) -> &'a [u8] {
        let known = self.steps.iter().flat_map(|s| s.src.iter().chain([&s.dst]));
        let (location, _) =
            known.into_iter().find(|(_, t)| t.buf == tensor.buf).expect("only what this program uses can be read");
        &self.bytes(*location, memory)[start_byte(tensor)..][..tensor.meta.span_bytes()]
    }

    /// The bytes of a temporary, to read a result or carry it to another device.
    pub fn temp<'a>(&self, buf: BufId, memory: &'a Memory) -> &'a [u8] {
        memory.buffers[self.temps[&buf]].bytes()
    }

    /// The bytes of a temporary, to fill with what another device computed.
    pub fn temp_mut<'a>(&self, buf: BufId, memory: &'a mut Memory) -> &'a mut [u8] {
        memory.buffers[self.temps[&buf]].bytes_mut()
    }
}

/// What some of `nodes` want as panels.
pub(super) fn multiplied(nodes: &[Node]) -> HashSet<BufId> {
    let sources =
        nodes.iter().flat_map(|node| node.src.iter().enumerate().map(move |(n, t)| (node.op.weight_layout(n), t.buf)));
    sources.filter(|(wanted, _)| *wanted == WeightLayout::Packed).map(|(_, buf)| buf).collect()
}

fn start_byte(t: &Tensor) -> usize {
    t.meta.dtype.row_bytes(t.offset).expect("views begin at whole blocks")
}
