//! From a segment of a graph to a [`Program`]: which kernel each node runs, its weights, parameters and bind groups.

use super::cost;
use super::device::{Buffer, Device};
use super::memory::Memory;
use super::pipeline::Entry;
use super::readback::Ring;
use super::runner::{BoundBuffers, Choose, Program, Step, byte_offset};
use super::shader::Binding;
use super::weights::{Stacked, TensorSlice, Weights, is_plain};
use crate::base::{Error, Meta, Result, human};
use crate::graph::{BufId, Graph, Node, Place, Schedule, Storage, Tensor};
use crate::ops::{Bind, Kernel, Pass, Stack, weight_shards};
use crate::quant;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a program is made of, while it is made.
pub(super) struct Builder<'a> {
    device: &'a Device,
    graph: &'a Graph,
    schedule: &'a Schedule,
    homes: HashMap<BufId, Arc<Buffer>>,
    /// Weights and constants.
    fixed: HashMap<Fixed, BoundBuffers>,
}

/// What was uploaded.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Fixed {
    Whole(BufId),
    Shards(Stacked),
    Vectors(Stacked),
}

/// A dispatch with its shader and the bytes of its parameters; its bind group is still to be made.
struct Ready<'a> {
    node: usize,
    tensors: &'a Node,
    pass: Pass,
    entry: Arc<Entry>,
    params: Vec<u8>,
    /// Its part of the node's work.
    share: f64,
}

impl<'a> Builder<'a> {
    pub fn new(device: &'a Device, graph: &'a Graph, schedule: &'a Schedule) -> Self {
        Builder { device, graph, schedule, homes: HashMap::new(), fixed: HashMap::new() }
    }

    pub async fn build(
        mut self,
        nodes: Range<usize>,
        memory: &mut Memory,
        weights: &mut Weights,
        choose: Choose<'_>,
    ) -> Result<Program> {
        self.make_homes(nodes.clone(), memory)?;
        let (mut ready, mut kernels, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        let mut sizes: Vec<usize> = Vec::new();
        let mut weight_bytes = 0.0;
        for i in nodes {
            let node = &self.graph.nodes[i];
            let at = || format!("{} {}", node.op.name(), node.label);
            let kernel = self.kernel(i, choose).map_err(|e| e.at(at()))?;
            kernels.push((i, node.op.name(), kernel.variant));
            sizes.resize(sizes.len().max(kernel.scratch.len()), 0);
            sizes.iter_mut().zip(&kernel.scratch).for_each(|(size, need)| *size = (*size).max(*need));
            self.upload(node, &kernel, weights).await?;
            weight_bytes += self.weight_bytes(node, &kernel);
            let passes: Vec<Pass> = kernel.passes.into_iter().filter(|p| !p.workgroups.contains(&0)).collect();
            costs.extend(cost::seconds(node, &passes, self.device.caps()));
            for (share, pass) in cost::shares(&passes).into_iter().zip(passes) {
                ready.push(Ready { share, ..self.prepare(i, node, pass).map_err(|e| e.at(at()))? });
            }
        }
        let scratch = memory.scratch(&sizes)?;
        let (steps, uniforms) = self.steps(ready, &scratch)?;
        let bound =
            self.fixed.into_values().chain(scratch.into_iter().chain([uniforms]).map(BoundBuffers::Whole)).collect();
        Ok(Program {
            device: self.device.clone(),
            steps,
            longest: cost::longest(&costs),
            cuts: cost::cut(&costs),
            kernels,
            homes: self.homes,
            weight_bytes: weight_bytes as u64,
            ring: Ring::default(),
            queries: None,
            bound,
        })
    }

    /// Buffers for all temporaries of this place, and for the inputs and caches that `nodes` use.
    fn make_homes(&mut self, nodes: Range<usize>, memory: &mut Memory) -> Result<()> {
        let sizes = self.schedule.slots.get(&Place::Gpu).map_or(&[][..], Vec::as_slice);
        let slots = memory.temps(sizes)?;
        for ((_, buf), slot) in self.schedule.slot_of.iter().filter(|((place, _), _)| *place == Place::Gpu) {
            self.homes.insert(*buf, slots[*slot].clone());
        }
        for node in &self.graph.nodes[nodes] {
            for t in node.src.iter().chain([&node.dst]) {
                let meta = &self.graph.buffers[t.buf.0 as usize].meta;
                let home = match self.graph.storage(t) {
                    Storage::Input(input) => memory.input(*input, meta.span_bytes())?,
                    Storage::Cache(cache) => memory.cache(*cache, cache_bytes(meta))?,
                    Storage::Weight(_) | Storage::Const(..) | Storage::Temp => continue,
                };
                self.homes.insert(t.buf, home);
            }
        }
        Ok(())
    }

    /// The first kernel of node `i` whose bindings fit.
    pub fn kernel(&self, i: usize, choose: Choose<'_>) -> Result<Kernel> {
        let node = &self.graph.nodes[i];
        let src: Vec<Meta> = node.src.iter().map(|t| t.meta).collect();
        let kernels = choose(i, node.op.gpu(&src, &node.dst.meta, self.device.caps()));
        let mut reason = "its limits allow no kernel of this size".to_owned();
        'kernels: for kernel in kernels {
            for pass in &kernel.passes {
                let entry = self.device.inner.pipelines.shader(pass)?;
                let unfit = pass.binds.iter().find_map(|(name, bind)| {
                    let binding = entry.shader.binding(name)?;
                    self.unfit(node, *bind, binding, entry.shader.takes_offset(name))
                });
                if let Some(why) = entry.shader.unfit(self.device.caps()).or(unfit) {
                    reason = why;
                    continue 'kernels;
                }
            }
            return Ok(kernel);
        }
        Err(Error::unsupported(format!("{} cannot run on {}: {reason}", node.op.name(), self.device.info().name))
            .help("use --device cpu"))
    }

