//! A Vulkan device that compiles and never runs: RADV with a family forced upon it, where there is no such card.
//!
//! Features are what wgpu asks for where shaders depend on them (robust buffers, subgroups of varying size), so that the driver sees
//! what it sees under wgpu.

use crate::spirv::{Interface, Kind, Module};
use ash::{ext, khr, vk};
use std::ffi::{CStr, CString, c_char};
use wgpu_llm::low_level::ops::Caps;

/// What a driver makes of one kernel.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// Threads of a subgroup.
    pub subgroup: u32,
    /// The driver's figures, by its own names.
    pub statistics: Vec<(String, u64)>,
    /// The machine code, disassembled.
    pub assembly: String,
}

impl Compiled {
    /// The figure called `name`.
    pub fn statistic(&self, name: &str) -> Option<u64> {
        self.statistics.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
}

/// What a device is, and what it can do.
#[derive(Debug, Clone)]
pub struct Info {
    /// `AMD Radeon RX 6900 XT (RADV NAVI21)`
    pub name: String,
    /// `Mesa 22.3.6`
    pub driver: String,
    /// Whether it is Mesa's driver for AMD's cards.
    pub radv: bool,
    /// As the library would see them through wgpu.
    pub caps: Caps,
    /// Instructions for dot products of bytes, which wgpu asks for where they are there.
    pub dot: bool,
    /// Numbers of one byte in shaders.
    pub int8: bool,
}

/// The device.
pub struct Device {
    // Vulkan's functions live in it.
    _entry: ash::Entry,
    raw: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// What it is.
    pub info: Info,
}

/// One binding may span no more than the library asks for: `MAX_BINDING` in src/gpu/device.rs.
const MAX_BINDING: u64 = 1 << 30;

impl Device {
    /// The first device of the drivers that the environment names.
    pub fn open() -> Result<Device, String> {
        // SAFETY: whatever library the loader finds is Vulkan's; nothing of it is called before `load` has succeeded.
        let entry = unsafe { ash::Entry::load() }
            .map_err(|e| format!("Vulkan's loader is not here ({e}): apt-get install libvulkan1"))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let create = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the structures live until the calls return, and all handles come from the calls before.
        unsafe {
            let instance = entry.create_instance(&create, None).map_err(|e| format!("no Vulkan instance: {e}"))?;
            let devices = instance.enumerate_physical_devices().map_err(|e| format!("no Vulkan device: {e}"))?;
            let physical = *devices.first().ok_or("the driver has no device")?;
            Self::of(entry, &instance, physical)
        }
    }

    /// SAFETY: `physical` must be of `instance`, and `instance` of `entry`.
    unsafe fn of(entry: ash::Entry, instance: &ash::Instance, physical: vk::PhysicalDevice) -> Result<Device, String> {
        // SAFETY: handles as the caller promises; every chain of structures outlives the call that reads or fills it.
        unsafe {
            let known = instance.enumerate_device_extension_properties(physical).map_err(|e| e.to_string())?;
            let has = |name: &CStr| known.iter().any(|e| e.extension_name_as_c_str() == Ok(name));
            if !has(khr::pipeline_executable_properties::NAME) {
                return Err(
                    "the driver does not tell what it compiles to (VK_KHR_pipeline_executable_properties)".into()
                );
            }
            let info = info(&entry, instance, physical, has(khr::cooperative_matrix::NAME));
            if !info.radv {
                return Err(format!("{} is driven by {}, which is not RADV", info.name, info.driver));
            }
            let mut names: Vec<*const c_char> = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
            let mut executables =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
            let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
            let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
            let mut v11 = vk::PhysicalDeviceVulkan11Features::default();
            let mut v12 = vk::PhysicalDeviceVulkan12Features::default();
            let mut v13 = vk::PhysicalDeviceVulkan13Features::default();
            let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut v11).push_next(&mut v12);
            features = features.push_next(&mut v13);
            if has(ext::robustness2::NAME) {
                names.push(ext::robustness2::NAME.as_ptr());
                features = features.push_next(&mut robust);
            }
            if has(khr::cooperative_matrix::NAME) {
                names.push(khr::cooperative_matrix::NAME.as_ptr());
                features = features.push_next(&mut matrices);
            }
            // All that there is: RADV's code depends on what shaders use, and robust buffers are what wgpu always asks for.
            instance.get_physical_device_features2(physical, &mut features);
            features = features.push_next(&mut executables);
            let queue = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
            let create = vk::DeviceCreateInfo::default().queue_create_infos(&queue).enabled_extension_names(&names);
            let raw = instance.create_device(physical, &create.push_next(&mut features), None);
            let raw = raw.map_err(|e| format!("the device cannot be opened: {e}"))?;
            let executables = khr::pipeline_executable_properties::Device::new(instance, &raw);
            Ok(Device { _entry: entry, raw, executables, info })
        }
    }

