//! Floor 7: what runs where: device maps, what they take and how fast they are estimated to be, and the fastest that fits; what devices can
//! do, and what a step asks of them.

pub mod budget;
mod device_map;
pub mod fit;
mod memory;
mod options;
pub mod predict;
pub mod rates;
pub mod roofline;
mod work;

pub use device_map::{DeviceMap, DeviceOverrides, LayerDevices, TensorOverride};
pub use memory::{CPU, GPU, MemoryUse};
pub use options::{Options, PIECE_ROWS};
pub use work::{Work, grows};
