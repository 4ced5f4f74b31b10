//! What is measured of kernels is kept and used, and changes no result. No test depends on how long anything takes.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use std::sync::Arc;
use wgpu_llm::low_level::base::DType;
use wgpu_llm::low_level::gguf::Gguf;
use wgpu_llm::low_level::gpu::{Device, Tuning};
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::model::synth::Synthetic;
use wgpu_llm::low_level::ops::{Serial, nmse};
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::quant::{EIGHT_BITS, Precision};
use wgpu_llm::low_level::run::Session;

/// A model with experts, in f32.
fn experts() -> Gguf {
    fixture::gguf(&fixture::json("qwen3moe-moe")).expect("a model")
}

/// A model whose products may be computed in f16.
fn quantized() -> Gguf {
    let model: Synthetic = "llama-tiny:q4_0".parse().expect("a shape");
    model.model_file(&Serial, &mut |_| Ok(())).expect("a model")
}

fn logits(device: &Device, gguf: Gguf) -> Vec<f32> {
    logits_at(device, gguf, None)
}

fn logits_at(device: &Device, gguf: Gguf, precision: Option<Precision>) -> Vec<f32> {
    let model = Model::new(gguf).expect("a model");
    let kv = DType::F32.into();
    let options = Options { context: 64, batch: 64, kv, threads: 1, precision, ..Options::default() };
    let mut session = Session::new(Arc::new(model), Some(device.clone()), options).expect("a session");
    let tokens: Vec<u32> = (0..20).collect();
    let mut all = session.logits(&tokens, &[19]).expect("logits").concat();
    all.extend(session.logits(&[3], &[0]).expect("logits").concat());
    all
}

#[test]
fn measured_kernels_are_kept_and_give_the_same() {
    let Some(device) = device::open("measured_kernels_are_kept_and_give_the_same") else { return };
    let models = [(experts as fn() -> Gguf, 1e-6), (quantized, 1e-5)];
    let plain = models.map(|(model, _)| exact(&logits(&device, model())));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/tuning.json");
    device.tune(Tuning::open(&device, &path));
    let same = |device: &Device| {
        for ((model, most), want) in models.iter().zip(&plain) {
            let error = nmse(&logits(device, model()), want);
            assert!(error < *most, "{error:e}");
        }
    };
    same(&device);
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
    same(&again);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert!(again.counters().pipelines < device.counters().pipelines);
}

#[test]
fn products_in_bytes_are_measured_where_they_are_allowed() {
    let Some(device) = device::open("products_in_bytes_are_measured_where_they_are_allowed") else { return };
    if !device.has_timestamps() || !device.caps().dot4 {
        return println!("skipped: nothing to measure");
    }
    let want = exact(&logits(&device, quantized()));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tuning.json");
    device.tune(Tuning::open(&device, &path));
    let error = nmse(&logits_at(&device, quantized(), Some(Precision::Eight)), &want);
    assert!(error < 20.0 * EIGHT_BITS, "{error:e}");
    let text = std::fs::read_to_string(&path).expect("a file");
    let kept: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    let (_, choices) = kept.as_object().unwrap().iter().next().expect("a device");
    // A trial that was not given up, and classes of their own.
    assert_eq!(choices["trial of tile_int8"], "ran", "{choices:#}");
    let classes = choices.as_object().unwrap().keys().filter(|class| class.ends_with(" 8 bits")).count();
    assert!(classes >= 3, "{choices:#}");
    // The same file, where none are allowed.
    let again = device::open("again").expect("there was one a moment ago");
    again.tune(Tuning::open(&again, &path));
    let error = nmse(&logits(&again, quantized()), &want);
    assert!(error < 1e-5, "{error:e}");
}

