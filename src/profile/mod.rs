//! Floor 8: what was done and how long it took: records of runs, statistics over them, traces and summaries.

pub mod chrome;
mod record;
pub mod recorder;
pub mod statistics;
pub mod summary;

pub use record::{DeviceFacts, Event, Facts, KernelFacts, LayerFacts, Observer, Profile, Record, Run, VERSION};
