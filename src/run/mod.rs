//! Floor 7: running a model: which layers go where, batches on their devices, sessions with their cache, generation,
//! and the self-test of devices.

mod engine;
mod generate;
mod measure;
mod placement;
mod products;
pub mod roofline;
pub mod selftest;
mod session;
mod trace;
mod traffic;

pub use engine::{Engine, Figures};
pub use generate::{Answer, Stop};
pub use placement::Placement;
pub use products::Products;
pub use session::{Options, Session};
pub use trace::{Event, Trace};
pub use traffic::Traffic;
