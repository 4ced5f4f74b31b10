//! How fast the devices were measured to be, kept in the user's cache: plans need it at each start.

use super::notice::Listener;
use super::system;
use crate::base::{Result, replace};
use crate::gpu;
use crate::plan::rates::{self, DeviceRates};
use crate::simd::Level;
use std::collections::BTreeMap;
use std::path::Path;

/// Measurements that are kept in the user's cache.
const FILE: &str = "speeds.json";
/// Changes when what is measured does.
const VERSION: u32 = 1;

/// Speeds of the CPU and of `device`: those measured before, else measured now and kept.
pub fn known(device: Option<&gpu::Device>, threads: usize, listener: &Listener) -> Result<[DeviceRates; 2]> {
    let file = system::cache_file(FILE);
    let mut known = file.as_deref().map(read).unwrap_or_default();
    let before = known.len();
    let mut get = |key: String, name: &str, measure: &dyn Fn() -> Result<DeviceRates>| -> Result<DeviceRates> {
        if let Some(speed) = known.get(&key).filter(|speed| speed.is_sane()) {
            return Ok(*speed);
        }
        listener.note(format!("measuring how fast {name} is, for plans; it is kept"))?;
        let speed = measure()?;
        known.insert(key, speed);
        Ok(speed)
    };
    let cpu = get(cpu_key(threads), "the CPU", &|| rates::cpu(threads))?;
    let gpu = match device {
        Some(device) => get(gpu_key(device), &device.info().name, &|| rates::gpu(device))?,
        None => cpu,
    };
    if known.len() > before
        && let Some(path) = file
    {
        write(&path, &known);
    }
    Ok([cpu, gpu])
}

/// Keeps what was measured otherwise.
pub fn keep(device: Option<&gpu::Device>, threads: usize, speed: DeviceRates) {
    let Some(path) = system::cache_file(FILE) else { return };
    let mut known = read(&path);
    known.insert(device.map_or_else(|| cpu_key(threads), gpu_key), speed);
    write(&path, &known);
}

fn cpu_key(threads: usize) -> String {
    let threads = if threads == 0 { "all".to_owned() } else { threads.to_string() };
    format!("v{VERSION} cpu {} {} {threads} threads", system::cpu_name(), Level::best().name())
}

fn gpu_key(device: &gpu::Device) -> String {
    let info = device.info();
    format!("v{VERSION} gpu {} {} {}", info.name, info.backend, info.driver)
}

fn read(path: &Path) -> BTreeMap<String, DeviceRates> {
    // What cannot be read is measured again.
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write(path: &Path, known: &BTreeMap<String, DeviceRates>) {
    let text = serde_json::to_vec_pretty(known).unwrap_or_default();
    if let Err(e) = replace(path, text) {
        tracing::warn!("{}: measurements cannot be kept: {e}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_kept_and_nonsense_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below").join(FILE);
        assert!(read(&path).is_empty());
        let speed = DeviceRates { bytes: 1e9, weights: 2e9, step: 1e-6, round_trip: 1e-5 };
        write(&path, &BTreeMap::from([("cpu".to_owned(), speed)]));
        assert_eq!(read(&path)["cpu"], speed);
        std::fs::write(&path, "{").unwrap();
        assert!(read(&path).is_empty());
    }
}
