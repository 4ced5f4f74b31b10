//! Which part of a model goes to the GPU: the flags, the memory there is, how fast the devices were measured to be, and the plan.

use super::args::DeviceArgs;
use super::{load, term};
use crate::base::{Error, Result, human, replace};
use crate::gpu;
use crate::graph::Place;
use crate::model::Model;
use crate::run::budget::Budget;
use crate::run::fit::{Fit, Layers, Request};
use crate::run::speed::{self, Speed};
use crate::run::{Options, Override, Placement, Rules};
use crate::simd::Level;
use clap::Args;
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

/// What goes where, and how much memory there is for it.
#[derive(Debug, Clone, Default, Args)]
pub struct SplitArgs {
    /// [-ot] Keep tensors whose names match on a device: REGEX=cpu or REGEX=gpu, separated by commas; the first that matches counts.
    #[arg(long, value_name = "REGEX=PLACE", value_delimiter = ',', env = "WGPU_LLM_OVERRIDE_TENSOR")]
    pub override_tensor: Vec<Override>,
    /// [-cmoe] Keep the experts of all layers in system memory.
    #[arg(long, env = "WGPU_LLM_CPU_MOE")]
    pub cpu_moe: bool,
    /// [-ncmoe] Keep the experts of the first N layers in system memory.
    #[arg(long, value_name = "N", env = "WGPU_LLM_N_CPU_MOE")]
    pub n_cpu_moe: Option<u32>,
    /// [-nkvo] Keep the cache, and with it the attention over it, in system memory.
    #[arg(long, env = "WGPU_LLM_NO_KV_OFFLOAD")]
    pub no_kv_offload: bool,
    /// Use at most so much GPU memory, whatever is free: 20MB, 1.5GiB; a plain number is MiB.
    #[arg(long, value_name = "SIZE", env = "WGPU_LLM_VRAM_LIMIT")]
    pub vram_limit: Option<Size>,
    /// Keep so much of the GPU's free memory free, where there is no --vram-limit. Default: 1 GiB, or a tenth of all where that is less.
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
    /// Whether any tensor is to be on the GPU, whatever else is there.
    pub fn wants_gpu(&self) -> bool {
        self.override_tensor.iter().any(|rule| rule.place() == Place::Gpu)
    }

    fn rules(&self) -> Rules {
        let cpu_experts = if self.cpu_moe { usize::MAX } else { self.n_cpu_moe.unwrap_or(0) as usize };
        Rules {
            overrides: self.override_tensor.clone(),
            cpu_experts,
            cpu_cache: self.no_kv_offload,
            cpu_caches: Vec::new(),
        }
    }

    /// The memory that there is for a model, on `device` and beside it.
    pub fn budget(&self, device: Option<&gpu::Device>) -> Budget {
        let system = load::memory_available();
        let told = device.and_then(gpu::Device::memory);
        let shared = system.filter(|_| device.is_some_and(gpu::Device::shares_memory));
        let told_free = told.and_then(|m| m.free);
        let free = match (told_free.or(told.map(|m| m.total)), shared) {
            (Some(free), Some(system)) => Some(free.min(system)),
            (_, None) => told_free,
            (None, system) => system,
        };
        let size = |size: Option<Size>| size.map(|s| s.0);
        let budget = Budget::new(told.map(|m| m.total), free, size(self.vram_limit), size(self.vram_margin));
        Budget { cpu: load::memory_total(), ..budget }
    }
}

/// Plans sessions of `model` with `options`, in one of `contexts`, and has `device` keep to its budget.
pub fn plan(
    model: &Model,
    device: Option<&gpu::Device>,
    (layers, args): (Layers, &SplitArgs),
    budget: Budget,
    options: &Options,
    contexts: Vec<usize>,
) -> Result<Fit> {
    let request = Request { layers, rules: args.rules(), budget, contexts };
    let mut measured = || match device {
        Some(device) => device.without_budget(|| speeds(Some(device), options.threads)),
        None => speeds(None, options.threads),
    };
    let fit = Fit::new(model, device, options, &request, &mut measured)?;
    load::check_system_memory(&fit, budget.cpu, device.is_some_and(gpu::Device::shares_memory))?;
    if let (Some(device), Some(bytes)) = (device, budget.gpu) {
        device.set_budget(bytes);
    }
    Ok(fit)
}

/// Tells of rules that concern nothing in the model: most are slips of the pen.
pub fn warn_of_idle_rules(model: &Model, args: &SplitArgs) {
    let rules = args.rules();
    let any = |what: &dyn Fn(&str) -> bool| model.gguf().tensors().iter().any(|t| what(&t.name));
    for rule in rules.overrides.iter().filter(|rule| !any(&|name| rule.matches(name))) {
        term::warn(format_args!("--override-tensor {rule}: the model has no tensor of such a name"));
    }
    if rules.cpu_experts > 0 && !any(&|name| name.contains("_exps.")) {
        term::warn("the model has no experts that could stay in system memory");
    }
}

/// GPU memory below which it is not tried again.
const LEAST_TRIED: u64 = 64 << 20;

/// What is tried next where `bytes` of GPU memory were too many: three quarters. `None` where that pays no more.
pub fn less(bytes: u64) -> Option<u64> {
    Some(bytes / 4 * 3).filter(|less| *less >= LEAST_TRIED)
}

