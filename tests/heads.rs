//! Heads of any size on devices of any size: what the GPU has no kernel for is left to the CPU, whoever asks for it, and it is said.
//! 16 KiB of workgroup memory are what browsers promise.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use std::sync::Arc;
use wgpu_llm::low_level::base::{DType, Result};
use wgpu_llm::low_level::gpu::Device;
use wgpu_llm::low_level::graph::Place;
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::ops::nmse;
use wgpu_llm::low_level::plan::budget::Budget;
use wgpu_llm::low_level::plan::fit::{DevicePlan, Layers, Request};
use wgpu_llm::low_level::plan::rates::DeviceRates;
use wgpu_llm::low_level::plan::{DeviceOverrides, Options};
use wgpu_llm::low_level::run::Session;

const TOKENS: u32 = 40;

/// A device with so many KiB of workgroup memory.
fn device(test: &str, shared: u32) -> Option<Device> {
    let mut device = device::open(test)?;
    device.restrict(|caps| caps.max_shared = caps.max_shared.min(shared << 10));
    Some(device)
}

/// A tiny llama with heads of `dim` channels.
fn model(dim: usize) -> Arc<Model> {
    let json = fixture::with_heads(fixture::json("llama-dense"), dim);
    Arc::new(Model::new(fixture::gguf(&json).expect("a file")).expect("a model"))
}

fn options() -> Options {
    Options { context: 256, batch: 64, kv: DType::F32.into(), threads: 1, ..Options::default() }
}

/// The logits of a prompt's last token and of some single tokens after it.
fn logits(session: &mut Session) -> Vec<f32> {
    let tokens: Vec<u32> = (0..TOKENS).map(|i| i * 37 % 128).collect();
    let (prompt, rest) = tokens.split_at(tokens.len() - 3);
    let mut all = session.logits(prompt, &[prompt.len() - 1]).expect("logits").concat();
    for token in rest {
        all.extend(session.logits(&[*token], &[0]).expect("logits").concat());
    }
    all
}

#[track_caller]
fn gives_what_the_cpu_gives(model: &Arc<Model>, session: &mut Session) {
    let want = logits(&mut Session::new(model.clone(), None, options()).expect("a session"));
    let want: Vec<f64> = want.into_iter().map(f64::from).collect();
    let error = nmse(&logits(session), &want);
    println!("nmse {error:.1e}");
    assert!(error < 1e-6, "nmse {error}");
}

#[test]
fn large_heads_run_on_small_devices() {
    let test = "large_heads_run_on_small_devices";
    for (dim, shared) in [(512, 16), (576, 16), (1024, 32), (1024, 16)] {
        let Some(device) = device(test, shared) else { return };
        let model = model(dim);
        let mut session = Session::new(model.clone(), Some(device), options()).expect("a session");
        assert_eq!(session.engine().device_map().single(), Some(Place::Gpu), "heads of {dim} in {shared} KiB");
        gives_what_the_cpu_gives(&model, &mut session);
    }
}

/// As fast as the CPU at anything but small steps, so that plans take it where they may.
fn speeds() -> Result<[DeviceRates; 2]> {
    let cpu = DeviceRates { bytes: 1e10, weights: 2e10, step: 1e-7, round_trip: 1e-7 };
    Ok([cpu, DeviceRates { bytes: 1e11, weights: 2e11, step: 1e-7, round_trip: 1e-7 }])
}

#[test]
fn attention_without_a_kernel_is_left_to_the_cpu() {
    let test = "attention_without_a_kernel_is_left_to_the_cpu";
    let model = model(4096);
    for layers in [Layers::Auto, Layers::All, Layers::Count(3)] {
        let Some(device) = device(test, 16) else { return };
        let budget = Budget::new(None, None, Some(1 << 30), None);
        let request = Request { layers, overrides: DeviceOverrides::default(), budget, contexts: vec![256] };
        let fit = DevicePlan::new(&model, Some(&device), &options(), &request, &mut speeds).expect("a plan");
        let places: Vec<_> = fit.device_map.blocks.iter().map(|b| (b.main, b.cache)).collect();
        assert_eq!(places, [(Place::Gpu, Place::Cpu); 2], "{layers:?}: {}", fit.why);
        for part in ["attention of 2 of its layers is left to the CPU", "cannot run on"] {
            assert!(fit.why.contains(part), "{layers:?}: {part}: {}", fit.why);
        }
        let planned = Options { device_map: Some(fit.device_map), ..options() };
        gives_what_the_cpu_gives(&model, &mut Session::new(model.clone(), Some(device), planned).expect("a session"));
    }
    // Whoever plans nothing gets the same.
    let Some(device) = device(test, 16) else { return };
    let mut session = Session::new(model.clone(), Some(device), options()).expect("a session");
    assert!(session.engine().device_map().blocks.iter().all(|b| (b.main, b.cache) == (Place::Gpu, Place::Cpu)));
    gives_what_the_cpu_gives(&model, &mut session);
}
