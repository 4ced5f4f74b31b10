//! `eval --sequences` against reference logits (tests/data/multiseq.json): several sequences over a common prefix, cut, copied and gone on with.
#![cfg(feature = "cli")]

#[path = "common/cli.rs"]
mod cli;
#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/place.rs"]
mod place;

use place::Place;
use serde_json::{Value as Json, json};
use wgpu_llm::low_level::arch::supported;
use wgpu_llm::low_level::ops::nmse;

/// Models of the reference whose architecture has no row yet: when one gets its row, it leaves this list.
const WITHOUT_ROW: &[&str] = &[
    "mamba2-slow",
    "rwkv7",
    "rwkv6-slow",
    "lfm2-dense",
    "lfm2-6",
    "jamba-5",
    "deepseek2-full",
    "gemma4-e2b",
    "qwen35-heads",
    "qwen3next-heads",
    "kimi-linear-heads4",
    "falcon-h1-dense",
];

/// The largest difference, as normalised mean squared error: the reference has tables of 16 bits for some functions.
const MOST: f64 = 1e-6;

fn models() -> Vec<Json> {
    serde_json::from_str(include_str!("data/multiseq.json")).expect("valid JSON")
}

fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn floats(json: &Json) -> Vec<f32> {
    numbers(json).into_iter().map(|v| v as f32).collect()
}

/// The reference's steps as the command takes them, each with the logits that are to come.
fn steps(model: &Json) -> Vec<(Json, &Json)> {
    let mut all = Vec::new();
    if let Some(cut) = model.get("remove").filter(|cut| !cut.is_null()) {
        let remove = json!({"seq": cut["seq"], "n": cut["n"]});
        all.push((json!({"remove": remove, "continuation": cut["continuation"]}), &cut["logits"]));
    }
    for more in model.get("after").and_then(Json::as_array).into_iter().flatten() {
        let remove = json!({"seq": more["seq"], "n": 0});
        all.push((json!({"remove": remove, "continuation": [more["token"]]}), &more["logits"]));
    }
    if let Some(copy) = model.get("recopy").filter(|copy| !copy.is_null()) {
        let from_to = json!({"from": copy["from"], "to": copy["to"]});
        all.push((json!({"copy": from_to, "continuation": copy["continuation"]}), &copy["logits"]));
    }
    all
}

/// Evaluates a model of the reference with `flags` and compares the last logits of everything. Returns whether it has a row.
fn check(model: &Json, flags: &[&str]) -> bool {
    let name = model["model"].as_str().expect("a name");
    let has_row = supported().any(|arch| model["arch"] == arch);
    assert_eq!(has_row, !WITHOUT_ROW.contains(&name), "{name}: the list is not up to date");
    if !has_row {
        return false;
    }
    let place = Place::new(&fixture::bytes(model).expect("well formed"));
    let steps = steps(model);
    let then: Vec<&Json> = steps.iter().map(|(step, _)| step).collect();
    let job = json!({"prefix": model["prefix"], "continuations": model["continuations"], "then": then});
    let file = place.write("job.json", job.to_string());
    let output = place.run(&[&["eval", "--json", "--sequences", file.to_str().expect("UTF-8")], flags].concat());
    assert!(output.status.success(), "{name}: {}", cli::stderr(&output));
    let results: Json = serde_json::from_str(&cli::stdout(&output)).expect("JSON");
    let wanted = model["logits"].as_array().expect("an array").iter().chain(steps.iter().map(|(_, logits)| *logits));
    let got = ["sequences", "then"].iter().flat_map(|part| results[part].as_array().expect("an array"));
    for (i, (wanted, got)) in wanted.zip(got).enumerate() {
        let apart = nmse(&floats(&got["logits"][0]), &numbers(wanted));
        assert!(apart < MOST, "{name} {flags:?}: sequence or step {i}: nmse {apart:.2e}");
        let best = numbers(wanted).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i);
        assert_eq!(got["argmax"][0].as_u64().map(|n| n as usize), best, "{name} {flags:?}: {i}");
    }
    true
}

#[test]
fn sequences_give_the_references_logits_on_the_cpu() {
    let flags = ["--device", "cpu", "-ctk", "f32", "-ctv", "f32", "-t", "1"];
    let with_row = models().iter().filter(|model| check(model, &flags)).count();
    assert_eq!(with_row, models().len() - WITHOUT_ROW.len());
}

#[test]
fn sequences_give_them_on_a_gpu_and_split() {
    let Some(_) = device::open("sequences_give_them_on_a_gpu_and_split") else { return };
    for model in
        models().iter().filter(|model| ["llama-dense", "gemma3-window"].contains(&model["model"].as_str().unwrap()))
    {
        for layers in ["all", "2"] {
            assert!(check(model, &["--device", "gpu", "-ngl", layers, "-ctk", "f32", "-ctv", "f32"]));
        }
    }
}

#[test]
fn all_positions_are_those_of_the_whole_sequence() {
    let models = models();
    let place = Place::new(&fixture::bytes(&models[0]).expect("well formed"));
    let job = json!({"prefix": [1, 2, 3], "continuations": [[4, 5], [6]], "positions": "all", "then": [
        {"copy": {"from": 0, "to": 1}, "continuation": [7, 8]},
        {"remove": {"seq": 1, "n": 7}, "continuation": [1]},
    ]});
    let file = place.write("job.json", job.to_string());
    let file = file.to_str().expect("UTF-8");
    let output = place.run(&["eval", "--device", "cpu", "--json", "--sequences", file]);
    let results: Json = serde_json::from_str(&cli::stdout(&output)).expect("JSON");
    let places = |part: &str| -> Vec<Json> {
        results[part].as_array().expect("an array").iter().map(|one| one["positions"].clone()).collect()
    };
    assert_eq!(
        (places("sequences"), places("then")),
        (vec![json!([3, 4]), json!([3])], vec![json!([5, 6]), json!([0])])
    );
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let models = models();
    let place = Place::new(&fixture::bytes(&models[0]).expect("well formed"));
    for (job, text) in [
        (r#"{"prefix":[1]}"#, "missing field `continuations`"),
        (r#"{"continuations":[[1]],"position":"all"}"#, "unknown field `position`"),
        (r#"{"continuations":[[]]}"#, "an empty continuation"),
        (r#"{"continuations":[[1]],"then":[{"copy":{"from":0,"to":1},"continuation":[1]}]}"#, "there is no sequence 1"),
        (r#"{"continuations":[[1]],"then":[{"continuation":[1]}]}"#, "either a \"remove\" or a \"copy\""),
        (r#"{"continuations":[[1]],"then":[{"remove":{"seq":0,"n":2},"continuation":[1]}]}"#, "removes 2 of 1 tokens"),
        (r#"{"continuations":[[999]]}"#, "token 999 is outside the vocabulary"),
    ] {
        let file = place.write("job.json", job);
        let output = place.run(&["eval", "--device", "cpu", "--sequences", file.to_str().expect("UTF-8")]);
        assert!(!output.status.success() && cli::stderr(&output).contains(text), "{job}: {}", cli::stderr(&output));
    }
}
