//! `wgpu-llm-web-pack IN.wasm OUT`: makes an ES module with the functions that IN.wasm exports, and the WebAssembly that goes with it.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(input), Some(output)) = (arguments.next(), arguments.next()) else {
        return Err("usage: wgpu-llm-web-pack IN.wasm OUT".into());
    };
    let mut bindgen = wasm_bindgen_cli_support::Bindgen::new();
    bindgen.input_path(input).out_name("wgpu_llm").typescript(true).omit_default_module_path(false).web(true)?;
    bindgen.generate(output)?;
    Ok(())
}
