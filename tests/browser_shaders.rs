//! Shaders compiled in Chromium, whose compiler is stricter than naga about uniform control flow: one text of each shader where tests/dawn.rs
//! compiles all by the same compiler without a browser, else all. WGPU_LLM_CHROMIUM=require fails if no browser is installed.

#[path = "common/chromium.rs"]
mod chromium;
#[path = "common/dawn.rs"]
mod dawn;
#[path = "common/shaders.rs"]
mod shaders;
#[path = "common/tint.rs"]
mod tint;

use chromium::Source;
use tint::{First, Text};

/// What Chromium compiles. Pipelines are made of one text of each kind, or of each shader.
fn sources() -> Vec<Source> {
    let least = if dawn::Dawn::installed().is_some() { First::Shader } else { First::Kind };
    let mut all = Vec::new();
    for Text { source, first, .. } in tint::texts().into_iter().filter(|t| !t.large) {
        let pipeline = first >= least;
        if least == First::Shader && !pipeline {
            continue;
        }
        if source.features.contains(&"shader-f16") {
            // SwiftShader has no f16: where nothing else has it either, all the rest of the text is checked at least.
            let wgsl = source.wgsl.replace("enable f16;", "").replace("f16", "f32");
            let features = source.features.iter().copied().filter(|f| *f != "shader-f16").collect();
            all.push(Source { name: format!("{}, f16 as f32", source.name), wgsl, features, pipeline });
        }
        all.push(Source { pipeline, ..source });
    }
    all
}

#[test]
fn chromium_compiles_shaders() {
    let Some(browser) = chromium::browser() else {
        let why = "chromium_compiles_shaders: SKIPPED, no chromium on the path";
        assert!(std::env::var_os("WGPU_LLM_CHROMIUM").is_none_or(|v| v != "require"), "{why}");
        eprintln!("{why}");
        return;
    };
    let sources = sources();
    // A shader that no browser may compile would pass by being passed over: SwiftShader has all but f16.
    let expected = sources.iter().filter(|s| !s.features.contains(&"shader-f16")).count();
    let verdict = chromium::compile(&browser, &sources).unwrap_or_else(|e| panic!("{}: {e}", browser.display()));
    let pipelines = sources.iter().filter(|s| s.pipeline).count();
    let (compiled, failed) = (verdict.compiled, verdict.failed.len());
    println!("chromium: {compiled} of {} shaders compiled, {pipelines} to pipelines, {failed} fail", sources.len());
    assert!(verdict.failed.is_empty(), "{failed} fail:\n{}", verdict.failed.join("\n"));
    assert!(compiled as usize >= expected, "{compiled} compiled of {expected}");
}
