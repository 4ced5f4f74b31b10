//! What runs where: each layer's attention, experts and cache, the embedding, the output; and what users say against it.

use crate::base::{Error, Result};
use crate::graph::{BufId, Graph, Node, Place, Storage};
use regex::Regex;
use std::collections::HashMap;
use std::str::FromStr;

/// Where the parts of a layer go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerDevices {
    /// Attention, dense and shared networks, the router.
    pub main: Place,
    /// The experts that a router chooses from.
    pub experts: Place,
    /// Keys and values, and with them the attention over them.
    pub cache: Place,
}

impl LayerDevices {
    /// All of it in one place.
    pub fn whole(place: Place) -> Self {
        LayerDevices { main: place, experts: place, cache: place }
    }
}

/// A user's word on tensors whose names match: `ffn_.*_exps=cpu`.
#[derive(Debug, Clone)]
pub struct TensorOverride {
    pattern: Regex,
    place: Place,
}

impl TensorOverride {
    /// Whether it concerns the tensor called `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name)
    }

    /// Where such tensors go.
    pub fn place(&self) -> Place {
        self.place
    }
}

impl std::fmt::Display for TensorOverride {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.pattern, if self.place == Place::Gpu { "gpu" } else { "cpu" })
    }
}

impl FromStr for TensorOverride {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let how = "write REGEX=cpu or REGEX=gpu, as in 'ffn_.*_exps=cpu'";
        let wrong = |what: String| Error::usage(what).help(how);
        let (pattern, place) = text.rsplit_once('=').ok_or_else(|| wrong(format!("{text:?} says no place")))?;
        let gpus = ["gpu", "cuda", "vulkan", "metal", "rocm", "sycl"];
        let place = match place.to_ascii_lowercase().as_str() {
            "cpu" => Place::Cpu,
            // Other programs name the GPU's interface and number.
            name if gpus.contains(&name.trim_end_matches(|c: char| c.is_ascii_digit())) => Place::Gpu,
            other => return Err(wrong(format!("tensors cannot be put on {other:?}"))),
        };
        let pattern = Regex::new(pattern).map_err(|e| wrong(format!("{pattern:?} is no regular expression: {e}")))?;
        Ok(TensorOverride { pattern, place })
    }
}

/// What stands fixed whatever else is planned.
#[derive(Debug, Clone, Default)]
pub struct DeviceOverrides {
    /// Tensors by name. The first that matches counts; of a step's tensors one on the CPU is enough for it to run there.
    pub tensors: Vec<TensorOverride>,
    /// Of so many layers, the first ones, the experts stay in system memory.
    pub cpu_experts: usize,
    /// Whether all keys and values stay in system memory.
    pub cpu_cache: bool,
    /// Layers whose keys and values do.
    pub cpu_caches: Vec<usize>,
}

impl DeviceOverrides {
    /// Whether keys and values of layer `layer` stay in system memory.
    pub fn keep_cache(&self, layer: usize) -> bool {
        self.cpu_cache || self.cpu_caches.contains(&layer)
    }
}

/// What runs where. Steps run where their weights lie, steps without weights where what they work on was computed, attention where
/// its cache lies.
#[derive(Debug, Clone)]
pub struct DeviceMap {
    /// The embedding.
    pub input: Place,
    /// The layers, first to last.
    pub blocks: Vec<LayerDevices>,
    /// The last norm, the output's product, sampling.
    pub output: Place,
    overrides: Vec<TensorOverride>,
    /// Whether the CPU and the GPU have anything to do.
    used: [bool; 2],
}

/// Whose business a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NodeOwner {
    Input,
    Main(usize),
    Experts(usize),
    Cache(usize),
    Output,
    /// A user's: it stays there whatever is planned.
    Fixed(bool),
}

impl DeviceMap {
    /// Everything in one place.
    pub fn single_place(layers: usize, place: Place) -> Self {
        let blocks = vec![LayerDevices::whole(place); layers];
        let used = [place == Place::Cpu, place == Place::Gpu];
        DeviceMap { input: place, blocks, output: place, overrides: Vec::new(), used }
    }

    /// Everything on the CPU.
    pub fn cpu(layers: usize) -> Self {
        Self::single_place(layers, Place::Cpu)
    }

    /// Everything on the GPU.
    pub fn gpu(layers: usize) -> Self {
        Self::single_place(layers, Place::Gpu)
    }

