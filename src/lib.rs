//! `wgpu-llm`: language models on any GPU through wgpu compute shaders, on the CPU with SIMD where there is none.
//!
//! The rooms and their floors stand in ARCHITECTURE.md; imports point down only.
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(feature = "cli")]
pub mod app;
pub mod arch;
pub mod base;
pub mod cpu;
pub mod gguf;
pub mod gpu;
pub mod graph;
pub mod model;
pub mod ops;
pub mod quant;
pub mod run;
pub mod sample;
pub mod simd;
pub mod text;
