//! Every architecture with a row on the GPU, and split between CPU and GPU, against the reference's logits: the prompt in one
//! go, in two chunks and token by token.

#[path = "common/device.rs"]
mod device;
#[path = "common/fixture.rs"]
mod fixture;

use fixture::Fixture;
use std::sync::Arc;
use wgpu_llm::base::DType;
use wgpu_llm::gpu::Device;
use wgpu_llm::model::Model;
use wgpu_llm::ops::nmse;
use wgpu_llm::run::{Options, Session};

/// Largest normalised mean squared error of the logits.
const NMSE: f64 = 1e-4;

/// Logits at the reference's positions and the best token at every position.
fn run(session: &mut Session, f: &Fixture, chunks: &[usize]) -> (Vec<f32>, Vec<usize>) {
    session.truncate(0);
    let mut all: Vec<Vec<f32>> = Vec::new();
    for chunk in chunks {
        let rows: Vec<usize> = (0..*chunk).collect();
        let tokens = &f.tokens[all.len()..all.len() + chunk];
        all.extend(session.logits(tokens, &rows).unwrap_or_else(|e| panic!("{}: {e}", f.name)));
    }
    let best = |row: &Vec<f32>| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("a vocabulary");
    (f.positions.iter().flat_map(|p| all[*p].clone()).collect(), all.iter().map(best).collect())
}

/// What differs from the reference, in words.
fn check(name: &str, device: &Device, gpu_layers: Option<usize>) -> Vec<String> {
    let f = Fixture::load(name);
    let model = Arc::new(
        Model::new(fixture::gguf(&fixture::json(name)).expect("valid")).unwrap_or_else(|e| panic!("{name}: {e}")),
    );
    let options = Options { context: 64, kv: DType::F32, threads: 2, gpu_layers, ..Options::default() };
    let mut session = Session::new(model, Some(device.clone()), options).unwrap_or_else(|e| panic!("{name}: {e}"));
    let n = f.tokens.len();
    let want: Vec<f64> = f.logits.iter().flatten().map(|v| *v as f64).collect();
    let feeds = [("in one go", vec![n]), ("in two chunks", vec![n - 17, 17]), ("token by token", vec![1; n])];
    let mut wrong = Vec::new();
    for (feed, chunks) in &feeds {
        let (got, best) = run(&mut session, &f, chunks);
        let error = nmse(&got, &want);
        if error.is_nan() || error > NMSE {
            wrong.push(format!("{name} {feed}, {gpu_layers:?} layers: nmse {error:.2e}"));
        }
        let known = |(i, p): (usize, &usize)| f.lead(i) > fixture::CLOSE && best[*p] != f.argmax[*p];
        let differ: Vec<usize> = f.positions.iter().enumerate().filter(|x| known(*x)).map(|(_, p)| *p).collect();
        if !differ.is_empty() {
            wrong.push(format!("{name} {feed}, {gpu_layers:?} layers: other tokens at {differ:?}"));
        }
    }
    wrong
}

/// Runs all fixtures on two threads: making pipelines takes most of the time.
fn all(test: &str, gpu_layers: Option<usize>) {
    let Some(device) = device::open(test) else { return };
    let names = fixture::names();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    wrong
                        .lock()
                        .expect("no thread panics while it holds the list")
                        .extend(check(name, &device, gpu_layers));
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("all threads are done");
    println!("{test}: {} tiny models on {}, {} differences", names.len(), device.info().name, wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn architectures_on_the_gpu() {
    all("architectures_on_the_gpu", None);
}

#[test]
fn architectures_split_between_cpu_and_gpu() {
    all("architectures_split_between_cpu_and_gpu", Some(2));
}
