//! Every shader compiled by browsers' compilers, which are stricter than naga about uniform control flow: in Chromium where it
//! is installed (WGPU_LLM_CHROMIUM=require fails without), and by `tint` where that is on the path.

#[path = "common/chromium.rs"]
mod chromium;
#[path = "common/shaders.rs"]
mod shaders;

use std::collections::HashSet;
use std::process::Command;
use wgpu_llm::gpu::{F16, SUBGROUPS, Target, expand};
use wgpu_llm::ops::Caps;

/// The texts that browsers get, each once. All are parsed and checked; pipelines are made of one for each shader with each
/// set of flags, and for each weight format, since what differs otherwise are sizes.
fn sources() -> Vec<chromium::Source> {
    let mut variants = Vec::new();
    // What a browser promises: larger tiles are of the same text but for their sizes.
    for (_, caps) in shaders::presets().into_iter().filter(|(_, c)| c.max_shared == Caps::BASELINE.max_shared) {
        variants.extend(shaders::variants(&caps));
    }
    variants.sort_by(|a, b| a.name.cmp(&b.name));
    let (mut texts, mut shapes, mut formats, mut all) = (HashSet::new(), HashSet::new(), HashSet::new(), Vec::new());
    for v in variants {
        let wgsl = expand(&v.pass, Target::Browser).unwrap_or_else(|e| panic!("{}: {e}", v.name)).text;
        if !texts.insert(wgsl.clone()) {
            continue;
        }
        let features = [(SUBGROUPS, "subgroups"), (F16, "shader-f16")];
        let features = features.iter().filter(|(flag, _)| v.pass.flags.contains(flag)).map(|(_, f)| *f).collect();
        let new_shape = shapes.insert((v.pass.shader, v.pass.flags.clone()));
        let pipeline = formats.insert(v.pass.quant) || new_shape;
        if v.pass.flags.contains(&F16) {
            // SwiftShader has no f16: where nothing else has it either, all the rest of the text is checked at least.
            let (name, wgsl) =
                (format!("{}, f16 as f32", v.name), wgsl.replace("enable f16;", "").replace("f16", "f32"));
            let features = v.pass.flags.contains(&SUBGROUPS).then_some("subgroups").into_iter().collect();
            all.push(chromium::Source { name, wgsl, features, pipeline });
        }
        all.push(chromium::Source { name: v.name, wgsl, features, pipeline });
    }
    all
}

#[test]
fn chromium_compiles_every_shader() {
    let Some(browser) = chromium::browser() else {
        let why = "chromium_compiles_every_shader: SKIPPED, no chromium on the path";
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

#[test]
fn tint_accepts_every_shader() {
    let tint = |file: &std::path::Path| Command::new("tint").args(["--format", "wgsl"]).arg(file).output();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shader.wgsl");
    std::fs::write(&path, "@compute @workgroup_size(1) fn main() {}").expect("written");
    if !tint(&path).is_ok_and(|out| out.status.success()) {
        eprintln!("tint_accepts_every_shader: SKIPPED, no tint on the path");
        return;
    }
    let (sources, mut failures) = (sources(), Vec::new());
    for s in &sources {
        std::fs::write(&path, &s.wgsl).expect("written");
        let out = tint(&path).expect("it ran before");
        if !out.status.success() {
            failures.push(format!("{}\n{}", s.name, String::from_utf8_lossy(&out.stderr)));
        }
    }
    println!("tint: {} shaders checked, {} fail", sources.len(), failures.len());
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}