/// Plans anew for a session of `model`, planned as `fit` with `options`, whose GPU has run out of memory: other programs took it. What
/// is so small that less would hardly help stays as it is, and so does what the system's memory has no room for.
pub fn with_less(
    model: Arc<Model>,
    args: &DeviceArgs,
    budget: Budget,
    options: Options,
    fit: &Fit,
) -> impl FnMut(&gpu::Device) -> Option<Placement> + Send + 'static {
    let (layers, args, context) = (args.n_gpu_layers, args.split.clone(), options.context);
    let mut planned = fit.prediction.gpu_bytes();
    move |device| {
        let budget = Budget { gpu: Some(less(planned)?), ..budget };
        let made = plan(&model, Some(device), (layers, &args), budget, &options, vec![context]);
        let fit = made.inspect_err(|e| tracing::warn!("no plan with less memory: {e}")).ok()?;
        planned = fit.prediction.gpu_bytes();
        Some(fit.placement)
    }
}

/// The flags of a device by themselves.
pub fn of(args: &DeviceArgs) -> (Layers, &SplitArgs) {
    (args.n_gpu_layers, &args.split)
}

/// What a plan means for the layers, in words: `24 of 31 layers there, because …`.
pub fn describe(fit: &Fit) -> String {
    let layers = fit.placement.blocks.len() + 1;
    let here = &fit.prediction.memory[0];
    let mut text = match fit.placement.single() {
        Some(Place::Gpu) => format!("all {layers} layers there (the output is one), because {}", fit.why),
        Some(Place::Cpu) => format!("all {layers} layers on the CPU (the output is one), because {}", fit.why),
        // What rules and experts leave: parts of layers.
        None if fit.placement.gpu_layers() == layers => {
            let cached = fit.placement.blocks.iter().any(|b| b.cache == Place::Cpu);
            let parts = [(here.weights > 0, here.weights, "weights"), (cached, here.cache, "cache")];
            let parts = parts.iter().filter(|(there, ..)| *there).map(|(_, n, what)| format!("{} of {what}", size(*n)));
            let rest = parts.collect::<Vec<_>>().join(" and ");
            format!("all {layers} layers there (the output is one) but for {rest} on the CPU, because {}", fit.why)
        }
        None => format!(
            "{} of {layers} layers there (the output is one) and the rest on the CPU, because {}",
            fit.placement.gpu_layers(),
            fit.why
        ),
    };
    if let Some(seconds) = fit.prediction.seconds {
        text += &format!("; estimated {:.1} ms per token", seconds * 1e3);
    }
    text
}

/// What a token took, beside what was foretold.
pub fn compare(foretold: f64, measured: f64) -> String {
    let (apart, more) = ((measured / foretold - 1.0).abs() * 100.0, if measured > foretold { "more" } else { "less" });
    let text = format!(
        "a token took {:.2} ms where {:.2} ms were foretold: {apart:.0} % {more}",
        measured * 1e3,
        foretold * 1e3
    );
    let far = !(0.5..=2.0).contains(&(measured / foretold));
    if far { text + "; `wgpu-llm bench --device-roofline` measures the devices anew" } else { text }
}

/// A size in words, for tables.
pub fn size(bytes: u64) -> String {
    if bytes == 0 { "–".into() } else { human(bytes) }
}

/// Measurements that are kept in the user's cache.
const FILE: &str = "speeds.json";
/// Changes where what is measured does.
const VERSION: u32 = 1;

/// Speeds of the CPU and of `device`: those measured before, else measured now and kept.
pub fn speeds(device: Option<&gpu::Device>, threads: usize) -> Result<[Speed; 2]> {
    let file = load::cache_file(FILE);
    let mut known = file.as_deref().map(read).unwrap_or_default();
    let before = known.len();
    let mut get = |key: String, name: &str, measure: &dyn Fn() -> Result<Speed>| -> Result<Speed> {
        if let Some(speed) = known.get(&key).filter(|speed| speed.is_sane()) {
            return Ok(*speed);
        }
        term::note(format_args!("measuring how fast {name} is, for plans; it is kept"));
        let speed = measure()?;
        known.insert(key, speed);
        Ok(speed)
    };
    let cpu = get(cpu_key(threads), "the CPU", &|| speed::cpu(threads))?;
    let gpu = match device {
        Some(device) => get(gpu_key(device), &device.info().name, &|| speed::gpu(device))?,
        None => cpu,
    };
    if known.len() > before
        && let Some(path) = file
    {
        write(&path, &known);
    }
    Ok([cpu, gpu])
}

/// Keeps what was measured by another command.
pub fn keep(device: Option<&gpu::Device>, threads: usize, speed: Speed) {
    let Some(path) = load::cache_file(FILE) else { return };
    let mut known = read(&path);
    known.insert(device.map_or_else(|| cpu_key(threads), gpu_key), speed);
    write(&path, &known);
}

fn cpu_key(threads: usize) -> String {
    let threads = if threads == 0 { "all".to_owned() } else { threads.to_string() };
    format!("v{VERSION} cpu {} {} {threads} threads", load::cpu_name(), Level::best().name())
}

fn gpu_key(device: &gpu::Device) -> String {
    let info = device.info();
    format!("v{VERSION} gpu {} {} {}", info.name, info.backend, info.driver)
}

fn read(path: &Path) -> BTreeMap<String, Speed> {
    // What cannot be read is measured again.
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write(path: &Path, known: &BTreeMap<String, Speed>) {
    let text = serde_json::to_vec_pretty(known).unwrap_or_default();
    if let Err(e) = replace(path, text) {
        tracing::warn!("{}: measurements cannot be kept: {e}", path.display());
    }
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

    #[test]
    fn speeds_are_kept_and_nonsense_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below").join(FILE);
        assert!(read(&path).is_empty());
        let speed = Speed { bytes: 1e9, weights: 2e9, step: 1e-6, round_trip: 1e-5 };
        write(&path, &BTreeMap::from([("cpu".to_owned(), speed)]));
        assert_eq!(read(&path)["cpu"], speed);
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).is_empty());
    }
}
