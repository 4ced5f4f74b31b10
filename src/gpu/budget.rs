//! How much memory a device has, and how much of it is free, by the driver's word. wgpu tells neither, so the driver is asked
//! past it: the only place that reaches through wgpu.
#![allow(unsafe_code)]

use super::device::Device;

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceMemory {
    /// All of it.
    pub total: u64,
    /// What this process may still take without others having to make room, where the driver tells.
    pub free: Option<u64>,
}

impl Device {
    /// Whether the device's memory is the system's: it is integrated, or a CPU that plays GPU.
    pub fn shares_memory(&self) -> bool {
        matches!(self.info().kind, "integrated" | "software")
    }

    /// The device's memory; `None` where the interface does not tell (browsers).
    pub fn memory(&self) -> Option<DeviceMemory> {
        memory(&self.inner.adapter)
    }
}

/// Elsewhere nobody is asked: wgpu does not say, and what cannot be tested is not reached for.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "windows")))]
fn memory(_: &wgpu::Adapter) -> Option<DeviceMemory> {
    None
}

/// Vulkan: the heaps that belong to the device, and VK_EXT_memory_budget. `None` for adapters of another interface.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "windows"))]
fn memory(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    use ash::vk;
    // SAFETY: the guard outlives all uses of the handles below, and none of them is destroyed.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (physical, instance) = (hal.raw_physical_device(), hal.shared_instance().raw_instance());
    let told = hal.physical_device_capabilities().supports_extension(ash::ext::memory_budget::NAME);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut all = vk::PhysicalDeviceMemoryProperties2::default();
    if told {
        all = all.push_next(&mut budget);
    }
    // SAFETY: the physical device is the instance's, both are alive; wgpu needs Vulkan 1.1, which has the call, or the extension
    // that became it; what extends the struct is known to the driver, by its own list of extensions.
    unsafe { instance.get_physical_device_memory_properties2(physical, &mut all) };
    let heaps: Vec<vk::MemoryHeap> = all.memory_properties.memory_heaps_as_slice().to_vec();
    let local = |i: &usize| heaps[*i].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    // Small windows onto the same memory, which the host may write, are heaps of their own: the largest counts.
    let i = (0..heaps.len()).filter(local).max_by_key(|i| heaps[*i].size)?;
    let free = told.then(|| budget.heap_budget[i].saturating_sub(budget.heap_usage[i]));
    Some(DeviceMemory { total: heaps[i].size, free: free.map(|free| free.min(heaps[i].size)) })
}
