//! Properties that a device is tested for when it is opened, since neither limits nor features report them. Shaders: probe.wgsl, probe_subgroups.wgsl.

use super::device::{Device, IN_BROWSER};
use super::preprocess::{Target, expand};
use super::signal::Signal;
use crate::base::{Error, ErrorKind, Result};
use crate::ops::{Bind, Kernel, Pass};

/// Pairs of f16 that are tried: subnormals of either sign, the smallest normal number, ordinary ones.
const PAIRS: [u32; 4] = [0x8001_0001, 0x03ff_0200, 0x0400_83ff, 0x3c00_c248];

/// Whether `unpack2x16float` keeps subnormals: source 0 are pairs of f16, the result are their values.
pub fn halves() -> Kernel {
    let pass = Pass {
        shader: "probe",
        consts: vec![("WG", PAIRS.len() as u32)],
        binds: vec![("x", Bind::Src(0)), ("y", Bind::Dst)],
        workgroups: [1, 1, 1],
        ..Pass::default()
    };
    Kernel::single("plain", pass)
}

/// The subgroups of a workgroup of `threads`: the size and the number of them, as each thread sees it.
pub fn subgroups(threads: u32) -> Kernel {
    let pass = Pass {
        shader: "probe_subgroups",
        flags: vec!["SUBGROUPS"],
        consts: vec![("WG", threads)],
        binds: vec![("y", Bind::Dst)],
        workgroups: [1, 1, 1],
        ..Pass::default()
    };
    Kernel::single("plain", pass)
}

fn entry(binding: u32, buffer: &wgpu::Buffer) -> wgpu::BindGroupEntry<'_> {
    wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() }
}

/// Whether `unpack2x16float` keeps subnormals on `device`. A device that fails meanwhile does not: whoever uses it next hears why.
pub(super) async fn keeps_subnormals(device: &Device) -> bool {
    let half = |bits: u32| f32::from(half::f16::from_bits(bits as u16)).to_bits();
    let want: Vec<u32> = PAIRS.iter().flat_map(|pair| [half(*pair), half(*pair >> 16)]).collect();
    run(device, &halves(), &PAIRS, want.len()).await.is_ok_and(|got| got == want)
}

/// The size of the subgroups that `device` makes of a workgroup, if all have the same.
pub async fn subgroup_size(device: &Device) -> Option<u32> {
    let caps = device.caps();
    let (smallest, largest) = caps.subgroups?;
    let threads = (4 * largest).min(caps.max_invocations);
    let got = run(device, &subgroups(threads), &[], 2 * threads as usize).await.ok()?;
    let (size, count) = (got[0], got[1]);
    let same = got.chunks_exact(2).all(|of| of == [size, count]);
    (same && (smallest..=largest).contains(&size) && size * count == threads).then_some(size)
}

async fn run(device: &Device, kernel: &Kernel, words: &[u32], results: usize) -> Result<Vec<u32>> {
    let raw = &device.inner.raw;
    let target = if IN_BROWSER { Target::Browser } else { Target::Naga };
    let text = expand(&kernel.passes[0], target)?.text;
    let module = device.module("probe", wgpu::ShaderSource::Wgsl(text.into()));
    let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("probe"),
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let bytes = 4 * results as u64;
    let buffer = |size: u64, usage| {
        let label = Some("probe");
        raw.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
    };
    use wgpu::BufferUsages as Usage;
    let x = buffer(4 * words.len().max(1) as u64, Usage::STORAGE | Usage::COPY_DST);
    let y = buffer(bytes, Usage::STORAGE | Usage::COPY_SRC);
    let out = buffer(bytes, Usage::MAP_READ | Usage::COPY_DST);
    device.inner.queue.write_buffer(&x, 0, bytemuck::cast_slice(words));
    let (both, alone) = ([entry(0, &x), entry(1, &y)], [entry(0, &y)]);
    let group = raw.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("probe"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: if words.is_empty() { &alone } else { &both },
    });
    let mut encoder = device.encoder();
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
    }
    encoder.copy_buffer_to_buffer(&y, 0, &out, 0, Some(bytes));
    let after = device.inner.queue.submit([encoder.finish()]);
    let mapped = Signal::default();
    let sender = mapped.clone();
    out.map_async(wgpu::MapMode::Read, .., move |result| sender.send(result.is_ok()));
    device.drive(&mapped, Some(after))?;
    mapped.await;
    device.check()?;
    match out.get_mapped_range(..) {
        Ok(view) => Ok(bytemuck::pod_collect_to_vec(&view)),
        Err(_) => Err(Error::new(ErrorKind::DeviceLost, "the first results did not come")),
    }
}
