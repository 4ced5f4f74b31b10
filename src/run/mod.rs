//! Floor 9: running a model: batches on their devices, sessions with their cache, generation; many sequences at once; and the
//! self-test of devices.

pub mod batcher;
mod books;
mod copy_pages;
mod engine;
mod facts;
mod generate;
mod measure;
mod observe;
mod programs;
mod recover;
mod saved;
pub mod schedule;
pub mod selftest;
mod session;
mod steps;

pub use engine::{Engine, RunCost};
pub use generate::Generation;
pub use recover::Recovery;
pub use saved::SavedCache;
pub use session::{Pause, Session};
pub use steps::StepEngine;
