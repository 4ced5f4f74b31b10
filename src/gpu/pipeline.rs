//! Compiled shaders, kept by what they were made from.

use super::device::Device;
use super::pipeline_cache::PipelineCache;
use super::shader::Shader;
use crate::base::{DType, Error, Result};
use crate::ops::Pass;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

/// What a shader's text depends on. Flags and constants are in the order the op gives them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    shader: &'static str,
    quant: Option<DType>,
    flags: Vec<&'static str>,
    consts: Vec<(&'static str, u32)>,
}

/// A shader, and once it is needed its pipeline.
pub(super) struct Entry {
    pub shader: Shader,
    pipeline: OnceLock<Pipeline>,
}

/// A compiled shader.
pub(super) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// All shaders of a device.
#[derive(Default)]
pub(super) struct Pipelines(Mutex<HashMap<Key, Arc<Entry>>>);

impl Pipelines {
    /// The shader of `pass`; parsed the first time.
    pub fn shader(&self, pass: &Pass) -> Result<Arc<Entry>> {
        let key =
            Key { shader: pass.shader, quant: pass.quant, flags: pass.flags.clone(), consts: pass.consts.clone() };
        let mut known = self.0.lock().expect("no panic while it is held");
        if let Some(entry) = known.get(&key) {
            return Ok(entry.clone());
        }
        let entry = Arc::new(Entry { shader: Shader::new(pass)?, pipeline: OnceLock::new() });
        known.insert(key, entry.clone());
        Ok(entry)
    }
}

impl Entry {
    /// The pipeline; compiled the first time. The caller has an error scope open, if it wants to know about failures.
    pub fn pipeline(&self, device: &Device, pass: &Pass) -> Result<&Pipeline> {
        if let Some(pipeline) = self.pipeline.get() {
            return Ok(pipeline);
        }
        if let Some(why) = self.shader.unfit(device.caps()) {
            let what = format!("{} cannot run on {}: {why}", self.shader.name, device.info().name);
            return Err(Error::unsupported(what).help("use --device cpu"));
        }
        let pipeline = self.compile(device, pass)?;
        Ok(self.pipeline.get_or_init(|| pipeline))
    }

    /// The pipeline, which is there since [`pipeline`](Self::pipeline) made it.
    pub fn compiled(&self) -> &Pipeline {
        self.pipeline.get().expect("a program's pipelines are made with it")
    }

    fn compile(&self, device: &Device, pass: &Pass) -> Result<Pipeline> {
        let raw = &device.inner.raw;
        let label = Some(self.shader.name);
        let source = source(&self.shader, pass)?;
        let module = device.module(self.shader.name, source);
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let uniform = self.shader.params_index().map(|i| entry(i, wgpu::BufferBindingType::Uniform));
        let storage = self
            .shader
            .bindings
            .iter()
            .map(|b| entry(b.index, wgpu::BufferBindingType::Storage { read_only: !b.writes }));
        let entries: Vec<_> = uniform.into_iter().chain(storage).collect();
        let layout = raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: device.inner.pipeline_cache.get().map(PipelineCache::raw),
        });
        device.inner.tally.pipelines.fetch_add(1, Ordering::Relaxed);
        Ok(Pipeline { raw: pipeline, layout })
    }
}

/// What wgpu is handed: natively the module as parsed; in a browser text, since that has to state its extensions.
fn source(shader: &Shader, pass: &Pass) -> Result<wgpu::ShaderSource<'static>> {
    if super::device::IN_BROWSER {
        let text = super::preprocess::expand(pass, super::preprocess::Target::Browser)?.text;
        return Ok(wgpu::ShaderSource::Wgsl(text.into()));
    }
    Ok(wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(shader.module.clone())))
}
