//! What a session is made of, for its profile.

use super::profile::{DeviceFacts, Facts, LayerFacts};
use super::roofline::Roofline;
use super::trace::{CPU, GPU};
use super::{Options, Placement};
use crate::gpu;
use crate::model::Model;

/// Rooflines of the CPU and of the GPU, where they were measured.
pub(super) type Rooflines = [Option<Roofline>; 2];

/// The facts of a session of `model`.
pub(super) fn facts(
    model: &Model,
    options: &Options,
    placement: Placement,
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
    };
    let gpu = device.map(|device| DeviceFacts {
        kind: "GPU".into(),
        name: device.info().name.clone(),
        driver: format!("{} {}", device.info().backend, device.info().driver),
        roofline: rooflines[GPU],
    });
    Facts {
        architecture: model.spec().architecture().to_string(),
        weights: model.weight_bytes(),
        context: options.context,
        kv: options.kv.name().into(),
        devices: [cpu].into_iter().chain(gpu).collect(),
        placement: layers(model, placement),
    }
}

fn layers(model: &Model, placement: Placement) -> Vec<LayerFacts> {
    let mut weights = vec![0; placement.layers];
    let mut rest = 0;
    for tensor in model.gguf().tensors() {
        let layer = tensor.name.strip_prefix("blk.").and_then(|n| n.split('.').next()?.parse::<usize>().ok());
        match layer.and_then(|l| weights.get_mut(l)) {
            Some(sum) => *sum += tensor.bytes() as u64,
            None => rest += tensor.bytes() as u64,
        }
    }
    let device = |on_gpu| if on_gpu { GPU } else { CPU };
    let of_layer = |(i, weights)| LayerFacts {
        layer: Some(i as u32),
        device: device(i + placement.gpu_layers > placement.layers),
        weights,
    };
    let rest = LayerFacts { layer: None, device: device(placement.gpu_layers > 0), weights: rest };
    weights.into_iter().enumerate().map(of_layer).chain([rest]).collect()
}
