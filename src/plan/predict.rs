//! What a device map takes before anything is loaded: bytes of each device, segments, and the time of a token.

use super::device_map::{NodeOwner, owners};
use super::rates::DeviceRates;
use super::{CPU, DeviceMap, DeviceOverrides, GPU, MemoryUse, Options};
use crate::arch;
use crate::base::{Error, Meta, Result, Role};
use crate::cpu;
use crate::gpu::{self, Needs, buffer_bytes};
use crate::graph::{Cache, Graph, Place, Schedule, Segment, Storage, by_size};
use crate::model::Model;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Tokens in the cache, at the most, for which a token's time is told.
pub const DEPTH: usize = 1024;

/// Inputs that the engine writes wherever something runs: tokens, places, rows, the sampler's parameters.
const INPUTS: u64 = 4;

/// The graphs of a session, and what each of their nodes needs of a GPU.
pub struct Sizes<'a> {
    device: Option<&'a gpu::Device>,
    input_words: usize,
    /// Of a decoded token, of a whole batch of a prompt that ends with a token, and of as many answers as there may be, if several.
    graphs: Vec<Graph>,
    /// By graph and node; the reason where the GPU has no kernel for one.
    pub(super) needs: Vec<Vec<Result<Needs>>>,
    /// Batches between these two, which may need more scratch than either: their graphs, and by node the sizes.
    between: Vec<(Graph, Vec<Vec<usize>>)>,
}

/// A part of a token's way.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// Where it runs.
    pub place: Place,
    /// What it is: `layers 0–11`, `experts of layer 3`.
    pub what: String,
    /// Steps.
    pub nodes: usize,
    /// Bytes of its weights there.
    pub weights: u64,
    /// Bytes of its keys and values.
    pub cache: u64,
    /// Bytes that cross to it for a token.
    pub crossing: u64,
    /// Seconds for a token, if speeds are known.
    pub seconds: Option<f64>,
}

/// What a device map takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The memory of the CPU and of the GPU.
    pub memory: [MemoryUse; 2],
    /// Sizes of the GPU's temporaries, the largest first, and of its scratch: for [`gpu::Memory::reserve`].
    pub(super) reserve: [Vec<usize>; 2],
    /// What else may come on the GPU: parameters of further batch sizes, logits that the host reads.
    pub slack: u64,
    /// A token's way.
    pub pieces: Vec<Piece>,
    /// Seconds for a token, if speeds are known.
    pub seconds: Option<f64>,
}

