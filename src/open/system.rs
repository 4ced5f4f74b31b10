//! What the system says of itself: memory, the processor's name, the user's folder for caches.

use std::path::PathBuf;

fn memory() -> sysinfo::System {
    let what = sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram());
    sysinfo::System::new_with_specifics(what)
}

/// Bytes of system memory that programs may still take; `None` if the system does not say.
pub fn memory_available() -> Option<u64> {
    Some(memory().available_memory()).filter(|bytes| *bytes > 0)
}

/// Bytes of system memory in all; `None` if the system does not say.
pub fn memory_total() -> Option<u64> {
    Some(memory().total_memory()).filter(|bytes| *bytes > 0)
}

/// What the processor calls itself.
pub fn cpu_name() -> String {
    let what = sysinfo::RefreshKind::nothing().with_cpu(sysinfo::CpuRefreshKind::nothing());
    let system = sysinfo::System::new_with_specifics(what);
    system.cpus().first().map_or(String::new(), |cpu| cpu.brand().trim().to_owned())
}

/// A file in the user's cache; `None` if the environment names no folder for it.
pub fn cache_file(name: &str) -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache =
        folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA")).or_else(|| Some(folder("HOME")?.join(".cache")));
    Some(cache?.join("wgpu-llm").join(name))
}