    /// Why a tensor cannot be bound like this.
    fn unfit(&self, node: &Node, bind: Bind, binding: &Binding, takes_offset: bool) -> Option<String> {
        let t = match bind {
            Bind::Scratch(_) => return None,
            Bind::Dst => &node.dst,
            Bind::Src(i) => &node.src[i],
            Bind::Shard { of, part } => return self.unfit_shard(node, of, part, &binding.name),
            Bind::Stack(of) => {
                return (!self.are_weights(node, of)).then(|| format!("{} is no weight", binding.name));
            }
        };
        if matches!(self.graph.storage(t), Storage::Weight(_)) && !is_plain(t.meta.dtype) {
            return Some(format!("{} is {}", binding.name, t.meta.dtype));
        }
        let (at, align) = (byte_offset(t), self.device.alignment().0);
        let unit = if takes_offset { binding.stride as u64 } else { align };
        if !at.is_multiple_of(unit) {
            return Some(format!("{} begins at byte {at}, no multiple of {unit}", binding.name));
        }
        let span = if takes_offset { at } else { 0 } + t.meta.span_bytes() as u64;
        let limit = self.device.caps().max_binding;
        (span > limit).then(|| format!("{} takes {}, {} can be bound", binding.name, human(span), human(limit)))
    }

    /// Why part `part` of the weights `of` cannot be bound.
    fn unfit_shard(&self, node: &Node, of: Stack, part: usize, name: &str) -> Option<String> {
        if !self.are_weights(node, of) {
            return Some(format!("{name} is no weight"));
        }
        // Experts are not cut: one alone may be too large.
        let (caps, meta) = (self.device.caps(), self.stacked(node, of).meta());
        let rows = weight_shards(&meta, caps)[part].len();
        let bytes = 4 * quant::gpu_planes(meta.dtype, rows, meta.shape.row()).words as u64;
        (bytes > caps.max_binding)
            .then(|| format!("{name} takes {}, {} can be bound", human(bytes), human(caps.max_binding)))
    }

    fn are_weights(&self, node: &Node, of: Stack) -> bool {
        node.src[of.sources()].iter().all(|t| matches!(self.graph.storage(t), Storage::Weight(_)))
    }

