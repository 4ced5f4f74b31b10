//! What JavaScript does for the engine: the functions of `globalThis.wgpuLlmHost`, which the worker sets.

use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use wgpu_llm::low_level::base::{Error, ErrorKind, Result};
use wgpu_llm::low_level::gguf::ReadAt;

#[wasm_bindgen]
extern "C" {
    /// Fills `into` with the bytes of file `file` from `offset` on, at once: workers may do that.
    #[wasm_bindgen(catch, js_namespace = ["globalThis", "wgpuLlmHost"], js_name = read)]
    fn read(file: u32, offset: f64, into: &mut [u8]) -> Result<(), JsValue>;

    /// Lets the worker hear what was sent to it meanwhile.
    #[wasm_bindgen(js_namespace = ["globalThis", "wgpuLlmHost"], js_name = breathe)]
    fn breathe() -> Promise;

    /// The GPU was lost, and the work goes on: on a GPU again, or on the CPU.
    #[wasm_bindgen(js_namespace = ["globalThis", "wgpuLlmHost"], js_name = recovered)]
    pub fn recovered(message: &str, gpu: bool);

    #[wasm_bindgen(js_namespace = console)]
    pub fn error(text: &str);
}

/// Waits until the worker has heard what was sent to it: without that, nobody could stop what never waits for anything.
pub async fn pause() {
    // It never fails, and there would be nothing to do about it.
    let _ = JsFuture::from(breathe()).await;
}

/// A file that JavaScript has open.
pub struct File {
    /// Its number there.
    pub id: u32,
    /// Its size in bytes.
    pub length: u64,
}

impl ReadAt for File {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        read(self.id, offset as f64, into).map_err(|e| {
            let why = js_sys::Error::from(e).message();
            Error::new(ErrorKind::Io, "the file cannot be read")
                .because(String::from(why))
                .help("it may have changed since it was chosen: choose it again")
        })
    }
}
