//! Which device, and how much of it: what is asked for, what there is, and what a plan may use.

use super::notice::Listener;
use super::{rates, system};
use crate::base::{Error, ErrorKind, Result, human};
use crate::gpu::{self, Selector, Tuning};
use crate::graph::Place;
use crate::model::Model;
use crate::plan::budget::Budget;
use crate::plan::fit::{DevicePlan, Layers, Request};
use crate::plan::{DeviceOverrides, Options};
use std::str::FromStr;

/// A device by the user's name for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// A real GPU if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The best GPU, be it a CPU that pretends to be one.
    Gpu,
    /// The GPU with this number in `--list-devices`.
    GpuNumber(usize),
    /// The first GPU whose name contains this, in any case.
    GpuName(String),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, which) = text.split_once(':').map_or((text, None), |(kind, which)| (kind, Some(which)));
        match (kind.to_ascii_lowercase().as_str(), which) {
            ("auto", None) => Ok(DeviceChoice::Auto),
            ("cpu", None) => Ok(DeviceChoice::Cpu),
            ("gpu", None) => Ok(DeviceChoice::Gpu),
            ("gpu", Some(which)) if !which.is_empty() => Ok(match which.parse() {
                Ok(number) => DeviceChoice::GpuNumber(number),
                Err(_) => DeviceChoice::GpuName(which.into()),
            }),
            _ => Err(Error::usage("write auto, cpu, gpu, gpu:N or gpu:NAME")),
        }
    }
}

impl DeviceChoice {
    /// Selects the GPU; `None` for the CPU.
    pub fn selector(&self) -> Option<Selector> {
        match self {
            DeviceChoice::Cpu => None,
            DeviceChoice::Auto => Some(Selector::Auto),
            DeviceChoice::Gpu => Some(Selector::Gpu),
            DeviceChoice::GpuNumber(n) => Some(Selector::Index(*n)),
            DeviceChoice::GpuName(name) => Some(Selector::Name(name.clone())),
        }
    }
}

/// What is asked of the device.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Which one.
    pub choice: DeviceChoice,
    /// How many layers go to the GPU.
    pub layers: Layers,
    /// What stands fixed whatever is planned.
    pub overrides: DeviceOverrides,
    /// Bytes of GPU memory to use at most, whatever is free.
    pub vram_limit: Option<u64>,
    /// Bytes of the GPU's free memory to keep free, if there is no limit. By default 1 GiB, or a tenth of all if that is less.
    pub vram_margin: Option<u64>,
    /// Bytes of workgroup memory to use at most, as if the GPU had no more: for tests.
    pub workgroup_memory: Option<u64>,
    /// Whether a real GPU's kernels are measured once, and the fastest taken.
    pub autotune: bool,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        DeviceOptions {
            choice: DeviceChoice::Auto,
            layers: Layers::Auto,
            overrides: DeviceOverrides::default(),
            vram_limit: None,
            vram_margin: None,
            workgroup_memory: None,
            autotune: true,
        }
    }
}

impl From<DeviceChoice> for DeviceOptions {
    fn from(choice: DeviceChoice) -> Self {
        DeviceOptions { choice, ..DeviceOptions::default() }
    }
}

impl DeviceOptions {
    /// The device that is meant, to be tuned if it is a real GPU, and the reason in words. `None` for the CPU.
    pub fn open(&self, listener: &Listener) -> Result<(Option<gpu::Device>, String)> {
        let (mut device, why) = self.choose(listener)?;
        if let (Some(device), Some(most)) = (&mut device, self.workgroup_memory) {
            device.restrict(|caps| caps.max_shared = caps.max_shared.min(u32::try_from(most).unwrap_or(u32::MAX)));
        }
        if let Some(device) = device.as_ref().filter(|d| !d.info().software && self.autotune)
            && let Some(path) = system::cache_file("tuning.json")
        {
            device.tune(Tuning::open(device, &path));
        }
        if let (Some(device), Some(folder)) = (&device, system::cache_file("pipelines")) {
            device.keep_pipelines(&folder);
        }
        Ok((device, why))
    }

