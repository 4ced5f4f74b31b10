//! Floor 10: from a model to a session: devices, contexts, plans, and what is tried if a GPU fails. No terminal, no command line.

mod contexts;
mod devices;
mod loader;
mod notice;
pub mod rates;
pub mod system;

pub use contexts::{check_memory, contexts, pool};
pub use devices::{DeviceChoice, DeviceOptions};
pub use loader::{Loader, Opened, keep_pipelines, start};
pub use notice::{Listener, Notice};
