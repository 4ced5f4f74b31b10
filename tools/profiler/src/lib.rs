//! Shows where the time of wgpu-llm goes: views over a [`Profile`](wgpu_llm::low_level::profile::Profile), for a window of their own or for
//! anybody's egui program.
//!
//! ```no_run
//! # fn show(session: &mut wgpu_llm::low_level::run::Session, ui: &mut eframe::egui::Ui) -> wgpu_llm::low_level::base::Result<()> {
//! use wgpu_llm_profiler::{Feed, Viewer};
//! let (sender, feed) = Feed::channel();
//! session.engine().observe(Box::new(sender))?;
//! let mut viewer = Viewer::live(feed);
//! // And in each frame:
//! viewer.ui(ui);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod colour;
mod feed;
mod view;
mod viewer;
mod words;

pub use feed::{Feed, open};
pub use view::View;
pub use viewer::Viewer;
