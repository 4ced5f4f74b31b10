//! `fit` as a user meets it: plans as tables and as JSON, refusals that say what to do, and plans that commands then keep to.
#![cfg(feature = "cli")]

#[path = "common/cli.rs"]
mod cli;
#[path = "common/data.rs"]
mod data;
#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use cli::{stderr, stdout};
use fixture::with_heads;
use serde_json::Value as Json;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The program on whatever GPU there is, with caches of its own.
fn run_in(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HOME", home).env("HF_HUB_CACHE", home).env("HF_HUB_OFFLINE", "1");
    for name in ["VK_ICD_FILENAMES", "VK_DRIVER_FILES", "LD_LIBRARY_PATH"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command.args(args).stdin(Stdio::null()).output().expect("runs")
}

#[track_caller]
fn json(output: &Output) -> Json {
    serde_json::from_str(&stdout(output)).expect("JSON")
}

const FIT: [&str; 7] = ["fit", "--device", "gpu", "--synthetic", "moe-tiny:q8_0", "-c", "512"];

#[test]
fn a_plan_adds_up_and_says_why() {
    if device::open("a_plan_adds_up_and_says_why").is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let fit = |more: &[&str]| run_in(home.path(), &[&FIT[..], more].concat());
    let plan = json(&fit(&["--json", "-ub", "64"]));
    let number = |v: &Json| v.as_u64().expect("a number");
    assert_eq!((number(&plan["gpu_layers"]), number(&plan["context"])), (3, 512));
    let whole = number(&plan["memory"]["gpu"]["bytes"]);
    assert!(home.path().join(".cache/wgpu-llm/speeds.json").exists(), "measurements are kept");

    let limit = format!("{}b", whole * 3 / 4);
    let output = fit(&["--json", "-ub", "64", "--vram-limit", &limit]);
    assert!(!stderr(&output).contains("measuring"), "what was measured is used: {}", stderr(&output));
    let plan = json(&output);
    let memory = &plan["memory"]["gpu"];
    assert!(number(&memory["bytes"]) <= whole * 3 / 4 && number(&memory["bytes"]) > 0, "{plan:#}");
    assert_eq!(number(&plan["budget"]["gpu"]), whole * 3 / 4);
    assert_eq!(
        number(&memory["weights"]) + number(&memory["cache"]) + number(&memory["other"]),
        number(&memory["bytes"])
    );
    let segments = plan["segments"].as_array().expect("segments");
    let sum = |device: &str, key: &str| -> u64 {
        segments.iter().filter(|s| s["device"] == device).map(|s| number(&s[key])).sum()
    };
    assert_eq!(sum("GPU", "weight_bytes"), number(&memory["weights"]));
    let seconds: f64 = segments.iter().map(|s| s["seconds"].as_f64().expect("seconds")).sum();
    assert!((seconds / plan["seconds_per_token"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    assert!(plan["why"].as_str().unwrap().contains("may be used"), "{plan:#}");

    let text = stdout(&fit(&["-ub", "64", "--vram-limit", &limit, "--measure", "4"]));
    for part in ["3 layers there", "because", "WEIGHTS", "MS/TOKEN", "GPU", "CPU", "were predicted", "memory: GPU"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn flags_say_what_stays_where() {
    if device::open("flags_say_what_stays_where").is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let places = |more: &[&str]| -> Vec<String> {
        let plan = json(&run_in(home.path(), &[&FIT[..], &["--json"], more].concat()));
        let name = |s: &Json| format!("{} {}", s["device"].as_str().unwrap(), s["what"].as_str().unwrap());
        plan["segments"].as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(places(&["-ngl", "2"]), ["CPU embedding, layer 0", "GPU layer 1, output"]);
    let apart = places(&["-ncmoe", "1"]);
    assert_eq!(apart[1], "CPU experts of layer 0");
    assert_eq!(places(&["-ot", r"blk\.0\.ffn_.*_exps=cpu"]), apart);
    assert_eq!(places(&["--cpu-moe"]).iter().filter(|p| p.starts_with("CPU experts")).count(), 2);
    assert_eq!(places(&["-nkvo"]).iter().filter(|p| p.starts_with("CPU")).count(), 2);
}

#[test]
fn what_cannot_be_is_refused_with_need_and_have() {
    if device::open("what_cannot_be_is_refused_with_need_and_have").is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    for (more, code, parts) in [
        (&["-ngl", "all", "--vram-limit", "1MiB"][..], 1, &["needs", "1024 KiB may be used", "-ngl auto"][..]),
        (&["--vram-limit", "many"], 2, &["20MB"]),
        (&["-ot", "ffn"], 2, &["REGEX=cpu"]),
        (&["-ot", "(=cpu"], 2, &["regular expression"]),
    ] {
        let output = run_in(home.path(), &[&FIT[..5], more].concat());
        assert_eq!(output.status.code(), Some(code), "{more:?}: {}", stderr(&output));
        for part in parts {
            assert!(stderr(&output).contains(part), "{more:?}: {part}: {}", stderr(&output));
        }
    }
}

/// Heads that the GPU has no kernel for: `fit` and `complete` say where attention goes, even if all layers are asked for.
#[test]
fn heads_that_fit_no_workgroup_are_left_to_the_cpu() {
    if device::open("heads_that_fit_no_workgroup_are_left_to_the_cpu").is_none() {
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let path = home.path().join("heads.gguf");
    std::fs::write(&path, fixture::bytes(&with_heads(fixture::talker(), 4096)).expect("well formed")).expect("written");
    let model = ["-m", path.to_str().expect("a readable path"), "-c", "128"];
    let small = ["--device", "gpu", "--workgroup-memory", "16KiB"];
    for layers in ["all", "auto"] {
        let plan = json(&run_in(home.path(), &[&["fit", "--json", "-ngl", layers], &model[..], &small].concat()));
        let why = plan["why"].as_str().expect("a reason");
        assert!(why.contains("attention of 2 of its layers is left to the CPU"), "-ngl {layers}: {why}");
        assert_eq!(plan["gpu_layers"].as_u64(), Some(3), "-ngl {layers}: {why}");
    }
    let complete = ["complete", "-n", "8", "--temp", "0", "-p", "What is it?"];
    let alone = run_in(home.path(), &[&complete, &model[..], &["--device", "cpu"]].concat());
    let split = run_in(home.path(), &[&complete, &model[..], &small, &["-ngl", "all"]].concat());
    assert!(stderr(&split).contains("is left to the CPU"), "{}", stderr(&split));
    assert_eq!(stdout(&split), stdout(&alone));
}

#[test]
fn large_models_are_planned_without_being_made() {
    let home = tempfile::tempdir().expect("a folder");
    let args = ["fit", "--device", "cpu", "--synthetic", "llama-1b:q4_0", "-c", "4096", "--json"];
    let plan = json(&run_in(home.path(), &args));
    assert_eq!((plan["gpu_layers"].as_u64(), plan["layers"].as_u64()), (Some(0), Some(16)));
    assert!(plan["memory"]["cpu"]["weights"].as_u64().unwrap() > 500 << 20, "{plan:#}");
}

/// Where memory turns out not to suffice, three quarters of it are tried, and again.
#[test]
fn what_the_plan_promised_and_the_gpu_has_not_is_found_out_by_trying() {
    let test = "what_the_plan_promised_and_the_gpu_has_not_is_found_out_by_trying";
    let (Some(_), Some(model)) = (device::open(test), data::find("SmolLM2-135M-Instruct.Q4_1.gguf", test)) else {
        return;
    };
    let home = tempfile::tempdir().expect("a folder");
    let path = model.to_str().expect("a readable path");
    let args =
        ["complete", "--device", "gpu", "-m", path, "-c", "4096", "--temp", "0", "-n", "4", "-p", "One two three"];
    let whole = run_in(home.path(), &args);
    assert!(stderr(&whole).contains("all 31 layers there"), "{}", stderr(&whole));
    // The devices are measured here: faults are for the model.
    run_in(home.path(), &["fit", "--device", "gpu", "-m", path, "--vram-limit", "80MB"]);
    let less = run_in(home.path(), &[&args[..], &["--inject-faults", "oom@0,oom@0"]].concat());
    let told = stderr(&less);
    assert_eq!(told.matches("out of memory; trying with").count(), 2, "{told}");
    let layers = told.split(" of 31 layers there").next().and_then(|before| before.rsplit(' ').next());
    assert!(layers.and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| (1..31).contains(&n)), "{told}");
    assert_eq!(stdout(&less), stdout(&whole));
}
