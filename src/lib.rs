//! `wgpu-llm`: language models on any GPU through wgpu compute shaders, on the CPU with SIMD if there is none, split between both if a model is
//! larger than the GPU's memory.
//!
//! A model is a GGUF file. A [`Loader`] opens it on the device that is best for it; the [`Model`] begins a [`Chat`], whose replies come piece
//! by piece:
//!
//! ```no_run
//! use wgpu_llm::{ChatOptions, Loader};
//!
//! let model = Loader::new("model.gguf").load()?;
//! let mut chat = model.chat(ChatOptions::default())?;
//! for piece in chat.ask("Name three colors.")? {
//!     print!("{}", piece?.content);
//! }
//! # Ok::<(), wgpu_llm::Error>(())
//! ```
//!
//! Many requests at once, and other programs' async code: [`Loader::serve`].
//!
//! Errors say what went wrong, where, and what to do about it. Nothing is sent anywhere. In the user's cache folder (`wgpu-llm` in `XDG_CACHE_HOME`,
//! `LOCALAPPDATA` or `~/.cache`) it keeps measurements of the devices and what the driver has compiled. Under [`low_level`] stands what all this is made of, module by module; ARCHITECTURE.md has the map.
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod app;
#[doc(hidden)]
pub mod arch;
#[doc(hidden)]
pub mod base;
#[doc(hidden)]
pub mod chat;
#[doc(hidden)]
pub mod cpu;
#[cfg(not(target_arch = "wasm32"))]
mod facade;
#[doc(hidden)]
pub mod gguf;
#[doc(hidden)]
pub mod gpu;
#[doc(hidden)]
pub mod graph;
#[doc(hidden)]
pub mod model;
#[cfg(not(target_arch = "wasm32"))]
#[doc(hidden)]
pub mod open;
#[doc(hidden)]
pub mod ops;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod profile;
#[doc(hidden)]
pub mod quant;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod sample;
#[cfg(not(target_arch = "wasm32"))]
mod service;
#[doc(hidden)]
pub mod simd;
#[doc(hidden)]
pub mod state;
#[doc(hidden)]
pub mod text;

pub use base::{DType, Error, ErrorKind, Result};
pub use chat::{ChatOptions, Delta, Reply, WhenFull};
#[cfg(not(target_arch = "wasm32"))]
pub use facade::{Chat, Loader, Model, Response};
pub use model::Overrides;
#[cfg(not(target_arch = "wasm32"))]
pub use open::{DeviceChoice, DeviceOptions, Notice};
pub use ops::CacheTypes;
pub use plan::fit::Layers;
pub use plan::{DeviceOverrides, Options, TensorOverride};
pub use quant::Precision;
pub use run::Generation;
pub use run::batcher::{Event, Handle, Request, Times, TokenLogprobs, Usage};
pub use run::schedule::FinishReason;
pub use sample::SamplerOptions;
#[cfg(not(target_arch = "wasm32"))]
pub use service::Service;
pub use text::{Message, Role};

/// The modules of the library, for programs that need more than [`Loader`] and what it opens. They may change with any release.
pub mod low_level {
    #[cfg(not(target_arch = "wasm32"))]
    #[doc(inline)]
    pub use crate::open;
    #[doc(inline)]
    pub use crate::{
        arch, base, chat, cpu, gguf, gpu, graph, model, ops, plan, profile, quant, run, sample, simd, state, text,
    };
}