    /// Compiles a kernel and asks what it became.
    pub fn compile(&self, module: &Module) -> Result<Compiled, String> {
        let interface = Interface::of(&module.words)?;
        // SAFETY: the handles are made and destroyed here, in order, and the structures outlive the calls.
        unsafe {
            let create = vk::ShaderModuleCreateInfo::default().code(&module.words);
            let shader = self.raw.create_shader_module(&create, None).map_err(|e| format!("not taken: {e}"))?;
            let compiled = self.layout(&interface).and_then(|(sets, layout)| {
                let compiled = self.pipeline(module, &interface, shader, layout);
                self.raw.destroy_pipeline_layout(layout, None);
                sets.into_iter().for_each(|set| self.raw.destroy_descriptor_set_layout(set, None));
                compiled
            });
            self.raw.destroy_shader_module(shader, None);
            compiled
        }
    }

    /// SAFETY: what it gives must be destroyed by the caller.
    unsafe fn layout(
        &self,
        interface: &Interface,
    ) -> Result<(Vec<vk::DescriptorSetLayout>, vk::PipelineLayout), String> {
        let mut sets = Vec::new();
        for set in 0..interface.bindings.iter().map(|b| b.set + 1).max().unwrap_or(0) {
            let of_set = interface.bindings.iter().filter(|b| b.set == set).map(|b| {
                let kind = match b.kind {
                    Kind::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                    Kind::Storage => vk::DescriptorType::STORAGE_BUFFER,
                };
                let binding = vk::DescriptorSetLayoutBinding::default().binding(b.binding).descriptor_type(kind);
                binding.descriptor_count(1).stage_flags(vk::ShaderStageFlags::COMPUTE)
            });
            let bindings: Vec<_> = of_set.collect();
            let create = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            // SAFETY: the bindings outlive the call.
            sets.push(unsafe { self.raw.create_descriptor_set_layout(&create, None) }.map_err(|e| e.to_string())?);
        }
        let push = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(interface.push)];
        let mut create = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        if interface.push > 0 {
            create = create.push_constant_ranges(&push);
        }
        // SAFETY: sets and ranges outlive the call.
        let layout = unsafe { self.raw.create_pipeline_layout(&create, None) }.map_err(|e| e.to_string())?;
        Ok((sets, layout))
    }

    /// SAFETY: `shader` and `layout` must be this device's.
    unsafe fn pipeline(
        &self,
        module: &Module,
        interface: &Interface,
        shader: vk::ShaderModule,
        layout: vk::PipelineLayout,
    ) -> Result<Compiled, String> {
        let entry = CString::new(interface.entry.as_str()).map_err(|e| e.to_string())?;
        let entry_of =
            |(i, (id, _)): (u32, &(u32, u32))| vk::SpecializationMapEntry { constant_id: *id, offset: 4 * i, size: 4 };
        let entries: Vec<_> = (0..).zip(&module.specialization).map(entry_of).collect();
        let values: Vec<u8> = module.specialization.iter().flat_map(|(_, v)| v.to_ne_bytes()).collect();
        let constants = vk::SpecializationInfo::default().map_entries(&entries).data(&values);
        let mut required = vk::PipelineShaderStageRequiredSubgroupSizeCreateInfo::default();
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(shader)
            .name(&entry)
            .specialization_info(&constants);
        stage = match module.subgroup {
            Some(size) => {
                required = required.required_subgroup_size(size);
                stage.flags(vk::PipelineShaderStageCreateFlags::REQUIRE_FULL_SUBGROUPS).push_next(&mut required)
            }
            // As wgpu does.
            None => stage.flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE),
        };
        let capture = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        let create = [vk::ComputePipelineCreateInfo::default().flags(capture).stage(stage).layout(layout)];
        // SAFETY: handles are the caller's, structures outlive the call; the pipeline is destroyed once it was asked.
        unsafe {
            let made = self.raw.create_compute_pipelines(vk::PipelineCache::null(), &create, None);
            let pipeline = made.map_err(|(_, e)| format!("not compiled: {e}"))?[0];
            let compiled = self.ask(pipeline);
            self.raw.destroy_pipeline(pipeline, None);
            compiled
        }
    }

    /// SAFETY: `pipeline` must be this device's, and made to be asked.
    unsafe fn ask(&self, pipeline: vk::Pipeline) -> Result<Compiled, String> {
        let error = |e: vk::Result| format!("the driver does not tell what it compiled: {e}");
        let of = vk::PipelineInfoKHR::default().pipeline(pipeline);
        let which = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: as the caller promises.
        unsafe {
            let all = self.executables.get_pipeline_executable_properties(&of).map_err(error)?;
            let subgroup = all.first().ok_or("the driver compiled nothing")?.subgroup_size;
            let figures = self.executables.get_pipeline_executable_statistics(&which).map_err(error)?;
            let figure = |s: &vk::PipelineExecutableStatisticKHR| {
                let value = match s.format {
                    vk::PipelineExecutableStatisticFormatKHR::BOOL32 => s.value.b32.into(),
                    vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => s.value.f64 as u64,
                    _ => s.value.u64,
                };
                (text(&s.name), value)
            };
            let statistics = figures.iter().map(figure).collect();
            Ok(Compiled { subgroup, statistics, assembly: self.assembly(&which).map_err(error)? })
        }
    }

    /// SAFETY: `which` must name an executable of this device.
    unsafe fn assembly(&self, which: &vk::PipelineExecutableInfoKHR) -> Result<String, vk::Result> {
        // SAFETY: the first call gives names and sizes, the second fills buffers of these sizes.
        unsafe {
            let mut all = self.executables.get_pipeline_executable_internal_representations(which)?;
            let mut buffers: Vec<Vec<u8>> = all.iter().map(|r| vec![0; r.data_size]).collect();
            for (r, buffer) in all.iter_mut().zip(&mut buffers) {
                r.p_data = buffer.as_mut_ptr().cast();
            }
            let mut count = all.len() as u32;
            let call = self.executables.fp().get_pipeline_executable_internal_representations_khr;
            call(self.executables.device(), which, &mut count, all.as_mut_ptr()).result()?;
            let found = all.iter().zip(&buffers).find(|(r, _)| text(&r.name) == "Assembly");
            Ok(found.map_or(String::new(), |(_, b)| String::from_utf8_lossy(b).trim_end_matches('\0').to_owned()))
        }
    }
}

