//! What is measured of kernels is kept and used, and changes no result. No test depends on how long anything takes.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use std::sync::Arc;
use wgpu_llm::base::DType;
use wgpu_llm::gpu::{Device, Tuning};
use wgpu_llm::model::Model;
use wgpu_llm::ops::nmse;
use wgpu_llm::run::{Options, Session};

fn logits(device: &Device) -> Vec<f32> {
    let model = Model::new(fixture::gguf(&fixture::json("qwen3moe-moe")).expect("a model")).expect("a model");
    let options = Options { context: 64, batch: 64, kv: DType::F32, threads: 1, ..Options::default() };
    let mut session = Session::new(Arc::new(model), Some(device.clone()), options).expect("a session");
    let tokens: Vec<u32> = (0..20).collect();
    let mut all = session.logits(&tokens, &[19]).expect("logits").concat();
    all.extend(session.logits(&[3], &[0]).expect("logits").concat());
    all
}

#[test]
fn measured_kernels_are_kept_and_give_the_same() {
    let Some(device) = device::open("measured_kernels_are_kept_and_give_the_same") else { return };
    let plain = logits(&device);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/tuning.json");
    device.tune(Tuning::open(&device, &path));
    let tuned = logits(&device);
    let want: Vec<f64> = plain.iter().map(|v| f64::from(*v)).collect();
    assert!(nmse(&tuned, &want) < 1e-6, "{:e}", nmse(&tuned, &want));
    if !device.has_timestamps() {
        return;
    }
    let text = std::fs::read_to_string(&path).expect("a file");
    let kept: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    let (of, choices) = kept.as_object().unwrap().iter().next().expect("a device");
    assert!(of.starts_with(&device.info().name), "{of}");
    println!("{of}:\n{choices:#}");
    assert!(choices.as_object().unwrap().len() >= 6, "{choices:#}");
    // Read again, nothing is measured again: the same choices, and no more pipelines than they need.
    let again = device::open("again").expect("there was one a moment ago");
    again.tune(Tuning::open(&again, &path));
    assert!(nmse(&logits(&again), &want) < 1e-6);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert!(again.counters().pipelines < device.counters().pipelines);
}

#[test]
fn a_file_that_cannot_be_read_is_as_none() {
    let Some(device) = device::open("a_file_that_cannot_be_read_is_as_none") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tuning.json");
    std::fs::write(&path, "{\"half").expect("written");
    let mut tuning = Tuning::open(&device, &path);
    assert_eq!(tuning.choice("q4_0 64x64 1 plain store"), None);
    tuning.set("q4_0 64x64 1 plain store", "vec_shared");
    tuning.save().expect("saved");
    assert_eq!(Tuning::open(&device, &path).choice("q4_0 64x64 1 plain store"), Some("vec_shared"));
}