impl<'a> Sizes<'a> {
    /// The sizes of sessions of `model` with `options`.
    pub fn of(model: &Model, device: Option<&'a gpu::Device>, options: &Options) -> Result<Sizes<'a>> {
        let cells = options.cells(model.spec());
        let graph = |role, tokens: usize| -> Result<Graph> {
            let rows = if role == Role::Answer { tokens } else { tokens.min(options.outputs()) };
            Ok(arch::build(model.spec(), &options.shape(cells, role, tokens, rows, true))?.fuse())
        };
        let batch = options.prompt_rows();
        let prompts = options.prompt_role();
        let batch = if prompts == Role::Piece { options.piece_rows(batch) } else { batch };
        let mut graphs = vec![graph(Role::Answer, 1)?, graph(prompts, batch)?];
        if options.outputs() > 1 {
            graphs.push(graph(Role::Answer, options.outputs())?);
        }
        let of = |graph: &Graph| match device {
            Some(device) => (0..graph.nodes.len()).map(|i| Needs::of(device, graph, i)).collect(),
            None => Vec::new(),
        };
        let needs = graphs.iter().map(of).collect();
        let mut between = Vec::new();
        if let Some(device) = device {
            let sizes = (0..usize::BITS).map(|i| 1 << i).take_while(|n| *n < batch);
            for graph in sizes.map(|tokens| graph(prompts, tokens)) {
                let graph = graph?;
                let scratch = (0..graph.nodes.len()).map(|i| Needs::scratch(device, &graph, i)).collect();
                between.push((graph, scratch));
            }
        }
        let input_words = options.input_words(&cells);
        Ok(Sizes { device, input_words, graphs, needs, between })
    }

    /// The graph of a decoded token.
    pub fn graph(&self) -> &Graph {
        &self.graphs[0]
    }

    /// The layers over whose cache the GPU has no kernel, first to last, and why the first has none.
    pub(super) fn incapable(&self) -> Option<(Vec<usize>, &Error)> {
        let mut layers = BTreeMap::new();
        for (graph, needs) in self.graphs.iter().zip(&self.needs) {
            for (owner, needs) in owners(graph, &[]).into_iter().zip(needs) {
                if let (NodeOwner::Cache(layer), Err(e)) = (owner, needs) {
                    layers.entry(layer).or_insert(e);
                }
            }
        }
        let why = *layers.values().next()?;
        Some((layers.into_keys().collect(), why))
    }

    /// `device_map`, which has no overrides, with attention on the CPU where the GPU has no kernel for it.
    pub fn possible(&self, device_map: DeviceMap) -> DeviceMap {
        match self.incapable() {
            Some((cpu_caches, _)) => {
                device_map.under(&DeviceOverrides { cpu_caches, ..DeviceOverrides::default() }, self.graph())
            }
            None => device_map,
        }
    }

    /// Bytes of each cache on the GPU.
    pub(super) fn caches(&self) -> impl Iterator<Item = (Cache, u64)> {
        self.graphs[0].buffers.iter().filter_map(|b| match b.storage {
            Storage::Cache(cache) => Some((cache, buffer_bytes(gpu::cache_bytes(&b.meta) as u64))),
            _ => None,
        })
    }

    /// What `device_map` takes; with `speeds` of the CPU and of the GPU also how long a token. Fails if the GPU has no kernel
    /// for what is put there.
    pub fn predict(&self, device_map: &DeviceMap, speeds: Option<&[DeviceRates; 2]>) -> Result<Prediction> {
        let mut sum = Sum::default();
        let mut pieces = Vec::new();
        for (g, graph) in self.graphs.iter().enumerate() {
            let places = device_map.places(graph);
            let plan = Schedule::new(graph, |i| places[i]);
            for (s, segment) in plan.segments.iter().enumerate() {
                let before = [sum.held.bytes() as u64, sum.fixed.values().sum::<u64>()];
                let caches = sum.caches;
                match segment.place {
                    Place::Cpu => {
                        sum.held.add(graph, segment.nodes.clone(), sum.programs);
                        sum.programs += 1;
                    }
                    Place::Gpu => self.add_gpu(&mut sum, g, segment.nodes.clone())?,
                }
                sum.add_caches(graph, segment);
                if g == 0 {
                    let after = [sum.held.bytes() as u64, sum.fixed.values().sum::<u64>()];
                    let at = segment.place as usize;
                    let crossing = plan.copies.iter().filter(|c| c.before == s);
                    let seconds = speeds.map(|speeds| self.seconds(device_map, segment, speeds));
                    pieces.push(Piece {
                        place: segment.place,
                        what: name(graph, segment.nodes.clone()),
                        nodes: segment.nodes.len(),
                        weights: after[at] - before[at],
                        cache: sum.caches[at] - caches[at],
                        crossing: crossing.map(|c| graph.buffers[c.buf.0 as usize].meta.span_bytes() as u64).sum(),
                        seconds,
                    });
                }
            }
            sum.add_temporaries(graph, &plan);
        }
        for (graph, scratch) in &self.between {
            let places = device_map.places(graph);
            let on_gpu = scratch.iter().zip(places).filter(|(_, place)| *place == Place::Gpu);
            on_gpu.for_each(|(sizes, _)| Needs::join_scratch(&mut sum.scratch, sizes));
        }
        for node in self.graphs[1].nodes.iter().filter(|_| device_map.uses(Place::Gpu)) {
            let src: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
            Needs::join_scratch(&mut sum.scratch, &node.op.most_scratch(&src));
        }
        let seconds = speeds.map(|_| pieces.iter().filter_map(|p| p.seconds).sum());
        Ok(self.prediction(device_map, sum, pieces, seconds))
    }

    fn prediction(&self, device_map: &DeviceMap, sum: Sum, pieces: Vec<Piece>, seconds: Option<f64>) -> Prediction {
        let mut memory = [CPU, GPU].map(|device| MemoryUse { device, ..MemoryUse::default() });
        let words = |bytes: &usize| bytes.div_ceil(8) as u64 * 8;
        memory[CPU].weights = sum.held.bytes() as u64;
        memory[CPU].cache = sum.caches[CPU];
        memory[CPU].other = sum.temps[CPU].iter().map(words).sum();
        let buffers = |sizes: &[usize]| sizes.iter().map(|n| buffer_bytes(*n as u64)).sum::<u64>();
        memory[GPU].weights = sum.fixed.values().sum();
        memory[GPU].cache = sum.caches[GPU];
        memory[GPU].other = buffers(&sum.temps[GPU]) + buffers(&sum.scratch) + sum.other;
        if device_map.uses(Place::Gpu) {
            memory[GPU].cache += INPUTS * buffer_bytes(4 * self.input_words as u64);
        }
        if device_map.uses(Place::Cpu) {
            memory[CPU].cache += self.inputs();
        }
        let logits = |g: &Graph| g.output.map_or(0, |t| g.nodes.last().map_or(t, |n| n.src[1]).meta.span_bytes());
        let on_gpu = if device_map.output == Place::Gpu {
            2 * self.graphs.iter().map(logits).max().unwrap_or(0) as u64
        } else {
            0
        };
        let slack = if device_map.uses(Place::Gpu) { on_gpu + sum.parameters } else { 0 };
        let [_, temps] = sum.temps;
        Prediction { memory, reserve: [temps, sum.scratch], slack, pieces, seconds }
    }

    /// Bytes of the inputs on the CPU: each as large as a graph wants it.
    fn inputs(&self) -> u64 {
        let mut inputs = HashMap::new();
        for buffer in self.graphs.iter().flat_map(|graph| &graph.buffers) {
            if let Storage::Input(input) = buffer.storage {
                let bytes: &mut u64 = inputs.entry(input).or_default();
                *bytes = (*bytes).max(buffer.meta.span_bytes().next_multiple_of(8) as u64);
            }
        }
        inputs.values().sum()
    }

    fn add_gpu(&self, sum: &mut Sum, g: usize, nodes: std::ops::Range<usize>) -> Result<()> {
        let device = self.device.expect("only device maps on a device that is there are looked at");
        for i in nodes.clone() {
            // Errors are no values that can be copied: whoever has one finds it again.
            let Ok(needs) = &self.needs[g][i] else { return Needs::of(device, &self.graphs[g], i).map(drop) };
            sum.fixed.extend(needs.fixed.iter().cloned());
            Needs::join_scratch(&mut sum.scratch, &needs.scratch);
        }
        let parameters = Needs::parameters(device, nodes.filter_map(|i| self.needs[g][i].as_ref().ok()));
        (sum.other, sum.parameters) = (sum.other + parameters, sum.parameters + parameters);
        Ok(())
    }

    /// Seconds of a segment of a decoded token, the wait for what leaves the GPU included.
    fn seconds(&self, device_map: &DeviceMap, segment: &Segment, speeds: &[DeviceRates; 2]) -> f64 {
        let (graph, speed) = (&self.graphs[0], &speeds[segment.place as usize]);
        let context = graph.buffers.iter().filter(|b| matches!(b.storage, Storage::Cache(_))).map(|b| b.meta.outer());
        let past = context.max().unwrap_or(DEPTH).min(DEPTH) / 2;
        let nodes = graph.nodes[segment.nodes.clone()].iter().map(|node| speed.seconds(graph, node, past));
        // Where all is on the GPU, tokens follow each other without a wait.
        let waits = segment.place == Place::Gpu && device_map.single().is_none();
        nodes.sum::<f64>() + if waits { speed.round_trip } else { 0.0 }
    }
}

impl Prediction {
    /// Bytes on the GPU.
    pub fn gpu_bytes(&self) -> u64 {
        self.memory[GPU].bytes()
    }

