//! The GPU that tests run on: whatever there is, a CPU that pretends to be one included.

use wgpu_llm::low_level::gpu::{Device, Selector};

/// A device; without one, says that `test` was skipped, or fails if `WGPU_LLM_GPU=require`.
pub fn open(test: &str) -> Option<Device> {
    match Device::open(&Selector::Gpu) {
        Ok(device) => Some(device),
        Err(e) => {
            let why = format!("{test}: SKIPPED, {e}");
            assert!(std::env::var_os("WGPU_LLM_GPU").is_none_or(|v| v != "require"), "{why}");
            eprintln!("{why}");
            None
        }
    }
}
