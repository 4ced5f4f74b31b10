//! `bench` and `synth` as a user meets them: every form of results can be read by machines, rows are named as llama-bench names
//! them, files hold what was measured in memory. Nothing here looks at how fast anything was.
#![cfg(feature = "cli")]

#[path = "common/cli.rs"]
mod cli;

use cli::{stderr, stdout};
use serde_json::Value as Json;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use wgpu_llm::low_level::model::{Model, synth::Synthetic};
use wgpu_llm::low_level::ops::Serial;
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::run::Session;

fn run_in(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpu-llm"));
    command.env_clear().env("HOME", home).env("HF_HUB_CACHE", home).env("HF_HUB_OFFLINE", "1");
    command.args(args).stdin(Stdio::null()).output().expect("runs")
}

fn run(args: &[&str]) -> Output {
    run_in(tempfile::tempdir().expect("a folder").path(), args)
}

const TINY: [&str; 12] =
    ["bench", "--synthetic", "llama-tiny:q4_0", "--device", "cpu", "-p", "8", "-n", "2,4", "-r", "2", "--no-warmup"];

fn bench(more: &[&str]) -> String {
    stdout(&run(&[&TINY[..], more].concat()))
}

/// The cells of a line of CSV in which every cell is quoted.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.strip_prefix('"').and_then(|l| l.strip_suffix('"')).expect("quoted");
    inner.split("\",\"").collect()
}

const NAMES: [&str; 6] = ["pp8", "tg2", "tg4", "pp8 @ d16", "tg2 @ d16", "tg4 @ d16"];
const DEPTHS: [&str; 2] = ["-d", "0,16"];

#[test]
fn every_form_has_every_row() {
    let md = bench(&DEPTHS);
    let lines: Vec<Vec<&str>> = md.lines().map(|l| l.split('|').map(str::trim).collect()).collect();
    let column = |name: &str| lines[0].iter().position(|c| *c == name).unwrap_or_else(|| panic!("{name}: {md}"));
    let tests: Vec<&str> = lines[2..].iter().map(|l| l[column("test")]).collect();
    assert_eq!(tests, NAMES);
    for line in &lines[2..] {
        assert_eq!(line.len(), lines[0].len());
        let (speed, deviation) = line[column("t/s")].split_once(" ± ").expect("mean and deviation");
        assert!(speed.parse::<f64>().unwrap() > 0.0 && deviation.parse::<f64>().unwrap() >= 0.0);
        assert!(line[column("model")].contains("Q4_0") && line[column("backend")] == "CPU");
        assert_eq!(line[column("simd")], wgpu_llm::low_level::simd::Level::available().last().unwrap().name());
        let (part, of) = line[column("% of peak")].split_once(' ').expect("a part of something");
        assert!(part.parse::<u32>().is_ok() && ["memory", "arithmetic"].contains(&of), "{md}");
    }

    let csv = bench(&[&DEPTHS[..], &["-o", "csv"]].concat());
    let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    let place = |name: &str| head.iter().position(|c| *c == name).unwrap_or_else(|| panic!("{name}: {csv}"));
    let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(cells).collect();
    assert_eq!(rows.iter().map(|r| r[place("test")]).collect::<Vec<_>>(), NAMES);
    assert!(rows.iter().all(|r| r.len() == head.len() && r[place("type_k")] == "f16" && !r[place("simd")].is_empty()));

    let sql = bench(&[&DEPTHS[..], &["-o", "sql"]].concat());
    assert!(sql.starts_with("CREATE TABLE IF NOT EXISTS llama_bench (\n"), "{sql}");
    let inserts: Vec<&str> = sql.lines().filter(|l| l.starts_with("INSERT INTO llama_bench (")).collect();
    assert!(inserts.len() == NAMES.len() && inserts.iter().all(|l| l.ends_with(");")), "{sql}");
    assert!(NAMES.iter().zip(inserts).all(|(name, insert)| insert.contains(&format!("'{name}'"))));
}