fn exact(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

const CLASS: &str = "q4_0 64x64 1 plain store";

#[test]
fn a_file_that_cannot_be_read_is_as_none() {
    let Some(device) = device::open("a_file_that_cannot_be_read_is_as_none") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tuning.json");
    for text in [&b"{\"half"[..], b"", b"[1, 2]", b"{\"a\": {\"b\": 3}}", b"\xff\xfe\0"] {
        std::fs::write(&path, text).expect("written");
        let mut tuning = Tuning::open(&device, &path);
        assert_eq!(tuning.choice(CLASS), None);
        tuning.set(CLASS, "vec_shared");
        tuning.save().expect("saved");
        assert_eq!(Tuning::open(&device, &path).choice(CLASS), Some("vec_shared"));
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_no_obstacle() {
    let Some(device) = device::open("a_folder_that_cannot_be_written_is_an_error_and_no_obstacle") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").expect("written");
    let mut tuning = Tuning::open(&device, &file.join("tuning.json"));
    assert!(tuning.save().unwrap_err().to_string().contains("can't keep what was measured"));
    let want = exact(&logits(&device, experts()));
    device.tune(tuning);
    assert!(nmse(&logits(&device, experts()), &want) < 1e-6);
}

#[test]
fn other_drivers_choices_are_left_alone() {
    let Some(device) = device::open("other_drivers_choices_are_left_alone") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tuning.json");
    let mut tuning = Tuning::open(&device, &path);
    tuning.set(CLASS, "vec_shared");
    tuning.save().expect("saved");
    // The same device with the driver of another day.
    let text = std::fs::read_to_string(&path).expect("a file");
    let driver = &device.info().driver;
    assert!(!driver.is_empty() && text.contains(driver.as_str()), "{text}");
    std::fs::write(&path, text.replace(driver.as_str(), "driver 1.0")).expect("written");
    let mut tuning = Tuning::open(&device, &path);
    assert_eq!(tuning.choice(CLASS), None);
    tuning.set(CLASS, "vec_subgroups");
    tuning.save().expect("saved");
    let text = std::fs::read_to_string(&path).expect("a file");
    assert!(text.contains("driver 1.0") && text.contains("vec_shared") && text.contains("vec_subgroups"), "{text}");
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let Some(device) = device::open("writers_at_the_same_time_lose_nothing") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tuning.json");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let (device, path) = (&device, &path);
            scope.spawn(move || {
                let mut tuning = Tuning::open(device, path);
                for i in 0..10 {
                    tuning.set(&format!("class {writer} {i}"), "tile");
                    tuning.save().expect("saved");
                }
            });
        }
    });
    let tuning = Tuning::open(&device, &path);
    for class in (0..80).map(|i| format!("class {} {}", i / 10, i % 10)) {
        assert_eq!(tuning.choice(&class), Some("tile"), "{class}");
    }
    let files: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").map(|e| e.unwrap().file_name()).collect();
    assert_eq!(files, ["tuning.json"], "no temporary file stays");
}

#[test]
fn a_kernel_that_took_the_device_with_it_is_not_tried_again() {
    let Some(device) = device::open("a_kernel_that_took_the_device_with_it_is_not_tried_again") else { return };
    if !device.has_timestamps() || !device.caps().f16 {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tuning.json");
    let mut tuning = Tuning::open(&device, &path);
    // As a run leaves it that ended there.
    tuning.set("trial of norm_tile_f16", "begun");
    tuning.save().expect("saved");
    device.tune(tuning);
    logits(&device, quantized());
    let tuning = Tuning::open(&device, &path);
    assert_eq!(tuning.choice("trial of norm_tile_f16"), Some("begun"));
    assert_eq!(tuning.choice("trial of tile_f16"), Some("ran"), "others are");
    assert!(!std::fs::read_to_string(&path).expect("a file").contains(": \"norm_tile_f16\""));
}

/// The only file in a folder, if there is one.
fn only_file(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let mut files = std::fs::read_dir(folder).ok()?.map(|f| f.expect("it can be read").path());
    let file = files.next();
    assert!(files.next().is_none(), "more than one file");
    file
}

#[test]
fn compiled_pipelines_are_kept_for_the_next_start() {
    let Some(first) = device::open("compiled_pipelines_are_kept_for_the_next_start") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("deep/pipelines");
    first.keep_pipelines(&folder);
    let plain = logits(&first, experts());
    first.save_pipelines().expect("saved");
    let Some(path) = only_file(&folder) else {
        // Only Vulkan's drivers hand them out.
        assert_ne!(first.info().backend, "vulkan");
        return;
    };
    let kept = std::fs::read(&path).expect("a file");
    let open = || {
        let device = device::open("again").expect("there was one a moment ago");
        device.keep_pipelines(&folder);
        device
    };
    // Taken from the file, they compute the same.
    let again = open();
    assert_eq!(logits(&again, experts()), plain);
    again.save_pipelines().expect("saved");
    let damaged: [&[u8]; 4] = [b"", &kept[..kept.len() / 2], &[&kept[..kept.len() - 1], b"?"].concat(), b"\xff\xfe\0"];
    for text in damaged {
        std::fs::write(&path, text).expect("written");
        let device = open();
        assert_eq!(logits(&device, experts()), plain);
        device.save_pipelines().expect("saved");
        assert!(std::fs::read(&path).expect("a file").len() > 16, "it was not written anew");
    }
}