fn text(name: &[c_char]) -> String {
    name.iter().take_while(|c| **c != 0).map(|c| *c as u8 as char).collect()
}

/// SAFETY: `physical` must be of `instance`, and `instance` of `entry`.
unsafe fn info(entry: &ash::Entry, instance: &ash::Instance, physical: vk::PhysicalDevice, coop: bool) -> Info {
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut v13 = vk::PhysicalDeviceVulkan13Properties::default();
    let mut v11 = vk::PhysicalDeviceVulkan11Properties::default();
    let mut v12 = vk::PhysicalDeviceVulkan12Properties::default();
    let mut f11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut f12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut f13 = vk::PhysicalDeviceVulkan13Features::default();
    // SAFETY: the structures live until the calls return; matrices are asked for only if there is the extension.
    let (limits, name, coop) = unsafe {
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver).push_next(&mut v13);
        properties = properties.push_next(&mut v11).push_next(&mut v12);
        instance.get_physical_device_properties2(physical, &mut properties);
        let (limits, name) = (properties.properties.limits, text(&properties.properties.device_name));
        let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut f11).push_next(&mut f12);
        features = features.push_next(&mut f13);
        instance.get_physical_device_features2(physical, &mut features);
        let of = khr::cooperative_matrix::Instance::new(entry, instance);
        let known = if coop { of.get_physical_device_cooperative_matrix_properties(physical) } else { Ok(Vec::new()) };
        (limits, name, matrices(&known.unwrap_or_default()))
    };
    let f16 = f12.shader_float16 != 0
        && f11.storage_buffer16_bit_access != 0
        && f11.uniform_and_storage_buffer16_bit_access != 0;
    let dot = f13.shader_integer_dot_product != 0;
    let operations = vk::SubgroupFeatureFlags::BASIC | vk::SubgroupFeatureFlags::ARITHMETIC;
    let subgroups = v11.subgroup_supported_operations.contains(operations);
    let caps = Caps {
        subgroups: subgroups.then_some((v13.min_subgroup_size, v13.max_subgroup_size)).filter(|(min, _)| *min >= 4),
        // As RADV compiles all of our kernels.
        chosen_subgroup: subgroups.then_some(64).filter(|_| v13.max_subgroup_size >= 64),
        f16,
        // What src/gpu/probe.rs finds by trying.
        halves: v12.shader_denorm_preserve_float16 != 0,
        coop: coop.filter(|_| f16),
        dot4: dot && v13.integer_dot_product4x8_bit_packed_signed_accelerated != 0,
        max_binding: MAX_BINDING.min(limits.max_storage_buffer_range.into()),
        max_invocations: limits.max_compute_work_group_invocations.min(limits.max_compute_work_group_size[0]),
        max_shared: limits.max_compute_shared_memory_size,
        max_workgroups: limits.max_compute_work_group_count.into_iter().min().unwrap_or_default().min(65535),
        speed: Caps::CARD,
    };
    Info {
        name,
        driver: text(&driver.driver_info),
        radv: driver.driver_id == vk::DriverId::MESA_RADV,
        caps,
        dot,
        int8: f12.shader_int8 != 0,
    }
}

/// The size of the matrices with f16 factors and f32 sums that subgroups multiply, the larger one, as src/gpu/device.rs finds it.
fn matrices(known: &[vk::CooperativeMatrixPropertiesKHR]) -> Option<u32> {
    let (half, single) = (vk::ComponentTypeKHR::FLOAT16, vk::ComponentTypeKHR::FLOAT32);
    let is = |p: &vk::CooperativeMatrixPropertiesKHR, n: u32| {
        (p.m_size, p.n_size, p.k_size) == (n, n, n)
            && (p.a_type, p.b_type, p.c_type, p.result_type) == (half, half, single, single)
    };
    [16, 8].into_iter().find(|n| known.iter().any(|p| is(p, *n)))
}