#[test]
fn json_has_each_repetition_and_the_kernels() {
    let rows: Json = serde_json::from_str(&bench(&["--json", "-pg", "8,4", "--kernels"])).unwrap();
    let names: Vec<&str> = rows.as_array().unwrap().iter().map(|r| r["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["pp8", "tg2", "tg4", "pp8+tg4"]);
    for row in rows.as_array().unwrap() {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
        assert_eq!((row["samples_ns"].as_array().unwrap().len(), row["samples_ts"].as_array().unwrap().len()), (2, 2));
        let whole = ["avg_ns", "avg_ts", "model_size", "bytes_per_token", "bytes_per_second", "operations_per_token"];
        let parts = ["bandwidth_fraction", "arithmetic_fraction", "peak_fraction", "device_bytes_per_second"];
        for name in whole.into_iter().chain(parts) {
            assert!(number(name) > 0.0, "{name}: {row}");
        }
        // At the least it takes the longer of moving and multiplying, of each batch.
        let more = number("bandwidth_fraction").max(number("arithmetic_fraction"));
        assert!(number("peak_fraction") >= more * 0.999_999, "{row}");
        assert!(["memory", "arithmetic"].contains(&row["peak_of"].as_str().unwrap()), "{row}");
        assert!(row["kernels"].as_array().unwrap().iter().any(|k| k["kernel"].as_str().unwrap().contains("ffn_down")));
    }
    // A token runs a whole graph; in a prompt many share one.
    let ops = |i: usize| rows[i]["dispatches_per_token"].as_f64().unwrap();
    assert!(ops(1) > 10.0 && ops(0) < ops(1) && ops(1) == ops(2), "{} {}", ops(0), ops(1));

    let answer = |more: &[&str]| -> Json {
        let rows: Json = serde_json::from_str(&bench(&[&["--json"], more].concat())).unwrap();
        rows[1]["answer_bits"].clone()
    };
    assert_eq!((answer(&[]), answer(&["--answer-bits", "8"])), (16.into(), 8.into()));

    let two =
        ["bench", "--synthetic", "llama-tiny:q8_0", "-n", "0", "-p", "8", "-ub", "4,8", "--device", "cpu", "-r", "1"];
    let lines = stdout(&run(&[&two[..], &["-o", "jsonl"]].concat()));
    let lines: Vec<Json> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.iter().map(|r| r["n_ubatch"].as_u64().unwrap()).collect::<Vec<_>>(), [4, 8]);
}

#[test]
fn every_pair_of_the_caches_types_is_measured() {
    let args = ["bench", "--synthetic", "llama-tiny:q8_0", "--device", "cpu", "-p", "4", "-n", "2", "-r", "1"];
    let types = ["-ctk", "f16,q8_0", "-ctv", "f16,q4_0"];
    let bench = |more: &[&str]| stdout(&run(&[&args[..], &types, more].concat()));
    let rows: Json = serde_json::from_str(&bench(&["--json"])).unwrap();
    let pairs = |test: &str| -> Vec<[&str; 2]> {
        let rows = rows.as_array().unwrap().iter().filter(|r| r["test"] == test);
        rows.map(|r| ["type_k", "type_v"].map(|name| r[name].as_str().unwrap())).collect()
    };
    let all = [["f16", "f16"], ["f16", "q4_0"], ["q8_0", "f16"], ["q8_0", "q4_0"]];
    assert_eq!((pairs("pp4"), pairs("tg2")), (all.to_vec(), all.to_vec()));
    let table = bench(&[]);
    let head = table.lines().next().unwrap();
    assert!(head.contains("type_k") && head.contains("type_v"), "{table}");
}

#[test]
fn a_written_model_is_the_one_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["llama-tiny:q4_k_m", "moe-tiny:iq4_xs", "gpt-oss-tiny:mxfp4"] {
        let path = dir.path().join("model.gguf");
        stdout(&run_in(dir.path(), &["synth", name, "-o", path.to_str().unwrap()]));
        let synthetic: Synthetic = name.parse().unwrap();
        let made = Model::new(synthetic.model_file(&Serial, &mut |_| Ok(())).unwrap()).unwrap();
        let logits = |model: Model| {
            let options = Options { context: 64, threads: 1, ..Options::default() };
            let mut session = Session::new(Arc::new(model), None, options).unwrap();
            session.logits(&[1, 300, 400, 500, 7], &[0, 4]).unwrap()
        };
        let (written, made) = (logits(Model::open(&path).unwrap()), logits(made));
        assert!(written == made && written.iter().flatten().all(|v| v.is_finite()), "{name}");
        let tokens = run_in(dir.path(), &["tokenize", "hello world", "--json", "-m", path.to_str().unwrap()]);
        assert!(stdout(&tokens).contains('['), "{}", stdout(&tokens));
        let file = ["bench", "-m", path.to_str().unwrap(), "--device", "cpu", "-p", "4", "-n", "0", "-r", "1"];
        assert!(stdout(&run_in(dir.path(), &file)).contains("pp4"));
    }
}

