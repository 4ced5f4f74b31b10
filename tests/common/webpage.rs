//! The page for browsers, built by `tools/web/build.sh`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The folder with the built page; an error if it cannot be built here.
static PAGE: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = |argument: &[&str]| Command::new("bash").arg(root.join("tools/web/build.sh")).args(argument).output();
    if !script(&["--check"]).is_ok_and(|out| out.status.success()) {
        return Err("no toolchain for WebAssembly; tools/web/build.sh says what to install".into());
    }
    let built = script(&[]).map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(built.status.success(), "tools/web/build.sh fails:\n{said}");
    println!("{}", said.lines().last().unwrap_or_default());
    Ok(root.join("target/web"))
});

/// The same, built once.
pub fn built() -> Result<&'static Path, String> {
    PAGE.as_ref().map(PathBuf::as_path).map_err(Clone::clone)
}
