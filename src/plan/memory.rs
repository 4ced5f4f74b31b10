//! What devices hold, as plans estimate it and profiles report it.

use serde::{Deserialize, Serialize};

/// The CPU's index, where devices are numbered.
pub const CPU: usize = 0;
/// The GPU's.
pub const GPU: usize = 1;

/// A device's memory, in bytes, as it was from a moment on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Index of the device.
    pub device: usize,
    /// Weights.
    pub weights: u64,
    /// Keys, values and inputs.
    pub cache: u64,
    /// Activations and everything else.
    pub other: u64,
}

impl MemoryUse {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.weights + self.cache + self.other
    }
}
