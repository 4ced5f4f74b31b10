//! `wgpu-llm` for JavaScript: the engine that the page's worker holds. Everything that waits for the GPU is a promise.
//!
//! Files are JavaScript's: it reads them when it is asked to, so that a model never lies in the heap as a whole.

mod chat;
mod check;
mod engine;
mod host;

use wasm_bindgen::prelude::*;
use wgpu_llm::low_level::base::Error;

/// Sends panics to the console: without a word there, WebAssembly only says `unreachable`.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|info| host::error(&info.to_string())));
}

/// The library's version.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}

/// An error as JavaScript throws it; `kind` is the library's.
fn thrown(error: Error) -> JsValue {
    let value = js_sys::Error::new(&error.to_string());
    let kind = format!("{:?}", error.kind());
    // A property of a new object can always be set.
    let _ = js_sys::Reflect::set(&value, &"kind".into(), &kind.into());
    value.into()
}
