//! Which part of a model goes to the GPU: the flags, and plans in words.

use crate::base::{Error, Result, human};
use crate::graph::Place;
use crate::open::{DeviceChoice, DeviceOptions};
use crate::plan::fit::{DevicePlan, Layers};
use crate::plan::{DeviceOverrides, TensorOverride};
use clap::Args;
use std::str::FromStr;

/// What goes where, and how much memory there is for it.
#[derive(Debug, Clone, Default, Args)]
pub struct SplitArgs {
    /// [-ot] Keep tensors whose names match on a device: REGEX=cpu or REGEX=gpu, separated by commas; the first that matches counts.
    #[arg(long, value_name = "REGEX=PLACE", value_delimiter = ',', env = "WGPU_LLM_OVERRIDE_TENSOR")]
    pub override_tensor: Vec<TensorOverride>,
    /// [-cmoe] Keep the experts of all layers in system memory.
    #[arg(long, env = "WGPU_LLM_CPU_MOE")]
    pub cpu_moe: bool,
    /// [-ncmoe] Keep the experts of the first N layers in system memory.
    #[arg(long, value_name = "N", env = "WGPU_LLM_N_CPU_MOE")]
    pub n_cpu_moe: Option<u32>,
    /// [-nkvo] Keep the cache, and with it the attention over it, in system memory.
    #[arg(long, env = "WGPU_LLM_NO_KV_OFFLOAD")]
    pub no_kv_offload: bool,
    /// Use at most this much GPU memory, whatever is free: 20MB, 1.5GiB; a plain number is MiB.
    #[arg(long, value_name = "SIZE", env = "WGPU_LLM_VRAM_LIMIT")]
    pub vram_limit: Option<Size>,
    /// Keep this much of the GPU's free memory free, if there is no --vram-limit. Default: 1 GiB, or a tenth of all if that is less.
    #[arg(long, value_name = "SIZE", env = "WGPU_LLM_VRAM_MARGIN")]
    pub vram_margin: Option<Size>,
    /// Use at most so much workgroup memory of the GPU, as if it had no more: 16KiB is what browsers promise. For tests.
    #[arg(long, value_name = "SIZE", hide = true, env = "WGPU_LLM_WORKGROUP_MEMORY")]
    pub workgroup_memory: Option<Size>,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::usage("write a size as in 20MB, 1.5GiB, or 512 for as many MiB");
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number: f64 = text[..text.len() - unit.len()].parse().map_err(|_| wrong())?;
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "b" => 1,
            "k" | "kib" => 1 << 10,
            "kb" => 1_000,
            "" | "m" | "mib" => 1 << 20,
            "mb" => 1_000_000,
            "g" | "gib" => 1 << 30,
            "gb" => 1_000_000_000,
            "t" | "tib" => 1 << 40,
            "tb" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        Ok(Size((number * factor as f64) as u64))
    }
}

impl SplitArgs {
    /// What is asked of the device `choice` with so many `layers` there.
    pub fn options(&self, choice: DeviceChoice, layers: Layers) -> DeviceOptions {
        let bytes = |size: Option<Size>| size.map(|s| s.0);
        DeviceOptions {
            choice,
            layers,
            overrides: self.device_overrides(),
            vram_limit: bytes(self.vram_limit),
            vram_margin: bytes(self.vram_margin),
            workgroup_memory: bytes(self.workgroup_memory),
            autotune: true,
        }
    }

    fn device_overrides(&self) -> DeviceOverrides {
        let cpu_experts = if self.cpu_moe { usize::MAX } else { self.n_cpu_moe.unwrap_or(0) as usize };
        DeviceOverrides {
            tensors: self.override_tensor.clone(),
            cpu_experts,
            cpu_cache: self.no_kv_offload,
            cpu_caches: Vec::new(),
        }
    }
}

/// What a plan means for the layers, in words: `24 of 31 layers there, because …`.
pub fn describe(fit: &DevicePlan) -> String {
    let layers = fit.device_map.blocks.len() + 1;
    let here = &fit.prediction.memory[0];
    let mut text = match fit.device_map.single() {
        Some(Place::Gpu) => format!("all {layers} layers there (the output is one), because {}", fit.why),
        Some(Place::Cpu) => format!("all {layers} layers on the CPU (the output is one), because {}", fit.why),
        // What overrides and experts leave: parts of layers.
        None if fit.device_map.gpu_layers() == layers => {
            let cached = fit.device_map.blocks.iter().any(|b| b.cache == Place::Cpu);
            let parts = [(here.weights > 0, here.weights, "weights"), (cached, here.cache, "cache")];
            let parts = parts.iter().filter(|(there, ..)| *there).map(|(_, n, what)| format!("{} of {what}", size(*n)));
            let rest = parts.collect::<Vec<_>>().join(" and ");
            format!("all {layers} layers there (the output is one) but for {rest} on the CPU, because {}", fit.why)
        }
        None => format!(
            "{} of {layers} layers there (the output is one) and the rest on the CPU, because {}",
            fit.device_map.gpu_layers(),
            fit.why
        ),
    };
    if let Some(seconds) = fit.prediction.seconds {
        text += &format!("; estimated {:.1} ms per token", seconds * 1e3);
    }
    text
}

/// What a token took, beside what was predicted.
pub fn compare(predicted: f64, measured: f64) -> String {
    let (apart, more) =
        ((measured / predicted - 1.0).abs() * 100.0, if measured > predicted { "more" } else { "less" });
    let text = format!(
        "a token took {:.2} ms where {:.2} ms were predicted: {apart:.0} % {more}",
        measured * 1e3,
        predicted * 1e3
    );
    let far = !(0.5..=2.0).contains(&(measured / predicted));
    if far { text + "; `wgpu-llm bench --device-roofline` measures the devices anew" } else { text }
}

/// A size in words, for tables.
pub fn size(bytes: u64) -> String {
    if bytes == 0 { "–".into() } else { human(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let of = |text: &str| text.parse::<Size>().map(|s| s.0).ok();
        assert_eq!(of("20MB"), Some(20_000_000));
        assert_eq!((of("20MiB"), of("20"), of("20m")), (Some(20 << 20), Some(20 << 20), Some(20 << 20)));
        assert_eq!((of("1.5GiB"), of("0"), of("3 kb")), (Some(3 << 29), Some(0), Some(3000)));
        assert_eq!((of("MB"), of("1.5.2MB"), of("-3MB"), of("20 apples"), of("")), (None, None, None, None, None));
    }
}
