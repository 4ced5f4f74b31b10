//! What a real GPU compiler makes of wgpu-llm's kernels, without a GPU: Mesa's RADV compiles for any of AMD's cards.
//!
//! [`list`] asks the ops for their kernels, [`spirv`] makes of them what wgpu would hand to the driver, [`device`] has them compiled,
//! [`count`] counts instructions in the machine code, [`measure`] does it all for several families side by side, and [`record`],
//! [`table`] and [`compare`] keep, show and compare what was found. README.md says what the figures mean.

pub mod assembly;
pub mod compare;
pub mod count;
pub mod device;
pub mod family;
pub mod list;
pub mod loops;
pub mod measure;
pub mod peer;
pub mod record;
pub mod spirv;
pub mod table;

use std::path::PathBuf;

/// Where the record lies in the repository, and its table beside it.
pub fn recorded(extension: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("benches/results/kernels-radv").with_extension(extension)
}

/// The exit status where RADV is not there.
pub const NO_RADV: u8 = 3;
