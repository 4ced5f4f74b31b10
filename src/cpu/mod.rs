//! Floor 5: running graph segments on the CPU: the thread pool and the runner.

mod backoff;
mod memory;
mod needs;
mod panels;
mod pool;
mod runner;

pub use memory::Memory;
pub use needs::SystemMemory;
pub use panels::{Panels, RowSource};
pub use pool::ThreadPool;
pub use runner::{Bytes, Program, Timing, WeightSource};
