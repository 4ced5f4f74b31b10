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

    /// The device's memory; `None` if the interface does not tell (browsers, OpenGL).
    pub fn memory(&self) -> Option<DeviceMemory> {
        memory(&self.inner.adapter)
    }
}

/// OpenGL and browsers do not tell.
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "windows",
    target_vendor = "apple"
)))]
fn memory(_: &wgpu::Adapter) -> Option<DeviceMemory> {
    None
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
fn memory(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    vulkan(adapter)
}

#[cfg(target_os = "windows")]
fn memory(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    vulkan(adapter).or_else(|| dx12(adapter))
}

/// Metal: what it recommends that all processes together keep on the GPU at a time, less what this one has there. What others have
/// it does not tell; where the memory is the system's, that is counted there.
#[cfg(target_vendor = "apple")]
fn memory(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    use objc2_metal::MTLDevice;
    // SAFETY: the guard outlives all uses of the device below, which is only asked.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    let device = hal.raw_device();
    let total = device.recommendedMaxWorkingSetSize();
    let used = device.currentAllocatedSize() as u64;
    Some(DeviceMemory { total, free: Some(total.saturating_sub(used)) }).filter(|memory| memory.total > 0)
}

/// DX12: the budget that the system gives this process in the memory nearest to the GPU, less what it has there.
#[cfg(target_os = "windows")]
fn dx12(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
    // SAFETY: the guard outlives all uses of the adapter below, which is only asked.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    // The default group of segments is DXGI_MEMORY_SEGMENT_GROUP_LOCAL: 0.
    let told = hal.raw_adapter().query_video_memory_info(Default::default()).ok()?;
    // SAFETY: the interface is alive; it fills a struct of its own.
    let own = unsafe { hal.raw_adapter().GetDesc1() }.map_or(0, |about| about.DedicatedVideoMemory as u64);
    let free = told.Budget.saturating_sub(told.CurrentUsage);
    Some(DeviceMemory { total: own.max(told.Budget), free: Some(free) })
}

/// Vulkan: the heaps that belong to the device, and VK_EXT_memory_budget. `None` for adapters of another interface.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "windows"))]
fn vulkan(adapter: &wgpu::Adapter) -> Option<DeviceMemory> {
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
