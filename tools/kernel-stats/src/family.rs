//! The families of cards that are compiled for, and where the compiler is.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A family of AMD's cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// What it is called here.
    pub name: &'static str,
    /// A card of it.
    pub card: &'static str,
    /// What Mesa calls it, the newest name first.
    pub mesa: &'static [&'static str],
    /// Threads of the subgroups by which RADV counts those that fit a SIMD.
    pub wave: u32,
    /// Whether stores are waited for in one order with loads.
    pub stores_wait: bool,
}

/// All of them.
pub const FAMILIES: [Family; 3] = [
    Family { name: "rdna2", card: "RX 6900 XT", mesa: &["navi21"], wave: 32, stores_wait: false },
    Family { name: "rdna3", card: "RX 7900 XTX", mesa: &["navi31", "gfx1100"], wave: 32, stores_wait: false },
    Family { name: "vega", card: "Radeon VII", mesa: &["vega20"], wave: 64, stores_wait: true },
];

impl Family {
    /// The family called `name`.
    pub fn find(name: &str) -> Option<Family> {
        FAMILIES.into_iter().find(|f| f.name == name)
    }
}

/// Where Vulkan's loader looks for the files that name drivers.
const FOLDERS: [&str; 4] =
    ["/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/usr/share/vulkan/icd.d", "/usr/local/etc/vulkan/icd.d"];

/// The file that names RADV: `given`, or what the environment says where that is RADV, or the system's.
pub fn radv(given: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = given {
        return if path.is_file() { Ok(path.into()) } else { Err(format!("there is no {}", path.display())) };
    }
    let set = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].into_iter().find_map(std::env::var_os);
    if let Some(path) = set.iter().flat_map(std::env::split_paths).find(|p| is_radv(p) && p.is_file()) {
        return Ok(path);
    }
    installed(&FOLDERS.map(Path::new))
}

fn is_radv(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("radeon_icd"))
}

/// The file in one of `folders`.
fn installed(folders: &[&Path]) -> Result<PathBuf, String> {
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok());
    let files = files.flat_map(|folder| folder.flatten().map(|e| e.path()));
    let mut found: Vec<PathBuf> = files.filter(|path| is_radv(path)).collect();
    // A system of several architectures names them.
    found.sort_by_key(|p| !p.to_string_lossy().contains(std::env::consts::ARCH));
    found.into_iter().next().ok_or_else(|| {
        let places: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
        format!(
            "RADV is not here: no radeon_icd*.json in {}. It is Mesa's Vulkan driver for AMD's GPUs, and compiles without one. On Debian \
             or Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1. One that lies elsewhere is named with --icd FILE",
            places.join(", ")
        )
    })
}

/// The environment in which RADV of `icd` is a card that Mesa calls `mesa`: to be set before Vulkan's first call.
pub fn environment(command: &mut Command, icd: &Path, mesa: &str) {
    // The older and the newer name of the same.
    command.env("VK_ICD_FILENAMES", icd).env("VK_DRIVER_FILES", icd).env_remove("VK_ADD_DRIVER_FILES");
    command.env("RADV_FORCE_FAMILY", mesa).env("MESA_SHADER_CACHE_DISABLE", "true");
    // Layers of drivers that are not asked.
    command.env("VK_LOADER_LAYERS_DISABLE", "~implicit~");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_is_named_must_be_there() {
        let error = radv(Some(Path::new("/nowhere/radeon_icd.json"))).unwrap_err();
        assert_eq!(error, "there is no /nowhere/radeon_icd.json");
        let here = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(radv(Some(here.path())).unwrap(), here.path());
    }

    #[test]
    fn the_driver_of_this_machine_is_taken_and_without_one_it_is_said_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = installed(&[folder.path()]).unwrap_err();
        assert!(error.starts_with("RADV is not here") && error.contains("apt-get install"), "{error}");
        for name in ["lvp_icd.json", "radeon_icd.i686.json", "radeon_icd.zz.json"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        assert!(is_radv(&installed(&[folder.path()]).unwrap()));
        let own = folder.path().join(format!("radeon_icd.{}.json", std::env::consts::ARCH));
        std::fs::write(&own, "{}").unwrap();
        assert_eq!(installed(&[Path::new("/nowhere"), folder.path()]), Ok(own));
    }

    #[test]
    fn families_are_found_by_name() {
        assert_eq!(Family::find("vega").unwrap().mesa, ["vega20"]);
        assert_eq!(Family::find("navi21"), None);
    }
}