    /// `gpu_layers` on the GPU, counted from the last, as `-ngl` counts: the output is one more, the embedding goes with the first.
    pub fn last(layers: usize, gpu_layers: usize) -> Self {
        let place = |on_gpu| if on_gpu { Place::Gpu } else { Place::Cpu };
        let mut device_map = Self::cpu(layers);
        for (i, block) in device_map.blocks.iter_mut().enumerate() {
            *block = LayerDevices::whole(place(i.saturating_add(gpu_layers) > layers));
        }
        (device_map.input, device_map.output) = (place(gpu_layers > layers), place(gpu_layers > 0));
        device_map.used = [gpu_layers <= layers, gpu_layers > 0];
        device_map
    }

    /// The same under `overrides`, for the model whose decoding graph is `graph`.
    pub fn under(mut self, overrides: &DeviceOverrides, graph: &Graph) -> Self {
        self.overrides = overrides.tensors.clone();
        for (i, block) in self.blocks.iter_mut().enumerate() {
            if i < overrides.cpu_experts {
                block.experts = Place::Cpu;
            }
            if overrides.keep_cache(i) {
                block.cache = Place::Cpu;
            }
        }
        let places = self.places(graph);
        self.used = [Place::Cpu, Place::Gpu].map(|place| places.contains(&place));
        self
    }

    /// Whether all nodes run in one place, and which.
    pub fn single(&self) -> Option<Place> {
        match self.used {
            [true, false] => Some(Place::Cpu),
            [false, true] => Some(Place::Gpu),
            _ => None,
        }
    }

    /// Whether anything runs at `place`.
    pub fn uses(&self, place: Place) -> bool {
        self.used[place as usize]
    }

    /// Layers on the GPU, the output counted as one, their experts and caches aside.
    pub fn gpu_layers(&self) -> usize {
        let layers = self.blocks.iter().map(|b| b.main).chain([self.output]);
        layers.filter(|place| *place == Place::Gpu).count()
    }

    /// Where each node of `graph` runs.
    pub fn places(&self, graph: &Graph) -> Vec<Place> {
        owners(graph, &self.overrides).into_iter().map(|owner| self.place(owner)).collect()
    }

    fn place(&self, owner: NodeOwner) -> Place {
        match owner {
            NodeOwner::Input => self.input,
            NodeOwner::Main(l) => self.blocks[l].main,
            NodeOwner::Experts(l) => self.blocks[l].experts,
            NodeOwner::Cache(l) => self.blocks[l].cache,
            NodeOwner::Output => self.output,
            NodeOwner::Fixed(true) => Place::Gpu,
            NodeOwner::Fixed(false) => Place::Cpu,
        }
    }
}

/// Whose business each node of `graph` is.
pub(super) fn owners(graph: &Graph, overrides: &[TensorOverride]) -> Vec<NodeOwner> {
    let last = graph.nodes.iter().rposition(|n| n.layer.is_some()).unwrap_or(0);
    let mut owners: Vec<NodeOwner> = Vec::with_capacity(graph.nodes.len());
    let mut makers: HashMap<BufId, usize> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let names = weights(graph, node);
        let cached = node.src.iter().any(|t| matches!(graph.storage(t), Storage::Cache(_)));
        // What is computed from something of the same layer goes on where that was computed, the gate of experts with them; else
        // where the layer was last. So it never is the only one in its place: prompts have such steps that answers have not.
        let follows = || {
            let here = |m: &usize| graph.nodes[*m].layer == node.layer && !matches!(owners[*m], NodeOwner::Cache(_));
            let made = node.src.iter().filter_map(|t| makers.get(&t.buf)).copied().filter(here).max();
            made.or_else(|| (0..i).rev().find(here)).map(|m| owners[m])
        };
        let owner = match node.layer.map(|l| l as usize) {
            Some(l) if cached => NodeOwner::Cache(l),
            _ if names.is_empty()
                && let Some(owner) = follows().filter(|o| !matches!(o, NodeOwner::Cache(_))) =>
            {
                owner
            }
            _ if let Some(place) = overridden(&names, overrides) => NodeOwner::Fixed(place == Place::Gpu),
            Some(l) if node.op.expert_ids().is_some() => NodeOwner::Experts(l),
            Some(l) => NodeOwner::Main(l),
            None if i > last => NodeOwner::Output,
            None => NodeOwner::Input,
        };
        owners.push(owner);
        if *graph.storage(&node.dst) == Storage::Temp {
            makers.insert(node.dst.buf, i);
        }
    }
    owners
}