    /// Bytes that there must be on the GPU.
    pub fn gpu_need(&self) -> u64 {
        self.gpu_bytes() + self.slack
    }

    /// Bytes in system memory.
    pub fn cpu_bytes(&self) -> u64 {
        self.memory[CPU].bytes()
    }
}

/// What is added up.
#[derive(Default)]
struct Sum {
    held: cpu::SystemMemory,
    /// Programs on the CPU.
    programs: usize,
    fixed: HashMap<gpu::Key, u64>,
    scratch: Vec<usize>,
    /// By place: the largest slots, the next ones …
    temps: [Vec<usize>; 2],
    known: HashSet<Cache>,
    /// By place.
    caches: [u64; 2],
    /// The GPU's parameters and what results are read through.
    other: u64,
    /// The parameters among them.
    parameters: u64,
}

impl Sum {
    fn add_caches(&mut self, graph: &Graph, segment: &Segment) {
        let place = segment.place as usize;
        for t in graph.nodes[segment.nodes.clone()].iter().flat_map(|n| n.src.iter().chain([&n.dst])) {
            let meta = graph.buffers[t.buf.0 as usize].meta;
            match graph.storage(t) {
                Storage::Cache(cache) if self.known.insert(*cache) => {
                    self.caches[place] += match segment.place {
                        Place::Cpu => meta.span_bytes().next_multiple_of(8) as u64,
                        Place::Gpu => buffer_bytes(gpu::cache_bytes(&meta) as u64),
                    };
                }
                _ => {}
            }
        }
    }

