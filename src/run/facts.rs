//! What a session is made of, for its profile.

use crate::gpu;
use crate::graph::Place;
use crate::model::Model;
use crate::plan::roofline::Roofline;
use crate::plan::{CPU, DeviceMap, GPU, Options};
use crate::profile::{DeviceFacts, Facts, LayerFacts};

/// Rooflines of the CPU and of the GPU, where they were measured.
pub(super) type Rooflines = [Option<Roofline>; 2];

/// The facts of a session of `model`.
pub(super) fn facts(
    model: &Model,
    options: &Options,
    device_map: &DeviceMap,
    threads: usize,
    device: Option<&gpu::Device>,
    rooflines: &Rooflines,
) -> Facts {
    let level = crate::simd::Level::best().name();
    let cpu = DeviceFacts {
        kind: "CPU".into(),
        name: "CPU".into(),
        driver: format!("{level}, {threads} threads"),
        roofline: rooflines[CPU],
        timing: String::new(),
    };
    let gpu = device.map(|device| DeviceFacts {
        kind: "GPU".into(),
        name: device.info().name.clone(),
        driver: format!("{} {}", device.info().backend, device.info().driver),
        roofline: rooflines[GPU],
        timing: match device.clock() {
            gpu::Clock::Host => "whole submissions, by the host's clock".into(),
            gpu::Clock::Passes | gpu::Clock::Dispatches => String::new(),
        },
    });
    Facts {
        architecture: model.spec().architecture().to_string(),
        weights: model.weight_bytes(),
        context: options.context,
        kv: options.kv.to_string(),
        devices: [cpu].into_iter().chain(gpu).collect(),
        placement: layers(model, device_map),
    }
}

fn layers(model: &Model, device_map: &DeviceMap) -> Vec<LayerFacts> {
    let mut weights = vec![0; device_map.blocks.len()];
    let mut rest = 0;
    for tensor in model.gguf().tensors() {
        let layer = tensor.name.strip_prefix("blk.").and_then(|n| n.split('.').next()?.parse::<usize>().ok());
        match layer.and_then(|l| weights.get_mut(l)) {
            Some(sum) => *sum += tensor.bytes() as u64,
            None => rest += tensor.bytes() as u64,
        }
    }
    let device = |place: Place| if place == Place::Gpu { GPU } else { CPU };
    let of_layer = |(i, weights): (usize, u64)| LayerFacts {
        layer: Some(i as u32),
        device: device(device_map.blocks[i].main),
        weights,
    };
    let rest = LayerFacts { layer: None, device: device(device_map.output), weights: rest };
    weights.into_iter().enumerate().map(of_layer).chain([rest]).collect()
}
