//! Every operation against exact results, as `wgpu-llm doctor` does: on the CPU, and on the GPU that the browser gives.

use crate::engine::{LoadOptions, open_device, parse};
use crate::thrown;
use serde_json::{Value, json};
use wasm_bindgen::prelude::*;
use wgpu_llm::low_level::base::{Error, Result};
use wgpu_llm::low_level::ops::{Caps, Serial};
use wgpu_llm::low_level::run::selftest::{Findings, cases};
use wgpu_llm::low_level::simd::Level;

/// Compares the CPU's code of every operation with exact results: the instructions in use, how many cases were run, and what is
/// wrong, as JSON.
#[wasm_bindgen(js_name = checkCpu)]
pub fn check_cpu() -> Result<String, JsValue> {
    let (cases, mut findings) = (cases(false, &Caps::BASELINE), Findings::default());
    findings.check_cpu(&cases, &Serial, &mut |_| Ok(())).map_err(thrown)?;
    Ok(report(&findings, json!({"level": Level::best().name(), "cases": cases.len()})))
}

/// The same for every kernel that the GPU can run: what device it is, how many cases of how many kernels were run, those that a
/// kernel is not for, and what is wrong, as JSON. `options` (JSON) are those of loading; `ops`, where there are any, names the
/// operations that are meant; with `quick` as many cases are run as meet every kernel.
#[wasm_bindgen(js_name = checkGpu)]
pub async fn check_gpu(options: String, ops: Vec<String>, quick: bool) -> Result<String, JsValue> {
    on_gpu(&options, &ops, quick).await.map_err(thrown)
}

async fn on_gpu(options: &str, ops: &[String], quick: bool) -> Result<String> {
    let options: LoadOptions = parse(options, "options")?;
    let open =
        async || open_device(&options).await?.ok_or_else(|| Error::usage("the GPU is to be checked, not the CPU"));
    let device = open().await?;
    let mut cases = cases(quick, device.caps());
    cases.retain(|case| ops.is_empty() || ops.iter().any(|op| op == case.op.name()));
    let mut findings = Findings::default();
    let about = json!({
        "device": device.info().name,
        "subgroups": device.caps().subgroups,
        "f16": device.caps().f16,
        "cases": cases.len(),
    });
    device.destroy();
    findings.check_gpu_async(&cases, open, &mut |_| Ok(())).await?;
    Ok(report(&findings, about))
}

/// `about`, with what was found.
fn report(findings: &Findings, mut about: Value) -> String {
    let kernels = findings.0.iter().map(|f| (format!("{} {}", f.op, f.variant), json!(f.cases)));
    about["kernels"] = Value::Object(kernels.collect());
    about["runs"] = json!(findings.0.iter().map(|f| f.cases).sum::<usize>());
    about["refused"] = json!(findings.0.iter().map(|f| f.refused).sum::<usize>());
    let named =
        findings.0.iter().flat_map(|f| f.failures.iter().map(move |why| format!("{} {}: {why}", f.op, f.variant)));
    about["failures"] = json!(named.collect::<Vec<_>>());
    about.to_string()
}