    fn add_temporaries(&mut self, graph: &Graph, plan: &Schedule) {
        for place in [Place::Cpu, Place::Gpu] {
            let sizes = plan.slots.get(&place).map_or(&[][..], Vec::as_slice);
            let all = &mut self.temps[place as usize];
            all.resize(all.len().max(sizes.len()), 0);
            for (rank, slot) in by_size(sizes).into_iter().enumerate() {
                all[rank] = all[rank].max(sizes[slot]);
            }
        }
        self.other += read_back(graph, plan);
    }
}

/// Bytes of the buffers that results, and what crosses to the CPU, are read through: one of the program that computes it, as large as
/// its largest.
pub fn read_back(graph: &Graph, plan: &Schedule) -> u64 {
    let mut read: HashMap<usize, u64> = HashMap::new();
    let mut add = |segment: usize, bytes: usize| {
        *read.entry(segment).or_default() += buffer_bytes(bytes.next_multiple_of(4) as u64);
    };
    let last = plan.segments.len() - 1;
    if let Some(output) = graph.output.filter(|_| plan.segments[last].place == Place::Gpu) {
        add(last, output.meta.span_bytes());
    }
    for copy in plan.copies.iter().filter(|c| c.from == Place::Gpu) {
        if let Some(from) = (0..copy.before).rfind(|s| plan.segments[*s].place == Place::Gpu) {
            add(from, graph.buffers[copy.buf.0 as usize].meta.span_bytes());
        }
    }
    read.values().sum()
}

/// What nodes are, by their layers.
fn name(graph: &Graph, nodes: std::ops::Range<usize>) -> String {
    let last = graph.nodes.iter().rposition(|n| n.layer.is_some()).unwrap_or(0);
    let layers: Vec<u32> = nodes.clone().filter_map(|i| graph.nodes[i].layer).collect();
    let whole =
        |l: u32| (0..graph.nodes.len()).filter(|i| graph.nodes[*i].layer == Some(l)).all(|i| nodes.contains(&i));
    let mut parts = Vec::new();
    if nodes.start == 0 && graph.nodes[0].layer.is_none() {
        parts.push("embedding".to_owned());
    }
    if let (Some(&first), Some(&end)) = (layers.first(), layers.last()) {
        let experts = first == end
            && !whole(first)
            && graph.nodes[nodes.clone()].iter().any(|n| n.label.ends_with("_exps") || n.label == "ffn_experts");
        let part = |l: u32| if whole(l) { "" } else { "part of " };
        parts.push(match first == end {
            true if experts => format!("experts of layer {first}"),
            true => format!("{}layer {first}", part(first)),
            false if whole(first) && whole(end) => format!("layers {first}–{end}"),
            false => format!("{}layer {first} – {}layer {end}", part(first), part(end)),
        });
    }
    if nodes.end == graph.nodes.len() && nodes.end > last + 1 {
        parts.push("output".to_owned());
    }
    parts.join(", ")
}
