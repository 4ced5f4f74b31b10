//! The profiler as a user meets it, without a window: the table of kernels, traces that open again, summaries without any text.
#![cfg(feature = "cli")]

#[path = "common/fixture.rs"]
mod fixture;

use serde_json::Value as Json;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HOME", dir).env("HF_HUB_CACHE", dir).env("HF_HUB_OFFLINE", "1");
    command.current_dir(dir).args(args).stdin(Stdio::null()).output().expect("runs")
}

#[track_caller]
fn expect(output: &Output, code: i32, says: &str) {
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(says), "{told:?} lacks {says:?}");
}

fn json(path: &Path) -> Json {
    serde_json::from_str(&fs::read_to_string(path).expect("written")).expect("JSON")
}

#[test]
fn a_run_is_told_kernel_by_kernel_and_its_files_hold_no_text() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("model.gguf"), fixture::bytes(&fixture::talker()).expect("well formed"))
        .expect("written");
    let files = ["--trace", "trace.json", "--profile-json", "summary.json"];
    // The token that ends an answer is never drawn: an answer without a token has no table.
    let args =
        "profile --no-window -m model.gguf --device cpu -n 4 -l 99-inf -p zyxwvut".split(' ').collect::<Vec<_>>();
    let output = run(dir.path(), &[&args[..], &files].concat());
    for says in ["KERNEL", "linear/cpu ffn_down", "answer: ", "prompt: "] {
        expect(&output, 0, says);
    }
    let (trace, summary) = (json(&dir.path().join("trace.json")), json(&dir.path().join("summary.json")));
    for file in [&trace, &summary] {
        let text = file.to_string();
        assert!(!text.contains("zyxwvut") && !text.contains("model.gguf"), "no text, no file's name: {text}");
    }
    assert_eq!(summary["version"], 1);
    let first = &summary["answer"]["kernels"][0];
    assert!(first["of_roofline"].as_f64().is_some_and(|part| part > 0.0), "{first}");
    assert!(trace["traceEvents"].as_array().is_some_and(|events| events.iter().any(|e| e["ph"] == "C")));

    expect(&run(dir.path(), &["profile", "--no-window", "trace.json"]), 0, "linear/cpu ffn_down");
    expect(&run(dir.path(), &["profile", "--no-window", "summary.json"]), 1, "no trace of wgpu-llm");
    expect(&run(dir.path(), &["profile", "--no-window", "none.json"]), 1, "can't read the trace");
    // Standard input is there, but says nothing.
    expect(&run(dir.path(), &["profile", "--no-window", "-m", "model.gguf"]), 2, "an empty prompt");
}
