//! The views: each draws a profile in what room there is.

pub mod diff;
pub mod memory;
pub mod roofline;
mod slices;
pub mod strip;
pub mod table;
pub mod timeline;
pub mod tokens;

use crate::colour::Ops;
use wgpu_llm::low_level::profile::Profile;
use wgpu_llm::low_level::profile::statistics::Phase;

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Kernels, most expensive first.
    #[default]
    Kernels,
    /// What ran when, of one token.
    Timeline,
    /// Kernels under what the device can do.
    Roofline,
    /// What each token took.
    Tokens,
    /// Memory of the devices, and which layers lie where.
    Memory,
    /// Two traces side by side.
    Diff,
}

impl View {
    /// All, in the order of their keys.
    pub const ALL: [View; 6] = [View::Kernels, View::Timeline, View::Roofline, View::Tokens, View::Memory, View::Diff];

    /// What stands on its button.
    pub fn name(self) -> &'static str {
        match self {
            View::Kernels => "Kernels",
            View::Timeline => "Timeline",
            View::Roofline => "Roofline",
            View::Tokens => "Tokens",
            View::Memory => "Memory",
            View::Diff => "Diff",
        }
    }
}

/// What all views draw from.
pub struct Scene<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// The runs that count.
    pub phase: Phase,
    /// Colours.
    pub ops: &'a Ops,
    /// Changes with the profile; what is worked out from it is kept until then.
    pub version: u64,
}
