//! Floor 7: running a model: which layers go where, batches on their devices, sessions with their cache, generation,
//! and the self-test of devices.

pub mod budget;
pub mod chrome;
mod engine;
mod facts;
pub mod fit;
mod generate;
mod measure;
mod observe;
mod placement;
pub mod predict;
mod products;
pub mod profile;
mod recover;
pub mod roofline;
pub mod selftest;
mod session;
pub mod speed;
pub mod statistics;
pub mod summary;
mod trace;
mod traffic;

pub use engine::{Engine, Figures};
pub use generate::{Answer, Stop};
pub use placement::{Block, Override, Placement, Rules};
pub use products::Products;
pub use profile::{Observer, Profile};
pub use recover::Recovery;
pub use session::{Options, Session};
pub use traffic::Traffic;
