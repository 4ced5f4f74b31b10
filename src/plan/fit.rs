//! Makes a model fit: chooses context and device map by sizes, budget and speeds, and says why.
//!
//! A plan puts consecutive layers on the GPU, so that a token crosses to it and back once. Of mixtures of experts, attention and
//! shared parts go first; as many layers' experts as do not fit stay in system memory, at a crossing each. Among what fits, the
//! plan with the shortest time per token is taken, as estimated from what the devices were measured to do.

use super::budget::Budget;
use super::device_map::{NodeOwner, owners};
use super::predict::{Prediction, Sizes};
use super::rates::DeviceRates;
use super::{DeviceMap, DeviceOverrides, Options};
use crate::base::{Error, ErrorKind, Result, human};
use crate::gpu;
use crate::graph::Place;
use crate::model::Model;
use std::collections::HashMap;

/// The smallest context that is chosen unasked.
pub const LEAST_CONTEXT: usize = 4096;

/// How many layers go to the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    /// As many as pay and fit.
    Auto,
    /// Every one.
    All,
    /// This many, counted from the last, the output being one.
    Count(usize),
}

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Request {
    /// How many layers go to the GPU.
    pub layers: Layers,
    /// What stands fixed.
    pub overrides: DeviceOverrides,
    /// How much memory there is.
    pub budget: Budget,
    /// Contexts that would do, the largest first.
    pub contexts: Vec<usize>,
}

/// What was planned.
#[derive(Debug, Clone)]
pub struct DevicePlan {
    /// What runs where.
    pub device_map: DeviceMap,
    /// Tokens of context.
    pub context: usize,
    /// What it takes.
    pub prediction: Prediction,
    /// What all of it would take on the GPU, with this context.
    pub whole: Option<u64>,
    /// Why, in words.
    pub why: String,
}

/// Gives the speeds of the CPU and of the GPU; asked only if a choice depends on them.
pub type Speeds<'a> = &'a mut dyn FnMut() -> Result<[DeviceRates; 2]>;

impl DevicePlan {
    /// Plans sessions of `model` with `options` (whose context is one of the request's) on `device`.
    ///
    /// Fails if what was asked for does not fit, or the GPU has no kernel for it.
    pub fn new(
        model: &Model,
        device: Option<&gpu::Device>,
        options: &Options,
        request: &Request,
        speeds: Speeds<'_>,
    ) -> Result<DevicePlan> {
        let planner = |context: usize| -> Result<Planner<'_>> {
            let options = Options { context, ..options.clone() };
            Ok(Planner::new(Sizes::of(model, device, &options)?, device, model.spec().layers.len(), request, context))
        };
        let (&least, larger) = request.contexts.split_last().ok_or_else(|| Error::usage("a context of 0 tokens"))?;
        for &context in &request.contexts {
            let one = planner(context)?;
            if request.layers != Layers::Auto || device.is_none() {
                match one.as_asked(speeds) {
                    Err(e) if e.kind() == ErrorKind::OutOfMemory && context > least => continue,
                    asked => return asked,
                }
            }
            if let Some(fit) = one.whole()? {
                return Ok(fit);
            }
        }
        let speeds = speeds()?;
        let fit = planner(least)?.split(&speeds)?;
        if fit.device_map.single() != Some(Place::Cpu) {
            return Ok(fit);
        }
        // Where nothing is on the GPU, nothing has to make room there: only the system's memory must have some left.
        let room = request.budget.cpu.map_or(u64::MAX, |bytes| bytes / 4);
        for &context in larger {
            let fit = planner(context)?.split(&speeds)?;
            if fit.device_map.single() == Some(Place::Cpu) && fit.prediction.memory[0].cache <= room {
                return Ok(fit);
            }
        }
        Ok(fit)
    }

    /// The time of a token, where it was not asked for while planning.
    pub fn with_speeds(
        mut self,
        model: &Model,
        device: Option<&gpu::Device>,
        options: &Options,
        speeds: &[DeviceRates; 2],
    ) -> Result<DevicePlan> {
        let options = Options { context: self.context, ..options.clone() };
        self.prediction = Sizes::of(model, device, &options)?.predict(&self.device_map, Some(speeds))?;
        Ok(self)
    }
}

