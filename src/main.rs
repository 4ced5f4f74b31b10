//! The program `wgpu-llm`: all of it is in the library, but for what concerns the process as a whole.

fn main() -> std::process::ExitCode {
    leave_out_mesas_device_select();
    wgpu_llm::app::main()
}

/// Mesa's Vulkan layer `VK_LAYER_MESA_device_select` looks for a display, so as to put its GPU first, and writes an error to standard
/// error, twice, where there is none. Nothing is shown here, and `--device` chooses the GPU. Whoever asks something of the layer gets it.
fn leave_out_mesas_device_select() {
    let is_set = |name: &str| std::env::var_os(name).is_some();
    if !["NODEVICE_SELECT", "MESA_VK_DEVICE_SELECT", "DRI_PRIME"].into_iter().any(is_set) {
        // SAFETY: main has just begun and no thread was started yet, so none reads the environment meanwhile.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}