fn weights<'a>(graph: &'a Graph, node: &Node) -> Vec<&'a str> {
    let name = |storage: &'a Storage| if let Storage::Weight(name) = storage { Some(name.as_str()) } else { None };
    node.src.iter().filter_map(|t| name(&graph.buffers[t.buf.0 as usize].storage)).collect()
}

fn overridden(names: &[&str], overrides: &[TensorOverride]) -> Option<Place> {
    let of = |name: &&str| overrides.iter().find(|o| o.pattern.is_match(name)).map(|o| o.place);
    let places: Vec<Place> = names.iter().filter_map(of).collect();
    places.iter().copied().find(|place| *place == Place::Cpu).or(places.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{self, Batch};
    use crate::base::DType;
    use crate::graph::Schedule;
    use crate::model::{Model, synth::Synthetic};
    use crate::ops::Serial;

    fn graph(name: &str) -> Graph {
        let synthetic: Synthetic = name.parse().unwrap();
        let model = Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).unwrap()).unwrap();
        let batch = Batch::of_one(1, 1, 64, DType::F16.into(), true);
        arch::build(model.spec(), &batch).unwrap().fuse()
    }

    fn segments(device_map: &DeviceMap, graph: &Graph) -> Vec<Place> {
        let places = device_map.places(graph);
        Schedule::new(graph, |i| places[i]).segments.iter().map(|s| s.place).collect()
    }

    #[test]
    fn layers_are_counted_from_the_last() {
        use Place::{Cpu, Gpu};
        let graph = graph("llama-tiny:q8_0");
        let of = |n| segments(&DeviceMap::last(2, n), &graph);
        assert_eq!([of(0), of(3)], [vec![Cpu], vec![Gpu]]);
        assert_eq!([of(1), of(2)], [vec![Cpu, Gpu], vec![Cpu, Gpu]]);
        let two = DeviceMap::last(2, 2);
        assert_eq!((two.single(), two.gpu_layers(), two.blocks[0].main, two.blocks[1].main), (None, 2, Cpu, Gpu));
    }

    #[test]
    fn experts_cross_twice_and_take_what_follows_them_along() {
        use Place::{Cpu, Gpu};
        let graph = graph("moe-tiny:q8_0");
        let overrides = DeviceOverrides { cpu_experts: 1, ..DeviceOverrides::default() };
        let device_map = DeviceMap::gpu(2).under(&overrides, &graph);
        assert_eq!(segments(&device_map, &graph), [Gpu, Cpu, Gpu]);
        assert_eq!((device_map.single(), device_map.uses(Cpu), device_map.uses(Gpu)), (None, true, true));
        // By name it is the same.
        let overrides = DeviceOverrides {
            tensors: vec![r"blk\.0\.ffn_.*_exps=cpu".parse().unwrap()],
            ..DeviceOverrides::default()
        };
        let named = DeviceMap::gpu(2).under(&overrides, &graph);
        assert_eq!(named.places(&graph), device_map.places(&graph));
    }

    #[test]
    fn a_cache_takes_its_attention_along() {
        use Place::{Cpu, Gpu};
        let graph = graph("llama-tiny:q8_0");
        let device_map =
            DeviceMap::gpu(2).under(&DeviceOverrides { cpu_cache: true, ..DeviceOverrides::default() }, &graph);
        assert_eq!(segments(&device_map, &graph), [Gpu, Cpu, Gpu, Cpu, Gpu]);
    }

    #[test]
    fn the_first_word_on_a_tensor_counts_and_the_cpu_among_several() {
        let all = ["attn_q=gpu", "attn_[qk]=cpu"].map(|o| o.parse::<TensorOverride>().unwrap());
        let of = |names: &[&str]| overridden(names, &all);
        assert_eq!(of(&["blk.0.attn_q.weight"]), Some(Place::Gpu));
        assert_eq!(of(&["blk.0.attn_q.weight", "blk.0.attn_k.weight"]), Some(Place::Cpu));
        assert_eq!(of(&["blk.0.attn_v.weight"]), None);
        assert_eq!("attn_q=CUDA0".parse::<TensorOverride>().unwrap().place, Place::Gpu);
        for (text, what) in [("x", "REGEX=cpu"), ("x=tpu", "\"tpu\""), ("(=cpu", "regular expression")] {
            assert!(text.parse::<TensorOverride>().unwrap_err().to_string().contains(what), "{text}");
        }
    }
}
