//! Which GPUs there are, and which of them the user means.

use super::device::backends;
use crate::base::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// What is known of an adapter without opening it.
#[derive(Debug, Clone)]
pub struct AdapterInfo {
    /// Its name: `NVIDIA GeForce RTX 4090`.
    pub name: String,
    /// The system interface it is reached through: `vulkan`, `metal`, `dx12`, `webgpu`.
    pub backend: String,
    /// The driver's name and version.
    pub driver: String,
    /// `discrete`, `integrated`, `virtual`, `software`, `other`.
    pub kind: &'static str,
    /// A CPU pretending to be a GPU: lavapipe, SwiftShader, WARP.
    pub software: bool,
    /// Bytes one storage binding may span.
    pub max_binding: u64,
    /// Bytes one buffer may have.
    pub max_buffer: u64,
    /// Smallest and largest subgroup, if subgroup operations are there.
    pub subgroups: Option<(u32, u32)>,
    /// The optional features that kernels know of and the adapter has.
    pub features: Vec<&'static str>,
}

/// An adapter that can be opened.
#[derive(Debug, Clone)]
pub struct Adapter {
    pub(super) raw: wgpu::Adapter,
    /// What it is.
    pub info: AdapterInfo,
    /// Whether products of bytes may be instructions of it: see [`Caps::dot4`](crate::ops::Caps::dot4).
    pub(super) dot4: bool,
}

/// Which adapter the user means: `auto`, `gpu`, `gpu:1`, `gpu:lavapipe`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Selector {
    /// The best real GPU; never a software adapter.
    #[default]
    Auto,
    /// The best adapter, a software one where there is no other.
    Gpu,
    /// Number in the list of [`adapters`].
    Index(usize),
    /// The first whose name, driver or backend contains this, whatever its case.
    Name(String),
}

impl Adapter {
    /// What tells it from others, whenever they are listed: its driver may have been updated meanwhile.
    pub(super) fn identity(&self) -> String {
        let raw = self.raw.get_info();
        format!("{} {} {:x}:{:x} {}", raw.backend, raw.name, raw.vendor, raw.device, raw.device_pci_bus_id)
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s.split_once(':') {
            None if s == "auto" => Ok(Selector::Auto),
            None if s == "gpu" => Ok(Selector::Gpu),
            Some(("gpu", n)) if n.parse::<usize>().is_ok() => Ok(Selector::Index(n.parse().expect("just parsed"))),
            Some(("gpu", name)) if !name.is_empty() => Ok(Selector::Name(name.to_owned())),
            _ => {
                Err(Error::usage(format!("there is no device {s:?}"))
                    .help("use auto, cpu, gpu, gpu:NUMBER or gpu:NAME"))
            }
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Auto => f.write_str("auto"),
            Selector::Gpu => f.write_str("gpu"),
            Selector::Index(i) => write!(f, "gpu:{i}"),
            Selector::Name(name) => write!(f, "gpu:{name}"),
        }
    }
}

impl Selector {
    /// The adapter meant, as an index into `list`, which is sorted best first.
    pub fn choose(&self, list: &[AdapterInfo]) -> Result<usize> {
        let found = match self {
            Selector::Auto => list.iter().position(|a| !a.software),
            Selector::Gpu => (!list.is_empty()).then_some(0),
            Selector::Index(i) => (*i < list.len()).then_some(*i),
            Selector::Name(name) => {
                let name = name.to_lowercase();
                let has = |a: &AdapterInfo| {
                    [&a.name, &a.driver, &a.backend].iter().any(|text| text.to_lowercase().contains(&name))
                };
                list.iter().position(has)
            }
        };
        found.ok_or_else(|| {
            let names: Vec<String> = list.iter().enumerate().map(|(i, a)| format!("gpu:{i} {}", a.name)).collect();
            let error = Error::new(ErrorKind::NoDevice, format!("no GPU answers to {self}"));
            match names.is_empty() {
                true => error.help("there is no Vulkan, Metal or DX12 driver; install one, or use --device cpu"),
                false => error.help(format!("there are: {}; or use --device cpu", names.join(", "))),
            }
        })
    }
}

