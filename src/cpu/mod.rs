//! Floor 5: running graph segments on the CPU: the thread pool and the runner.

mod pool;
mod runner;

pub use pool::ThreadPool;
pub use runner::{Memory, Program, Timing, Weights};
