//! The decoders in shaders/quant/: valid WGSL, and on a device the same bits as on the CPU.

use std::collections::HashSet;
use std::path::Path;
use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::quant::{self, GpuPlanes};

/// A shader's text with its imports, each once, in front, and without what any flag would add.
fn import(name: &str, seen: &mut HashSet<String>) -> String {
    if !seen.insert(name.to_owned()) {
        return String::new();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders").join(name).with_extension("wgsl");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // What lies between #if and #else is left out.
    let mut left_out = false;
    let line = |line: &str| match line.split_once(' ').map_or((line, ""), |(word, rest)| (word, rest.trim())) {
        ("#if", _) | ("#else" | "#end", "") => {
            left_out = line.starts_with("#if");
            String::new()
        }
        _ if left_out => String::new(),
        ("#import", name) => import(name, seen),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A kernel that decodes everything, eight or 32 weights at a time.
fn kernel(dtype: DType, at_a_time: u32) -> String {
    let head = "
struct Params { planes: vec4<u32>, count: u32 }
@group(0) @binding(0) var<storage, read> wq: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> wd: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
";
    let main = format!(
        "
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    if id.x >= params.count {{ return; }}
    var w = quant_w{at_a_time}(id.x);
    for (var j = 0u; j < {n}u; j++) {{ y[{n}u * id.x + j] = w[j]; }}
}}
",
        n = at_a_time / 4
    );
    head.to_owned() + &import(&format!("quant/{dtype}"), &mut HashSet::new()) + &main
}

#[test]
fn every_decoder_is_valid_wgsl() {
    for &dtype in quant::SUPPORTED {
        for at_a_time in [8, 32] {
            let text = kernel(dtype, at_a_time);
            let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
            let mut validator = naga::valid::Validator::new(
                naga::valid::ValidationFlags::all(),
                naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32,
            );
            validator.validate(&module).unwrap_or_else(|e| panic!("{dtype}: {}", e.emit_to_string(&text)));
        }
    }
}

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Whether it is a CPU in disguise, which rounds as the CPU does.
    software: bool,
}

/// A device; none if there is no adapter, which `WGPU_LLM_GPU=require` forbids.
fn gpu() -> Option<Gpu> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = match pollster::block_on(instance.request_adapter(&Default::default())) {
        Ok(adapter) => adapter,
        Err(e) => {
            assert!(std::env::var("WGPU_LLM_GPU").as_deref() != Ok("require"), "WGPU_LLM_GPU=require, but: {e}");
            println!("skipped: no GPU adapter ({e})");
            return None;
        }
    };
    println!("on {:?}", adapter.get_info().name);
    let software = adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).expect("a device");
    Some(Gpu { device, queue, software })
}

impl Gpu {
    fn buffer(&self, words: &[u32], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * words.len() as u64,
            usage: usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        buffer
    }

    /// The `n` decoded weights.
    fn decode(&self, text: &str, layout: &[u32], planes: GpuPlanes, n: usize, at_a_time: usize) -> Vec<f32> {
        use wgpu::BufferUsages as Usage;
        let (group_layout, pipeline) = self.pipeline(text);
        let count = (n / at_a_time) as u32;
        let [a, b, c, d] = planes.planes;
        let weights = self.buffer(layout, Usage::STORAGE);
        let params = self.buffer(&[a, b, c, d, count, 0, 0, 0], Usage::UNIFORM);
        let out = self.buffer(&vec![f32::NAN.to_bits(); n], Usage::STORAGE);
        let buffers = [&weights, &weights, &params, &out];
        let entries: [_; 4] = std::array::from_fn(|i| wgpu::BindGroupEntry {
            binding: i as u32,
            resource: buffers[i].as_entire_binding(),
        });
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &group_layout,
            entries: &entries,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(count.div_ceil(64), 1, 1);
        drop(pass);
        self.queue.submit([encoder.finish()]);
        self.read(&out)
    }

    /// The layout is given, not inferred: plain types do not use every binding.
    fn pipeline(&self, text: &str) -> (wgpu::BindGroupLayout, wgpu::ComputePipeline) {
        use wgpu::BufferBindingType::{Storage, Uniform};
        let kinds = [Storage { read_only: true }, Storage { read_only: true }, Uniform, Storage { read_only: false }];
        let entry = |(binding, ty)| wgpu::BindGroupLayoutEntry {
            binding: binding as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let entries: Vec<_> = kinds.into_iter().enumerate().map(entry).collect();
        let device = &self.device;
        let group =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&layout),
            module: &module,
            entry_point: None,
            compilation_options: Default::default(),
            cache: None,
        });
        (group, pipeline)
    }

    fn read(&self, from: &wgpu::Buffer) -> Vec<f32> {
        let back = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: from.size(),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(from, 0, &back, 0, from.size());
        self.queue.submit([encoder.finish()]);
        back.map_async(wgpu::MapMode::Read, .., |r| r.expect("mapped"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
        let view = back.get_mapped_range(..).expect("mapped");
        bytemuck::pod_collect_to_vec(&view[..])
    }
}

/// Rows of ever smaller weights, down to subnormal scales.
fn weights(dtype: DType, rows: usize, k: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut draw = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let x: Vec<f32> = (0..rows * k).map(|i| draw() * draw() * 0.1f32.powi((i / k) as i32)).collect();
    let mut bytes = vec![0; dtype.row_bytes(rows * k).unwrap()];
    quant::encode(dtype, &x, k, &mut bytes);
    if dtype == DType::MXFP4 {
        // Exponents at the lower end, where the scale is subnormal.
        (0..6).for_each(|e| bytes[17 * e as usize] = e);
    }
    bytes
}

/// Decoded on the CPU, with the padding of the GPU layout.
fn expected(dtype: DType, bytes: &[u8], rows: usize, k: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * quant::gpu_padded(k)];
    for (from, to) in bytes.chunks_exact(bytes.len() / rows).zip(out.chunks_exact_mut(quant::gpu_padded(k))) {
        quant::decode(dtype, from, &mut to[..k]);
    }
    out
}

#[test]
fn every_decoder_gives_the_cpus_bits() {
    let Some(gpu) = gpu() else { return };
    for &dtype in quant::SUPPORTED {
        let (rows, k) = (7, if dtype.is_quantized() { 768 } else { 50 });
        let bytes = weights(dtype, rows, k);
        let want = expected(dtype, &bytes, rows, k);
        let layout = quant::gpu_layout(dtype, rows, k, &bytes);
        let planes = quant::gpu_planes(dtype, rows, k);
        for at_a_time in [8, 32] {
            let text = kernel(dtype, at_a_time);
            let got = gpu.decode(&text, &layout, planes, want.len(), at_a_time as usize);
            for (i, (&w, &g)) in want.iter().zip(&got).enumerate() {
                // Other devices may fuse d · q + m into one rounding, and flush subnormals.
                let size = want[i / 32 * 32..][..32].iter().fold(1e-30f32, |m, v| m.max(v.abs()));
                let near = !gpu.software && (w - g).abs() <= 1e-6 * size;
                assert!(w.to_bits() == g.to_bits() || near, "{dtype} by {at_a_time}, weight {i}: {g:e}, CPU {w:e}");
            }
        }
    }
}