/// Makes sure of a session's memory on `device` before anything is uploaded. A device map that nobody has planned leaves the attention
/// of layers to the CPU where the GPU has no kernel for it.
pub fn reserve(
    model: &Model,
    device: &gpu::Device,
    device_map: &mut DeviceMap,
    options: &Options,
) -> Result<gpu::Memory> {
    let mut memory = gpu::Memory::new(device, options.input_words(&options.cells(model.spec())));
    if device_map.uses(Place::Gpu) {
        let sizes = Sizes::of(model, Some(device), options)?;
        if options.device_map.is_none() {
            *device_map = sizes.possible(device_map.clone());
        }
        let prediction = sizes.predict(device_map, None)?;
        check(device, prediction.gpu_need(), device.budget_left())?;
        memory.reserve(&prediction.reserve[0], &prediction.reserve[1])?;
    }
    Ok(memory)
}

/// An error where `need` bytes are more than the device has.
fn check(device: &gpu::Device, need: u64, have: u64) -> Result<()> {
    if need <= have {
        return Ok(());
    }
    let name = &device.info().name;
    let what = format!("this needs {} of memory on {name}, of which {} may be used", human(need), human(have));
    Err(Error::new(ErrorKind::OutOfMemory, what).help(
        "leave the split to -ngl auto, or use fewer layers there (-ngl), a smaller context (-c) or cache (-ctk q8_0 -ctv q8_0)",
    ))
}

/// Plans with one context.
struct Planner<'a> {
    sizes: Sizes<'a>,
    device: Option<&'a gpu::Device>,
    layers: usize,
    request: &'a Request,
    /// The request's, and what the GPU has no kernel for.
    overrides: DeviceOverrides,
    /// The layers over whose cache the GPU has no kernel, and why.
    incapable: Option<(Vec<usize>, String)>,
    context: usize,
}

/// What somebody owns: bytes on the GPU, seconds on either device, whether the GPU can run it.
#[derive(Debug, Clone, Copy)]
struct Share {
    bytes: u64,
    seconds: [f64; 2],
    able: bool,
}

/// Consecutive stations on the GPU (the embedding is 0, the output comes last), and of how many layers in it, the first ones, the
/// experts are not.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Candidate {
    first: usize,
    end: usize,
    experts: usize,
}

impl<'a> Planner<'a> {
    fn new(
        sizes: Sizes<'a>,
        device: Option<&'a gpu::Device>,
        layers: usize,
        request: &'a Request,
        context: usize,
    ) -> Self {
        let incapable = sizes.incapable().map(|(layers, e)| (layers, e.what().to_string()));
        let cpu_caches = incapable.as_ref().map_or(Vec::new(), |(layers, _)| layers.clone());
        let overrides = DeviceOverrides { cpu_caches, ..request.overrides.clone() };
        Planner { sizes, device, layers, request, overrides, incapable, context }
    }

    fn name(&self) -> String {
        self.device.map_or_else(|| "the CPU".to_owned(), |d| d.info().name.clone())
    }

    fn fit(&self, device_map: DeviceMap, prediction: Prediction, whole: Option<u64>, mut why: String) -> DevicePlan {
        let wanted = self.request.contexts[0];
        if self.context < wanted {
            why += &format!(" with a context of {} instead of {wanted}", self.context);
        }
        let moved = |l: usize| device_map.blocks[l].main == Place::Gpu && !self.request.overrides.keep_cache(l);
        if let Some((layers, reason)) = &self.incapable
            && let n @ 1.. = layers.iter().filter(|l| moved(**l)).count()
        {
            why += &format!("; attention of {n} of its layers is left to the CPU, since {reason}");
        }
        DevicePlan { device_map, context: self.context, prediction, whole, why }
    }

    /// A device map that leaves no choice.
    fn as_asked(&self, speeds: Speeds<'_>) -> Result<DevicePlan> {
        let Some(device) = self.device else {
            let device_map = DeviceMap::cpu(self.layers);
            let prediction = self.sizes.predict(&device_map, None)?;
            return Ok(self.fit(device_map, prediction, None, "there is no GPU in use".to_owned()));
        };
        let (device_map, why) = match self.request.layers {
            Layers::Count(n) => (DeviceMap::last(self.layers, n), format!("-ngl {n} asks for it")),
            Layers::Auto | Layers::All => (DeviceMap::gpu(self.layers), "-ngl all asks for it".to_owned()),
        };
        let device_map = device_map.under(&self.overrides, self.sizes.graph());
        let split = device_map.single().is_none();
        let prediction = self.sizes.predict(&device_map, None)?;
        check(device, prediction.gpu_need(), self.request.budget.gpu.unwrap_or(u64::MAX))?;
        // The time is told where there is something to tell.
        let prediction = if split { self.sizes.predict(&device_map, Some(&speeds()?))? } else { prediction };
        Ok(self.fit(device_map, prediction, None, why))
    }

