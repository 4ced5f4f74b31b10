//! Every shader compiled by Tint, Chromium's compiler, and every kernel run by Dawn, Chromium's WebGPU: a second implementation beside wgpu's.
//! Without a browser, in Node; WGPU_LLM_DAWN=require fails if Dawn is not installed.
//!
//! `WGPU_LLM_TINT_SPIRV=DIR` keeps what Tint makes of the shaders, for `kernel-stats --peer DIR`. `WGPU_LLM_OP=name` picks one operation.
//! `WGPU_LLM_DAWN_CASES=all` runs all cases of every kernel, which takes a software GPU many minutes, not as many as meet each.

#[allow(dead_code, reason = "the rest is for browsers")]
#[path = "common/chromium.rs"]
mod chromium;
#[path = "common/dawn.rs"]
mod dawn;
#[path = "common/shaders.rs"]
mod shaders;
#[path = "common/tint.rs"]
mod tint;
#[path = "common/webpage.rs"]
mod webpage;

use dawn::{Dawn, Driver, NULL};
use serde_json::{Value, json};
use tint::{First, Text};
use wgpu_llm::low_level::ops::AnyOp;

/// Texts that one process compiles: Dawn 0.6.2 for Node ends with corrupted locks when one gets more than a thousand, those with products in bytes
/// among them, though it takes each of them, and all in pieces.
const PIECE: usize = 250;

/// Compiles `texts`; None if Dawn has no adapter with `driver`. Panics with what does not compile.
fn compile(dawn: &Dawn, texts: &[Text], driver: &Driver, options: &[&str]) -> Option<Value> {
    let mut all: Option<Value> = None;
    for piece in texts.chunks(PIECE) {
        let verdict = compile_piece(dawn, piece, driver, options)?;
        let Some(all) = &mut all else {
            all = Some(verdict);
            continue;
        };
        for count in ["compiled", "pipelines", "skipped"] {
            all[count] = (all[count].as_u64().expect("a number") + verdict[count].as_u64().expect("a number")).into();
        }
    }
    all
}

fn compile_piece(dawn: &Dawn, texts: &[Text], driver: &Driver, options: &[&str]) -> Option<Value> {
    let shaders: Vec<Value> = texts
        .iter()
        .map(|Text { source: s, shared, invocations, .. }| {
            json!({"name": s.name, "wgsl": s.wgsl, "features": s.features, "shared": shared, "invocations": invocations})
        })
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    serde_json::to_writer(&file, &shaders).expect("written");
    let verdict = dawn.run("compile.mjs", &[file.path()], driver, options)?;
    let failed: Vec<String> = verdict["failed"].as_array().expect("a list").iter().map(|f| failure(texts, f)).collect();
    let (about, compiled) = (&verdict["adapter"], &verdict["compiled"]);
    println!("tint for {about}: {compiled} of {} shaders, {} pipelines", texts.len(), verdict["pipelines"]);
    assert!(failed.is_empty(), "{} fail:\n{}", failed.len(), failed.join("\n"));
    Some(verdict)
}

/// Tint's message, with the file and line it is about, and the variant.
fn failure(texts: &[Text], failed: &Value) -> String {
    let name = failed["name"].as_str().expect("a name");
    let text = texts.iter().find(|t| t.source.name == name).expect("one of them");
    let line = failed["line"].as_u64().expect("a number") as usize;
    format!("{}, {name}: {}", text.expanded.place(line), failed["message"].as_str().expect("text"))
}

#[test]
fn tint_compiles_every_shader() {
    let Some(dawn) = Dawn::find("tint_compiles_every_shader") else { return };
    let texts = tint::texts();
    // It has all features, and of the limits what every device promises.
    let verdict = compile(&dawn, &texts, &NULL, &[]).expect("it needs no driver");
    let large = texts.iter().filter(|t| t.large).count();
    assert_eq!(verdict["compiled"], texts.len(), "of {:?}", verdict["features"]);
    assert_eq!(verdict["pipelines"], texts.len() - large);
    assert!(large < texts.len() / 4, "{large} of {} are more than devices promise", texts.len());
}