    fn choose(&self, listener: &Listener) -> Result<(Option<gpu::Device>, String)> {
        // Whether any tensor is to be on the GPU, whatever else is there.
        let wants_gpu = self.overrides.tensors.iter().any(|rule| rule.place() == Place::Gpu);
        if self.layers == Layers::Count(0) && self.choice == DeviceChoice::Auto && !wants_gpu {
            return Ok((None, "as -ngl 0 asks".into()));
        }
        let Some(selector) = self.choice.selector() else { return Ok((None, "as --device cpu asks".into())) };
        match gpu::Device::open(&selector) {
            Ok(device) if selector == Selector::Auto => Ok((Some(device), "the fastest GPU".into())),
            Ok(device) => Ok((Some(device), format!("as --device {selector} asks"))),
            Err(e) if selector != Selector::Auto => Err(e),
            Err(e) if e.kind() == ErrorKind::NoDevice => Ok((None, "no GPU was found".into())),
            Err(e) => {
                listener.warn(format!("{e}; going on with the CPU"))?;
                Ok((None, "the GPU failed".into()))
            }
        }
    }

    /// The memory that there is for a model, on `device` and beside it.
    pub fn budget(&self, device: Option<&gpu::Device>) -> Budget {
        let system = system::memory_available();
        let told = device.and_then(gpu::Device::memory);
        let shared = system.filter(|_| device.is_some_and(gpu::Device::shares_memory));
        let told_free = told.and_then(|m| m.free);
        let free = match (told_free.or(told.map(|m| m.total)), shared) {
            (Some(free), Some(system)) => Some(free.min(system)),
            (_, None) => told_free,
            (None, system) => system,
        };
        let budget = Budget::new(told.map(|m| m.total), free, self.vram_limit, self.vram_margin);
        Budget { cpu: system::memory_total(), ..budget }
    }

    /// Plans sessions of `model` with `options`, in one of `contexts`, and has `device` keep to its budget.
    pub fn plan(
        &self,
        model: &Model,
        device: Option<&gpu::Device>,
        budget: Budget,
        options: &Options,
        contexts: Vec<usize>,
        listener: &Listener,
    ) -> Result<DevicePlan> {
        let request = Request { layers: self.layers, overrides: self.overrides.clone(), budget, contexts };
        let mut measured = || match device {
            Some(device) => device.without_budget(|| rates::known(Some(device), options.threads, listener)),
            None => rates::known(None, options.threads, listener),
        };
        let fit = DevicePlan::new(model, device, options, &request, &mut measured)?;
        check_system_memory(&fit, budget.cpu, device.is_some_and(gpu::Device::shares_memory))?;
        if let (Some(device), Some(bytes)) = (device, budget.gpu) {
            device.set_budget(bytes);
        }
        Ok(fit)
    }

    /// Warns of overrides that concern nothing in the model: most are slips of the pen.
    pub fn warn_of_idle_overrides(&self, model: &Model, listener: &Listener) -> Result<()> {
        let any = |what: &dyn Fn(&str) -> bool| model.gguf().tensors().iter().any(|t| what(&t.name));
        for rule in self.overrides.tensors.iter().filter(|rule| !any(&|name| rule.matches(name))) {
            listener.warn(format!("--override-tensor {rule}: the model has no tensor of such a name"))?;
        }
        if self.overrides.cpu_experts > 0 && !any(&|name| name.contains("_exps.")) {
            listener.warn("the model has no experts that could stay in system memory".into())?;
        }
        Ok(())
    }
}

/// An error if what a plan leaves on the CPU does not fit into `total` bytes of system memory, of which the GPU's part is one if
/// it `shares` it.
fn check_system_memory(fit: &DevicePlan, total: Option<u64>, shares: bool) -> Result<()> {
    let need = fit.prediction.cpu_bytes() + if shares { fit.prediction.gpu_bytes() } else { 0 };
    match total.filter(|total| need > *total) {
        Some(total) => {
            let what = format!("this needs {} of system memory, which has {}", human(need), human(total));
            Err(Error::new(ErrorKind::OutOfSystemMemory, what)
                .help("use a smaller model or quantization, or a smaller context (-c)"))
        }
        None => Ok(()),
    }
}