    /// All that overrides leave on the GPU, if it fits. Where attention cannot be there, whether the rest should is a matter of speed.
    fn whole(&self) -> Result<Option<DevicePlan>> {
        if self.incapable.is_some() {
            return Ok(None);
        }
        let device_map = DeviceMap::gpu(self.layers).under(&self.overrides, self.sizes.graph());
        let Ok(prediction) = self.sizes.predict(&device_map, None) else { return Ok(None) };
        let need = prediction.gpu_need();
        let Some(have) = self.request.budget.gpu else {
            let why = format!("nobody tells how much memory {} has", self.name());
            return Ok(Some(self.fit(device_map, prediction, Some(need), why)));
        };
        if need > have {
            return Ok(None);
        }
        let why = format!("it needs {} of the {} that may be used", human(need), human(have));
        Ok(Some(self.fit(device_map, prediction, Some(need), why)))
    }

    /// The best plan in which the CPU takes part.
    fn split(&self, speeds: &[DeviceRates; 2]) -> Result<DevicePlan> {
        let have = self.request.budget.gpu.unwrap_or(u64::MAX);
        let all = DeviceMap::gpu(self.layers).under(&self.overrides, self.sizes.graph());
        let whole = self.sizes.predict(&all, None).map(|p| p.gpu_need());
        let shares = self.shares(speeds);
        let software = self.device.is_some_and(|d| d.info().software);
        let mut ranked: Vec<(f64, Candidate)> = (self.candidates().into_iter())
            .filter_map(|c| self.rank(&shares, &c, speeds, have, software).map(|rank| (rank, c)))
            .collect();
        // Of those that take the same time the one with the fewest crossings, then the one with the last layers, as -ngl has it.
        let crossings = |c: &Candidate| usize::from(c.first > 0) + usize::from(c.end < self.layers + 2) + c.experts;
        let microseconds = |rank: f64| (rank * 1e6).round();
        ranked.sort_by(|(a, c), (b, d)| {
            let times = microseconds(*a).total_cmp(&microseconds(*b));
            times.then(crossings(c).cmp(&crossings(d))).then(d.first.cmp(&c.first))
        });
        for (_, candidate) in ranked {
            let device_map = self.device_map(&candidate);
            let Ok(prediction) = self.sizes.predict(&device_map, Some(speeds)) else { continue };
            if prediction.gpu_need() <= have {
                if device_map.single() == Some(Place::Cpu) {
                    break;
                }
                let why = self.why(&device_map, whole.as_ref(), have);
                return Ok(self.fit(device_map, prediction, whole.ok(), why));
            }
        }
        // What overrides put on the GPU stays there.
        let device_map = DeviceMap::cpu(self.layers).under(&self.overrides, self.sizes.graph());
        let prediction = self.sizes.predict(&device_map, Some(speeds))?;
        if let Some(device) = self.device {
            check(device, prediction.gpu_need(), have)?;
        }
        let mut why = format!("not even one layer pays or fits in the {} of GPU memory that may be used", human(have));
        if let Err(e) = &whole {
            why += &format!("; the GPU cannot run all of it: {}", e.what());
        }
        Ok(self.fit(device_map, prediction, whole.ok(), why))
    }

    fn why(&self, device_map: &DeviceMap, whole: Result<&u64, &Error>, have: u64) -> String {
        let margin = match self.request.budget.margin {
            0 => String::new(),
            margin => format!(", {} being kept free", human(margin)),
        };
        let need = match whole {
            Ok(need) => format!("all of it needs {}", human(*need)),
            Err(e) => format!("the GPU cannot run all of it ({})", e.what()),
        };
        let apart = |l: &usize| {
            let block = &device_map.blocks[*l];
            block.main == Place::Gpu && block.experts == Place::Cpu && self.has_experts(*l)
        };
        let experts = (0..self.layers).filter(apart).count();
        let apart =
            if experts > 0 { format!(" (the experts of {experts} of them in system memory)") } else { String::new() };
        format!("{need} and {} may be used{margin}{apart}", human(have))
    }

