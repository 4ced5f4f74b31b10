//! Flags that take something of a model file otherwise than it stands there, as a user meets them.
#![cfg(feature = "cli")]

#[path = "common/cli.rs"]
mod cli;
#[path = "common/fixture.rs"]
mod fixture;

use cli::{stderr, stdout};
use serde_json::{Value as Json, json};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use wgpu_llm::low_level::ops::nmse;

/// `eval` on the CPU of the model that a specification describes.
fn eval(folder: &Path, model: &Json, args: &[&str]) -> Output {
    let path = folder.join("model.gguf");
    std::fs::write(&path, fixture::bytes(model).expect("a model")).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HOME", folder).args(["eval", "--device", "cpu", "--json", "-m"]).arg(path);
    let tokens = model["tokens"].as_array().expect("tokens").iter().map(Json::to_string).collect::<Vec<_>>().join(",");
    command.args(["--tokens", &tokens]).args(args).stdin(Stdio::null()).output().expect("runs")
}

#[track_caller]
fn logits(output: &Output) -> Vec<f32> {
    let json: Json = serde_json::from_str(&stdout(output)).expect("JSON");
    let row = json["logits"][0].as_array().expect("a row").clone();
    row.iter().map(|x| x.as_f64().expect("a logit") as f32).collect()
}

#[track_caller]
fn same(a: &[f32], b: &[f32]) {
    let b: Vec<f64> = b.iter().map(|x| f64::from(*x)).collect();
    let error = nmse(a, &b);
    assert!(error < 1e-9, "nmse {error:.1e}");
}

#[test]
fn flags_of_the_rotary_embedding_do_what_the_keys_would() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |model: &Json, args: &[&str]| logits(&eval(folder.path(), model, &[&["-c", "256"], args].concat()));
    let without = |name: &str, part: &str| {
        let mut model = fixture::json(name);
        model["kv"].as_array_mut().expect("keys").retain(|kv| !kv[0].as_str().expect("a key").contains(part));
        model
    };
    let linear = run(&fixture::json("llama-linear"), &[]);
    same(&linear, &run(&without("llama-linear", "rope.scaling"), &["--rope-scale", "4"]));
    same(
        &linear,
        &run(&without("llama-linear", "rope.scaling"), &["--rope-freq-scale", "0.25", "--rope-scaling", "linear"]),
    );
    let yarn = run(&fixture::json("llama-yarn"), &[]);
    let flags = ["--rope-scaling", "yarn", "--rope-scale", "4", "--yarn-orig-ctx", "16"];
    same(&yarn, &run(&without("llama-yarn", "rope.scaling"), &flags));
    let based = run(&fixture::json("llama-linear"), &["--rope-freq-base", "10000"]);
    assert!(
        nmse(&based, &linear.iter().map(|x| f64::from(*x)).collect::<Vec<_>>()) > 1e-6,
        "another base, other logits"
    );
    same(&based, &run(&fixture::json("llama-linear"), &["--override-kv", "llama.rope.freq_base=float:10000"]));
}

#[test]
fn a_context_above_the_trained_one_runs_with_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = fixture::json("llama-dense");
    let output = eval(folder.path(), &model, &["-c", "1000"]);
    assert!(stderr(&output).contains("was trained with 256"), "{}", stderr(&output));
    same(&logits(&output), &logits(&eval(folder.path(), &model, &["-c", "256"])));
    // Learned positions end where their table does.
    let output = eval(folder.path(), &fixture::json("gpt2-dense"), &["-c", "1000"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("256 positions"), "{}", stderr(&output));
}

#[test]
fn tensors_that_nobody_reads_stop_a_model_unless_they_are_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut model = fixture::json("llama-dense");
    let odd = json!({"name": "blk.0.attn_gate.weight", "shape": [64, 64], "scale": 0.1, "offset": 0.0});
    model["tensors"].as_array_mut().expect("tensors").push(odd);
    let output = eval(folder.path(), &model, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("blk.0.attn_gate.weight"), "{}", stderr(&output));
    same(
        &logits(&eval(folder.path(), &model, &["--ignore-tensors", "attn_gate"])),
        &logits(&eval(folder.path(), &fixture::json("llama-dense"), &[])),
    );
    // Each key that nothing is known of is named once.
    fixture::set(&mut model, "llama.oddity", json!(["UINT32"]), json!(3));
    let output = eval(folder.path(), &model, &["--ignore-tensors", "attn_gate"]);
    assert_eq!(stderr(&output).matches("llama.oddity").count(), 1, "{}", stderr(&output));
}
