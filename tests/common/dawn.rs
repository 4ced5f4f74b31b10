//! Dawn for Node: Chromium's WebGPU and its compiler without a browser, as `tools/test.sh` installs it (tools/dawn).
// Each test file uses a part of this.
#![allow(dead_code)]

use crate::chromium;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Node's exit code where Dawn has no adapter.
const NO_ADAPTER: i32 = 3;

/// What it takes: Node, and the folder with the package.
pub struct Dawn {
    folder: PathBuf,
}

/// A driver that Dawn may run on.
#[derive(Debug, Clone)]
pub struct Driver {
    /// Dawn's name of its interface: `null` runs nothing, and compiles for every feature.
    pub backend: &'static str,
    /// The description that Vulkan's loader takes in place of those it finds.
    pub icd: Option<PathBuf>,
    /// It takes most of a second for a pipeline: SwiftShader.
    pub slow: bool,
}

/// Compiles for every feature, and for what every device promises; there is no driver behind it.
pub const NULL: Driver = Driver { backend: "null", icd: None, slow: false };

impl Dawn {
    /// Where it is; without it, says that `test` was skipped, or fails if `WGPU_LLM_DAWN=require`.
    pub fn find(test: &str) -> Option<Dawn> {
        let dawn = Self::installed();
        if dawn.is_none() {
            let why = format!("{test}: SKIPPED, no Dawn for Node; `tools/test.sh` installs it where there is npm");
            assert!(std::env::var_os("WGPU_LLM_DAWN").is_none_or(|v| v != "require"), "{why}");
            eprintln!("{why}");
        }
        dawn
    }

    /// As [`find`](Self::find), for those who can do without.
    pub fn installed() -> Option<Dawn> {
        let folder = PathBuf::from(std::env::var_os("WGPU_LLM_TEST_DATA")?).join("dawn");
        let there = folder.join("node_modules/webgpu/index.js").is_file();
        let runs = || Command::new("node").arg("--version").output().is_ok_and(|out| out.status.success());
        (there && runs()).then_some(Dawn { folder })
    }

    /// Runs a script of tools/dawn; None if Dawn has no adapter with `driver`. Panics if it fails.
    pub fn run(&self, script: &str, arguments: &[&Path], driver: &Driver, options: &[&str]) -> Option<Value> {
        let aside = tempfile::tempdir().expect("a folder");
        let out = aside.path().join("out.json");
        let mut command = Command::new("node");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/dawn").join(script)).arg(&self.folder);
        command.args(arguments).arg(&out).args(options).arg(format!("backend={}", driver.backend));
        if let Some(icd) = &driver.icd {
            command.env("VK_ICD_FILENAMES", icd).env("VK_DRIVER_FILES", icd);
        }
        let Output { status, stdout, stderr } = command.output().expect("it ran before");
        let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
        if status.code() == Some(NO_ADAPTER) {
            return None;
        }
        assert!(status.success(), "{script} on {driver:?} ends with {status}:\n{said}");
        let text = std::fs::read_to_string(&out).unwrap_or_else(|e| panic!("{script} wrote nothing: {e}\n{said}"));
        Some(serde_json::from_str(&text).expect("JSON"))
    }
}

/// Vulkan drivers to be tried, best first: the one that `WGPU_LLM_DAWN_ICD` names, the system's, the Mesa that `tools/test.sh` unpacks beside Debian
/// 12's, Chromium's own SwiftShader. Dawn wants more of them than wgpu does, and refuses lavapipe before version 23.
pub fn drivers() -> Vec<Driver> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let aside = variable("WGPU_LLM_TEST_DATA").map(|data| data.join("mesa/lvp_icd.json"));
    let beside = chromium::browser().and_then(|program| Some(program.canonicalize().ok()?.parent()?.to_owned()));
    let folders = ["/usr/lib/chromium", "/usr/lib/chromium-browser", "/opt/google/chrome"].map(PathBuf::from);
    let swiftshader = folders.into_iter().chain(beside).map(|dir| dir.join("vk_swiftshader_icd.json"));
    let files = aside.into_iter().chain(swiftshader).filter(|p| p.is_file());
    let all = variable("WGPU_LLM_DAWN_ICD").map(Some).into_iter().chain([None]).chain(files.map(Some));
    let slow = |icd: &Option<PathBuf>| icd.as_ref().is_some_and(|p| p.to_string_lossy().contains("swiftshader"));
    all.map(|icd| Driver { backend: "vulkan", slow: slow(&icd), icd }).collect()
}
