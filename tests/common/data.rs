//! Where the big test data lies: the folder in `WGPU_LLM_TEST_DATA`, filled by `tools/golden/fetch.py`.

use std::path::PathBuf;

/// The path of `name` in the test data. Without it, says that `test` was skipped, or fails if `WGPU_LLM_DATA=require`.
pub fn find(name: &str, test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("WGPU_LLM_TEST_DATA").map(|dir| PathBuf::from(dir).join(name));
    if let Some(path) = path.filter(|p| p.exists()) {
        return Some(path);
    }
    let why = format!("{test}: SKIPPED, no {name} under WGPU_LLM_TEST_DATA; `tools/test.sh` fetches it");
    assert!(std::env::var_os("WGPU_LLM_DATA").is_none_or(|v| v != "require"), "{why}");
    eprintln!("{why}");
    None
}