#[test]
fn wrong_flags_are_told_in_one_line() {
    let fails = |args: &[&str], says: &str| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
    };
    let with = |more: &[&'static str]| [&TINY[..], more].concat();
    fails(&with(&["-fa", "0"]), "always fused");
    fails(&with(&["-o", "xml"]), "md, csv, json, jsonl or sql");
    fails(&with(&["-ctk", "q5_1"]), "f16, f32, q8_0 or q4_0");
    fails(&with(&["-d", "100000"]), "make -p, -n, -pg or -d smaller");
    fails(&with(&["-p", "8-4"]), "FIRST-LAST");
    fails(&["bench", "--synthetic", "llama-tiny:q4_0", "-p", "0", "-n", "0"], "nothing to measure");
    fails(&["synth", "llama-2b:q4_0", "-o", "x.gguf"], "llama-8b");
    fails(&["synth", "llama-1b:q9", "-o", "x.gguf"], "q4_k_m");
    fails(&["synth", "llama-1b:q4_0"], "--outfile");
}

#[test]
fn the_roofline_has_what_every_cpu_has() {
    let text = stdout(&run(&["bench", "--device-roofline", "--device", "cpu", "-t", "1", "--json"]));
    let limits: Json = serde_json::from_str(&text).unwrap();
    for name in ["read_bytes_per_second", "copy_bytes_per_second", "f32_ops_per_second"] {
        assert!(limits[0][name].as_f64().unwrap() > 0.0, "{name}: {limits}");
    }
    assert_eq!((&limits[0]["device"], &limits[0]["threads"]), (&"cpu".into(), &1.into()));
}

/// What a llama-bench prints that is asked by `benches/compare.py`: prompts at 100 tokens per second, answers at 10, a tenth less
/// with `--repack 0` for prompts, a tenth more for answers.
#[cfg(unix)]
const PEER: &str = r#"#!/usr/bin/env python3
import json, sys
if sys.argv[1:] == ["--version"]:
    sys.exit("version: 0.0.1 (stub)")
flag = lambda name: sys.argv[sys.argv.index(name) + 1]
assert (flag("-o"), flag("-r"), flag("-t"), flag("-ngl")) == ("json", "1", "1", "0")
plain = "--repack" not in sys.argv
depth = int(flag("-d"))
rows = [(int(n), 0, 100 if plain else 90) for n in flag("-p").split(",")] + [(0, int(n), 10 if plain else 11) for n in flag("-n").split(",")]
print(json.dumps([{"n_prompt": p, "n_gen": n, "n_depth": depth, "avg_ts": speed} for p, n, speed in rows if p + n]))
"#;

