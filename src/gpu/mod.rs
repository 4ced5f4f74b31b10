//! Floor 5: running graph segments on a GPU: devices, shaders, pipelines, weights, the runner. The only user of wgpu.
//!
//! [`adapters`] lists what there is, [`Device::open`] opens one of them. [`Weights`] uploads a model's tensors, [`Memory`]
//! holds a session's inputs and caches, [`Program`] is a segment of a graph with all pipelines and bind groups made.

mod adapter;
mod budget;
mod build;
mod check;
mod cost;
mod device;
mod failure;
mod memory;
mod needs;
mod pipeline;
mod pipeline_cache;
mod preprocess;
pub mod probe;
mod profile;
mod readback;
pub mod roofline;
mod room;
mod runner;
mod shader;
mod signal;
mod tune;
mod tuning;
mod weights;

pub use adapter::{Adapter, AdapterInfo, Selector, adapters, list};
pub use budget::DeviceMemory;
pub use build::cache_bytes;
pub use check::{Check, Checked};
pub use cost::{SUBMISSION, seconds, submissions};
pub use device::{Counters, Device};
pub use failure::{FaultKind, InjectedFault, POLL_PANIC};
pub use memory::Memory;
pub use needs::{Key, Needs, buffer_bytes};
pub use preprocess::{COOP, Expanded, F16, SUBGROUPS, Target, expand, names, source};
pub use profile::{Clock, Stamps, Timed, Timing};
pub use readback::Pending;
pub use runner::{Choose, Program};
pub use shader::{Binding, Shader};
pub use tuning::Tuning;
pub use weights::{Source, Weights};