    /// By owner, the fixed ones left out: they are where they are.
    fn shares(&self, speeds: &[DeviceRates; 2]) -> HashMap<NodeOwner, Share> {
        let graph = self.sizes.graph();
        let owners = owners(graph, &self.request.overrides.tensors);
        let mut shares: HashMap<NodeOwner, Share> = Default::default();
        let mut known: HashMap<gpu::Key, u64> = Default::default();
        // Backwards: what the embedding and the output share counts as the output's.
        for (i, owner) in owners.into_iter().enumerate().rev() {
            let share = shares.entry(owner).or_insert(Share { bytes: 0, seconds: [0.0; 2], able: true });
            match &self.sizes.needs[0][i] {
                Ok(needs) => {
                    for (key, bytes) in &needs.fixed {
                        share.bytes += if known.insert(key.clone(), *bytes).is_none() { *bytes } else { 0 };
                    }
                }
                Err(_) => share.able = false,
            }
            for (seconds, speed) in share.seconds.iter_mut().zip(speeds) {
                *seconds += speed.seconds(graph, &graph.nodes[i], super::predict::DEPTH / 2);
            }
        }
        for (cache, bytes) in self.sizes.caches() {
            if let Some(share) = shares.get_mut(&NodeOwner::Cache(cache.layer as usize)) {
                share.bytes += bytes;
            }
        }
        shares
    }

    /// The device maps that are looked at.
    fn candidates(&self) -> Vec<Candidate> {
        let stations = self.layers + 2;
        let mixture = (0..self.layers).any(|l| self.has_experts(l));
        // The CPU alone, to begin with: a GPU may be slower, or not worth the way.
        let mut all = vec![Candidate { first: 0, end: 0, experts: 0 }];
        for first in 0..stations {
            for end in first + 1..=stations {
                all.push(Candidate { first, end, experts: 0 });
                let layers = end.min(self.layers + 1).saturating_sub(first.max(1));
                // Experts apart pay where all the rest is there, or where not even all of that fits.
                if mixture && end + 1 >= stations {
                    all.extend((1..=layers).map(|experts| Candidate { first, end, experts }));
                } else if mixture && layers > 0 {
                    all.push(Candidate { first, end, experts: layers });
                }
            }
        }
        all
    }

    fn has_experts(&self, layer: usize) -> bool {
        let experts = |n: &crate::graph::Node| n.layer == Some(layer as u32) && n.op.expert_ids().is_some();
        self.sizes.graph().nodes.iter().any(experts)
    }

    fn device_map(&self, candidate: &Candidate) -> DeviceMap {
        let mut device_map = DeviceMap::cpu(self.layers);
        let inside = |station| candidate.first <= station && station < candidate.end;
        let place = |inside| if inside { Place::Gpu } else { Place::Cpu };
        (device_map.input, device_map.output) = (place(inside(0)), place(inside(self.layers + 1)));
        let from = candidate.first.max(1) - 1;
        for (l, block) in device_map.blocks.iter_mut().enumerate() {
            *block = super::LayerDevices::whole(place(inside(l + 1)));
            if l < from + candidate.experts {
                block.experts = Place::Cpu;
            }
        }
        device_map.under(&self.overrides, self.sizes.graph())
    }

    /// The estimated seconds of a token; `None` for what cannot be, or takes more than `have` bytes without any temporaries: those
    /// depend on the split, and are counted when its turn comes.
    ///
    /// A software adapter is slower than the CPU that it is. It is only there where somebody wants to see what a GPU would do:
    /// so with one, only the CPU's own time counts.
    fn rank(
        &self,
        shares: &HashMap<NodeOwner, Share>,
        candidate: &Candidate,
        speeds: &[DeviceRates; 2],
        have: u64,
        software: bool,
    ) -> Option<f64> {
        let inside = |station| candidate.first <= station && station < candidate.end;
        let from = candidate.first.max(1) - 1;
        let overrides = &self.overrides;
        let (mut bytes, mut seconds, mut apart, mut used) = (0, 0.0, 0, false);
        for (owner, share) in shares {
            let on_gpu = match owner {
                NodeOwner::Input => inside(0),
                NodeOwner::Output => inside(self.layers + 1),
                NodeOwner::Main(l) => inside(l + 1),
                NodeOwner::Cache(l) => inside(l + 1) && !overrides.keep_cache(*l),
                NodeOwner::Experts(l) => inside(l + 1) && *l >= overrides.cpu_experts.max(from + candidate.experts),
                NodeOwner::Fixed(on_gpu) => *on_gpu,
            };
            let leaves = matches!(owner, NodeOwner::Experts(_) | NodeOwner::Cache(_)) && !on_gpu;
            apart +=
                usize::from(leaves && matches!(owner, NodeOwner::Experts(l) | NodeOwner::Cache(l) if inside(l + 1)));
            if on_gpu {
                used = true;
                if !share.able {
                    return None;
                }
                bytes += share.bytes;
            }
            seconds += if on_gpu && software { 0.0 } else { share.seconds[usize::from(on_gpu)] };
        }
        let waits = if software || !used { 0.0 } else { (1 + apart) as f64 * speeds[1].round_trip };
        (bytes <= have).then_some(seconds + waits)
    }
}