#[cfg(unix)]
#[test]
fn the_comparison_takes_the_better_setting_of_each_test() {
    use std::os::unix::fs::PermissionsExt;
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("the_comparison_takes_the_better_setting_of_each_test: SKIPPED, no python3 on the path");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (peer, model, out) = (path("llama-bench"), path("tiny.gguf"), path("result"));
    std::fs::write(&peer, PEER).unwrap();
    std::fs::set_permissions(&peer, std::fs::Permissions::from_mode(0o755)).unwrap();
    stdout(&run(&["synth", "llama-tiny:q4_0", "-o", &model]));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare.py");
    let compare = |more: &[&str]| {
        let mut command = Command::new("python3");
        command.arg(&script).args(["--ours", env!("CARGO_BIN_EXE_wgpu-llm"), "--llama-bench", &peer, "-m", &model]);
        command.args(["-t", "1", "--pause", "0"]).args(more).output().expect("runs")
    };
    let flags = ["-p", "8,16", "-n", "4", "-d", "0,16", "--tests", "tg2@d32", "--rounds", "2", "--json", "--out", &out];
    let report: Json = serde_json::from_str(&stdout(&compare(&flags))).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|r| r["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["pp8", "pp16", "tg4", "pp8 @ d16", "pp16 @ d16", "tg4 @ d16", "tg2 @ d32"]);
    for row in rows {
        let (peer, speed) = if row["test"].as_str().unwrap().starts_with("pp") {
            ("llama.cpp", 100.0)
        } else {
            ("llama.cpp --repack 0", 11.0)
        };
        assert_eq!((row["peer_name"].as_str(), row["peer"].as_f64()), (Some(peer), Some(speed)), "{row}");
        let samples = row["samples"].as_object().unwrap();
        assert!(samples.len() == 3 && samples.values().all(|s| s.as_array().unwrap().len() == 2), "{row}");
        let (ours, ratio) = (row["ours"].as_f64().unwrap(), row["ratio"].as_f64().unwrap());
        assert!(ours > 0.0 && (ratio - ours / speed).abs() < 1e-9 && row["peak_fraction"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(report["peer_version"], "0.0.1 (stub)");
    let text = std::fs::read_to_string(format!("{out}.md")).unwrap();
    assert!(text.contains("| tiny.gguf | tg2 @ d32 |") && text.contains("--repack 0"), "{text}");
    // No path of the machine at hand is told.
    assert!(!text.contains(dir.path().to_str().unwrap()), "{text}");
    for (more, says) in
        [(["-p", "many"], "separated by commas"), (["--tests", "xx4"], "tg64@d4096"), (["-m", "no.gguf"], "no file")]
    {
        let output = compare(&more);
        assert!(output.status.code() == Some(2) && stderr(&output).contains(says), "{more:?}: {}", stderr(&output));
    }
}

#[test]
fn many_at_once_are_measured_in_batched_benchs_columns() {
    let args = ["bench", "--synthetic", "llama-tiny:q4_0", "--device", "cpu", "--parallel", "1,3", "-npp", "8", "-ntg"];
    let of = |more: &[&str]| stdout(&run(&[&args[..], &["4", "-r", "1", "--no-warmup"], more].concat()));
    let lines = of(&["-o", "jsonl"]);
    let rows: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let counts = |row: &Json| ["pp", "tg", "pl", "n_kv"].map(|key| row[key].as_u64().expect(key));
    assert_eq!(rows.iter().map(counts).collect::<Vec<_>>(), [[8, 4, 1, 12], [8, 4, 3, 36]]);
    for key in ["t_pp", "speed_pp", "t_tg", "speed_tg", "t", "speed"] {
        assert!(rows.iter().all(|row| row[key].as_f64().is_some_and(|n| n > 0.0)), "{key}: {lines}");
    }
    let all: Json = serde_json::from_str(&of(&["-o", "json"])).expect("one array");
    assert_eq!(all.as_array().map(Vec::len), Some(2));
    assert_eq!(of(&[]).lines().count(), 4, "a table of two lines");
    assert!(stderr(&run(&[&args[..], &["4", "-o", "csv"]].concat())).contains("md, json or jsonl"));
    assert!(stderr(&run(&[&args[..], &["0"]].concat())).contains("at least 1"));
}