#[test]
fn tint_names_shader_line_and_variant() {
    let Some(dawn) = Dawn::find("tint_names_shader_line_and_variant") else { return };
    let mut texts = tint::texts();
    texts.truncate(1);
    let Text { source, .. } = &mut texts[0];
    let lines = source.wgsl.lines().count();
    source.wgsl.push_str("\nfn f() -> u32 { return 1.5; }\n");
    let name = source.name.clone();
    let said = std::panic::catch_unwind(|| compile(&dawn, &texts, &NULL, &[]));
    let said = *said.unwrap_err().downcast::<String>().expect("a message");
    assert!(said.contains(&name) && said.contains("u32") && lines > 0, "{said}");
}

/// Tint's SPIR-V is what the users of Chromium get: one shader of each kind, or all where what becomes of them is kept.
#[test]
fn drivers_take_tints_spirv() {
    let Some(dawn) = Dawn::find("drivers_take_tints_spirv") else { return };
    let keep = std::env::var("WGPU_LLM_TINT_SPIRV").ok();
    let options: Vec<&str> = keep.iter().flat_map(|dir| ["--spirv", dir]).collect();
    let try_one = |driver: &Driver| {
        let mut texts = tint::texts();
        texts.retain(|t| keep.is_some() || t.first >= First::Kind);
        let verdict = compile(&dawn, &texts, driver, &options)?;
        let (made, skipped) = (verdict["pipelines"].as_u64()? as usize, verdict["skipped"].as_u64()? as usize);
        // What it lacks is f16 at the most.
        let halves = texts.iter().filter(|t| t.source.features.contains(&"shader-f16")).count();
        let large = texts.iter().filter(|t| t.large).count();
        assert!(skipped <= halves && made + skipped + large >= texts.len(), "{verdict}");
        Some(made)
    };
    if dawn::drivers().iter().find_map(try_one).is_none() {
        missing("drivers_take_tints_spirv");
    }
}

#[test]
fn kernels_match_their_oracles_in_dawn() {
    let test = "kernels_match_their_oracles_in_dawn";
    let Some(dawn) = Dawn::find(test) else { return };
    let page = match webpage::built() {
        Ok(page) => page,
        Err(why) => {
            assert!(std::env::var_os("WGPU_LLM_DAWN").is_none_or(|v| v != "require"), "{test}: {why}");
            return eprintln!("{test}: SKIPPED, {why}");
        }
    };
    let only = std::env::var("WGPU_LLM_OP").ok();
    let mut options: Vec<&str> = only.iter().flat_map(|op| ["--ops", op]).collect();
    if std::env::var_os("WGPU_LLM_DAWN_CASES").is_none_or(|v| v != "all") {
        options.push("--quick");
    }
    // Lavapipe compiles by LLVM when a kernel runs for the first time, and took more than four times as long as SwiftShader.
    let mut drivers = dawn::drivers();
    if std::env::var_os("WGPU_LLM_DAWN_ICD").is_none() {
        drivers.sort_by_key(|driver| !driver.slow);
    }
    let found = drivers.iter().find_map(|driver| dawn.run("ops.mjs", &[page], driver, &options));
    let Some(found) = found else { return missing(test) };
    println!("{}: {} runs of {} cases, {} refused", found["device"], found["runs"], found["cases"], found["refused"]);
    let kernels = found["kernels"].as_object().expect("kernels");
    kernels.iter().for_each(|(kernel, n)| println!("  {kernel}: {n}"));
    let failures: Vec<&str> = found["failures"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
    for name in AnyOp::NAMES.iter().filter(|name| only.as_ref().is_none_or(|op| op == *name)) {
        assert!(kernels.keys().any(|kernel| kernel.split(' ').next() == Some(name)), "{name} has no kernel");
    }
}

/// Nothing that Dawn runs on.
fn missing(test: &str) {
    let why =
        format!("{test}: SKIPPED, no driver that Dawn takes: install chromium, or Mesa's lavapipe from version 23 on");
    assert!(std::env::var_os("WGPU_LLM_DAWN").is_none_or(|v| v != "require"), "{why}");
    eprintln!("{why}");
}
