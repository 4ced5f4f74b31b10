//! Floor 9: running a model: batches on their devices, sessions with their cache, generation, and the self-test of devices;
//! the scheduler of many sequences, which no engine uses yet.

mod engine;
mod facts;
mod generate;
mod measure;
mod observe;
mod recover;
pub mod schedule;
pub mod selftest;
mod session;

pub use engine::{Engine, Figures};
pub use generate::{FinishReason, Generation};
pub use recover::Recovery;
pub use session::{Pause, Session};