    /// The weights that `of` means.
    pub fn stacked(&self, node: &Node, of: Stack) -> Stacked {
        let part = |t: &Tensor| match self.graph.storage(t) {
            Storage::Weight(name) => TensorSlice { name: name.clone(), meta: t.meta, offset: t.offset },
            other => unreachable!("{other:?} is no weight"),
        };
        Stacked { parts: node.src[of.sources()].iter().map(part).collect(), interleaved: of.interleaved }
    }

    /// Sees to it that the weights and constants that `kernel` reads are on the device.
    async fn upload(&mut self, node: &Node, kernel: &Kernel, weights: &mut Weights) -> Result<()> {
        for (_, bind) in kernel.passes.iter().flat_map(|p| &p.binds) {
            let Some(key) = self.key(node, *bind) else { continue };
            if self.fixed.contains_key(&key) {
                continue;
            }
            let bound = match &key {
                Fixed::Shards(stack) => BoundBuffers::Shards(weights.sharded(stack).await?),
                Fixed::Vectors(stack) => BoundBuffers::Whole(weights.vectors(stack).await?),
                Fixed::Whole(buf) => {
                    let buffer = &self.graph.buffers[buf.0 as usize];
                    match &buffer.storage {
                        Storage::Weight(name) => BoundBuffers::Whole(weights.plain(name, &buffer.meta).await?),
                        Storage::Const(label, bytes) => BoundBuffers::Whole(weights.constant(label, bytes).await?),
                        Storage::Input(_) | Storage::Cache(_) | Storage::Temp => continue,
                    }
                }
            };
            self.fixed.insert(key, bound);
        }
        Ok(())
    }

    /// Bytes of decoded weights that a kernel reads, if it reads each once.
    fn weight_bytes(&self, node: &Node, kernel: &Kernel) -> f64 {
        let shards = kernel.passes.iter().flat_map(|p| &p.binds).filter(|(name, _)| *name == "wq");
        let bytes = shards.filter_map(|(_, bind)| match (bind, &self.fixed[&self.key(node, *bind)?]) {
            (Bind::Shard { part, .. }, BoundBuffers::Shards(shards)) => Some(shards[*part].size as f64),
            _ => None,
        });
        bytes.sum::<f64>() * cost::share(node)
    }

    /// What a binding points at, among what is uploaded.
    fn key(&self, node: &Node, bind: Bind) -> Option<Fixed> {
        match bind {
            Bind::Src(i) => Some(Fixed::Whole(node.src[i].buf)),
            Bind::Shard { of, .. } => Some(Fixed::Shards(self.stacked(node, of))),
            Bind::Stack(of) => Some(Fixed::Vectors(self.stacked(node, of))),
            Bind::Dst | Bind::Scratch(_) => None,
        }
    }