impl AdapterInfo {
    fn of(raw: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (raw.get_info(), raw.limits(), raw.features());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        let known = [
            ("subgroups", wgpu::Features::SUBGROUP),
            ("shader-f16", wgpu::Features::SHADER_F16),
            ("timestamp-query", wgpu::Features::TIMESTAMP_QUERY),
            ("cooperative-matrix", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        ];
        let software = kind == "software" || looks_like_software(&info.name);
        AdapterInfo {
            name: info.name,
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            kind: if software { "software" } else { kind },
            software,
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            subgroups: features
                .contains(wgpu::Features::SUBGROUP)
                .then_some((info.subgroup_min_size, info.subgroup_max_size)),
            features: known.iter().filter(|(_, f)| features.contains(*f)).map(|(name, _)| *name).collect(),
        }
    }

    /// Real before software, discrete before integrated; otherwise as the system lists them.
    fn rank(&self) -> usize {
        ["discrete", "virtual", "integrated", "other"].iter().position(|k| *k == self.kind).unwrap_or(4)
    }
}

/// Whether GPUs behind `backend` can be asked to multiply bytes. wgpu does not tell which do it in hardware: those that do not are right
/// and slow, which measuring shows. Metal has nothing of the kind.
fn has_dot4(backend: wgpu::Backend) -> bool {
    matches!(backend, wgpu::Backend::Vulkan | wgpu::Backend::Dx12 | wgpu::Backend::BrowserWebGpu)
}

/// Browsers and some drivers do not report the type of their software adapters.
fn looks_like_software(name: &str) -> bool {
    let name = name.to_lowercase();
    ["llvmpipe", "lavapipe", "swiftshader", "microsoft basic render"].iter().any(|s| name.contains(s))
}

/// All adapters, best first; `gpu:0` is the first of them.
pub async fn adapters() -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends();
    // Indirect dispatch is not used, so its validation shader is not needed. wgpu's own validation is always on.
    descriptor.flags = if cfg!(debug_assertions) { wgpu::InstanceFlags::DEBUG } else { wgpu::InstanceFlags::empty() };
    let instance = wgpu::Instance::new(descriptor);
    let raw = instance.enumerate_adapters(backends()).await;
    let compute =
        |a: &wgpu::Adapter| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS);
    let packed = instance.wgsl_language_features().contains(wgpu::WgslLanguageFeatures::Packed4x8IntegerDotProduct);
    let adapter = |raw| Adapter { info: AdapterInfo::of(&raw), dot4: packed && has_dot4(raw.get_info().backend), raw };
    let mut all: Vec<Adapter> = raw.into_iter().filter(compute).map(adapter).collect();
    all.sort_by_key(|a| a.info.rank());
    all
}

/// What there is, best first; the place in the list is the number in `gpu:N`. Blocks; see [`adapters`].
pub fn list() -> Vec<AdapterInfo> {
    pollster::block_on(adapters()).into_iter().map(|a| a.info).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, kind: &'static str) -> AdapterInfo {
        AdapterInfo {
            name: name.into(),
            backend: "vulkan".into(),
            driver: "driver".into(),
            kind,
            software: kind == "software",
            max_binding: 0,
            max_buffer: 0,
            subgroups: None,
            features: Vec::new(),
        }
    }

    #[test]
    fn software_adapters_only_when_asked_for() {
        let soft = [info("llvmpipe", "software")];
        let both = [info("Radeon", "discrete"), info("llvmpipe", "software")];
        let choose = |s: &str, list: &[AdapterInfo]| s.parse::<Selector>().unwrap().choose(list);
        assert_eq!(choose("auto", &soft).unwrap_err().kind(), ErrorKind::NoDevice);
        assert_eq!(choose("gpu", &soft).unwrap(), 0);
        assert_eq!(choose("auto", &both).unwrap(), 0);
        assert_eq!(choose("gpu:1", &both).unwrap(), 1);
        assert_eq!(choose("gpu:LLVM", &both).unwrap(), 1);
        assert_eq!(choose("gpu:2", &both).unwrap_err().kind(), ErrorKind::NoDevice);
        assert!(choose("gpu:x", &both).unwrap_err().to_string().contains("gpu:1 llvmpipe"));
        assert!(choose("gpu", &[]).unwrap_err().to_string().contains("--device cpu"));
        assert!("gpu:".parse::<Selector>().is_err() && "tpu".parse::<Selector>().is_err());
    }

    #[test]
    fn selectors_print_as_they_are_written() {
        for text in ["auto", "gpu", "gpu:3", "gpu:apple"] {
            assert_eq!(text.parse::<Selector>().unwrap().to_string(), text);
        }
    }
}