    fn prepare(&self, i: usize, node: &'a Node, pass: Pass) -> Result<Ready<'a>> {
        let entry = self.device.inner.pipelines.shader(&pass)?;
        let bind = |name: &str| pass.binds.iter().find(|(n, _)| *n == name).map(|(_, bind)| *bind);
        let offset = |name: &str| match bind(name)? {
            Bind::Src(i) => Some(node.src[i].offset as u32),
            Bind::Dst => Some(node.dst.offset as u32),
            Bind::Shard { .. } | Bind::Stack(_) | Bind::Scratch(_) => Some(0),
        };
        let params = entry.shader.params(&pass.params, &offset)?;
        let missing = entry.shader.bindings.iter().find(|b| bind(&b.name).is_none());
        let unknown = pass.binds.iter().find(|(name, _)| entry.shader.binding(name).is_none());
        match (missing, unknown) {
            (Some(b), _) => {
                Err(Error::format(format!("binding {} of shaders/{}.wgsl is given nothing", b.name, pass.shader)))
            }
            (_, Some((name, _))) => Err(Error::format(format!("shaders/{}.wgsl has no binding {name}", pass.shader))),
            _ => {
                entry.pipeline(self.device, &pass)?;
                Ok(Ready { node: i, tensors: node, pass, entry, params, share: 1.0 })
            }
        }
    }

    /// Puts all parameters into one buffer and makes the bind groups.
    fn steps(&self, ready: Vec<Ready>, scratch: &[Arc<Buffer>]) -> Result<(Vec<Step>, Arc<Buffer>)> {
        let align = self.device.alignment().1 as usize;
        let mut bytes = Vec::new();
        let starts: Vec<usize> = ready
            .iter()
            .map(|r| {
                bytes.resize(bytes.len().next_multiple_of(align), 0);
                bytes.extend_from_slice(&r.params);
                bytes.len() - r.params.len()
            })
            .collect();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let uniforms = Arc::new(self.device.buffer("parameters", bytes.len() as u64, usage)?);
        self.device.write(&uniforms, 0, &bytes);
        let step = |(r, start): (Ready, usize)| {
            let group = self.bind_group(&r, &uniforms, start, scratch);
            Step { node: r.node, entry: r.entry, group, workgroups: r.pass.workgroups, share: r.share }
        };
        Ok((ready.into_iter().zip(starts).map(step).collect(), uniforms))
    }

    fn bind_group(&self, r: &Ready, uniforms: &Buffer, start: usize, scratch: &[Arc<Buffer>]) -> wgpu::BindGroup {
        let resource = |raw, offset: u64, size: u64| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: raw,
                offset,
                size: wgpu::BufferSize::new(size),
            })
        };
        let mut entries = Vec::new();
        if let Some(binding) = r.entry.shader.params_index() {
            let resource = resource(&uniforms.raw, start as u64, r.params.len() as u64);
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        for (name, bind) in &r.pass.binds {
            let binding = r.entry.shader.binding(name).expect("checked with the parameters");
            let (buffer, at) = match *bind {
                Bind::Scratch(i) => (&*scratch[i], 0),
                Bind::Dst => (self.whole(&r.tensors.dst), byte_offset(&r.tensors.dst)),
                Bind::Src(i) => (self.whole(&r.tensors.src[i]), byte_offset(&r.tensors.src[i])),
                of @ (Bind::Shard { .. } | Bind::Stack(_)) => {
                    let key = self.key(r.tensors, of).expect("weights have keys");
                    match (&self.fixed[&key], of) {
                        (BoundBuffers::Shards(shards), Bind::Shard { part, .. }) => (&shards[part], 0),
                        (BoundBuffers::Whole(buffer), _) => (&**buffer, 0),
                        _ => unreachable!("uploaded as it is bound"),
                    }
                }
            };
            // A shader that takes the offset as a parameter sees the whole buffer, any other only what begins there.
            let at = if r.entry.shader.takes_offset(name) { 0 } else { at };
            let size = (buffer.size - at).min(self.device.caps().max_binding);
            entries.push(wgpu::BindGroupEntry { binding: binding.index, resource: resource(&buffer.raw, at, size) });
        }
        self.device.inner.tally.bind_groups.fetch_add(1, Ordering::Relaxed);
        self.device.inner.raw.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(r.pass.shader),
            layout: &r.entry.compiled().layout,
            entries: &entries,
        })
    }

    /// The buffer that tensor `t` lies in, unless it is a weight in shards.
    fn whole(&self, t: &Tensor) -> &Buffer {
        match (self.homes.get(&t.buf), self.fixed.get(&Fixed::Whole(t.buf))) {
            (Some(buffer), _) => buffer,
            (None, Some(BoundBuffers::Whole(buffer))) => buffer,
            _ => unreachable!("every tensor has a home or was uploaded"),
        }
    }
}

/// Bytes of a cache, whose blocks lie in planes.
pub fn cache_bytes(meta: &Meta) -> usize {
    match meta.dtype.is_quantized() {
        true => 4 * quant::gpu_planes(meta.dtype, meta.outer(), meta.inner()).words,
        false => meta.span_bytes(),
    }
}
