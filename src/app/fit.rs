//! `fit`: what of a model would go where, what it takes, and why; without loading it.

use super::args::{ContextArgs, DeviceArgs, ModelArgs};
use super::{load, split, term};
use crate::base::Result;
use crate::gpu;
use crate::graph::Place;
use crate::model::Model;
use crate::model::synth::Synthetic;
use crate::open::{self, rates};
use crate::ops::Threads;
use crate::plan::Options;
use crate::plan::fit::DevicePlan;
use crate::plan::predict::Piece;
use crate::run::Session;
use clap::Args;
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::Instant;

/// Arguments of `fit`.
#[derive(Debug, Args)]
pub struct FitArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Plan for a made-up model, SHAPE:FORMAT as in llama-1b:q4_0 (see `synth`); it is made only with --measure.
    #[arg(long, value_name = "SHAPE:FORMAT", env = "WGPU_LLM_SYNTHETIC")]
    synthetic: Option<Synthetic>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    /// Load the model too, generate so many tokens, and tell how far estimate and measurement lie apart.
    #[arg(long, value_name = "N", env = "WGPU_LLM_MEASURE", value_parser = clap::value_parser!(u32).range(1..=1024))]
    measure: Option<u32>,
    /// Print JSON.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
}

/// What a run took.
struct Measured {
    /// Seconds of a token.
    seconds: f64,
    /// Bytes that buffers held on the GPU, and what was held for the model in system memory.
    gpu: u64,
    cpu: u64,
}

/// Plans, and prints the plan.
pub fn run(args: &FitArgs) -> Result<()> {
    let model = model(args)?;
    let (asked, listener) = (args.device.options(), load::listener());
    let (device, why) = asked.open(&listener)?;
    let options = load::options(&args.device, &args.context, false)?;
    let budget = asked.budget(device.as_ref());
    let context = args.context.ctx_size.map(|n| n as usize);
    let contexts = open::contexts(context, &options, &model, device.as_ref(), &budget, &listener)?;
    let speeds = rates::known(device.as_ref(), options.threads, &listener)?;
    asked.warn_of_idle_overrides(&model, &listener)?;
    let fit = asked.plan(&model, device.as_ref(), budget, &options, contexts, &listener)?;
    let options = Options { batch: options.batch.min(fit.context), ..options };
    let fit = fit.with_speeds(&model, device.as_ref(), &options, &speeds)?;
    let name = device.as_ref().map(|d| d.info().name.clone());
    let measured = args.measure.map(|n| measure(model.clone(), device, &options, &fit, n as usize)).transpose()?;
    if args.json {
        return term::print(format_args!("{:#}\n", to_json(&fit, &budget, name.as_deref(), measured.as_ref())));
    }
    let place = name.map_or("the CPU".to_owned(), |name| format!("{name} ({why})"));
    let mut text = format!("context {}; on {place}: {}\n", fit.context, split::describe(&fit));
    text += &table(&fit);
    if let (Some(m), Some(predicted)) = (&measured, fit.prediction.seconds) {
        text += &format!("{}\n", split::compare(predicted, m.seconds));
        let p = &fit.prediction;
        let apart = |got: u64, want: u64| format!("{} of {} predicted", split::size(got), split::size(want));
        text += &format!("memory: GPU {}, CPU {}\n", apart(m.gpu, p.gpu_bytes()), apart(m.cpu, p.cpu_bytes()));
    }
    term::print(text)
}

fn model(args: &FitArgs) -> Result<Arc<Model>> {
    match &args.synthetic {
        Some(synthetic) if args.measure.is_none() => Model::new(synthetic.outline()?).map(Arc::new),
        Some(synthetic) => {
            let pool = crate::cpu::ThreadPool::per_core();
            Model::new(synthetic.model_file(&pool as &dyn Threads, &mut |_| term::check_interrupt())?).map(Arc::new)
        }
        None => load::model(&args.model).map(|(_, model)| model),
    }
}

/// Loads the model as planned and generates `n` tokens from nothing.
fn measure(
    model: Arc<Model>,
    device: Option<gpu::Device>,
    options: &Options,
    fit: &DevicePlan,
    n: usize,
) -> Result<Measured> {
    let device = device.filter(|_| fit.device_map.uses(Place::Gpu));
    let options = Options { context: fit.context, device_map: Some(fit.device_map.clone()), ..options.clone() };
    let mut session = open::start(model, device, options, &load::listener())?;
    // A whole batch, so that all is made that the plan has room for; then tokens as deep as the plan counts with.
    let most = fit.context.saturating_sub(n).max(1);
    session.measure_prompt(session.batch().min(most))?;
    session.measure_answer(1)?;
    session.truncate((crate::plan::predict::DEPTH / 2).min(most).min(session.cached_tokens().len()));
    let n = n.min(fit.context - session.cached_tokens().len());
    let start = Instant::now();
    session.measure_answer(n)?;
    let seconds = start.elapsed().as_secs_f64() / n as f64;
    Ok(Measured { seconds, gpu: gpu_bytes(&mut session), cpu: cpu_bytes(&mut session) })
}

fn gpu_bytes(session: &mut Session) -> u64 {
    session.engine().device().map_or(0, |d| d.counters().bytes)
}

fn cpu_bytes(session: &mut Session) -> u64 {
    session.engine().memory().iter().find(|m| m.device == 0).map_or(0, |m| m.bytes())
}

fn place(piece: &Piece) -> &'static str {
    match piece.place {
        Place::Cpu => "CPU",
        Place::Gpu => "GPU",
    }
}

fn table(fit: &DevicePlan) -> String {
    let head = ["DEVICE", "WHAT", "WEIGHTS", "CACHE", "OTHER", "CROSSING", "MS/TOKEN"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let ms = |seconds: Option<f64>| seconds.map_or(String::new(), |s| format!("{:.3}", s * 1e3));
    for p in &fit.prediction.pieces {
        let size = split::size;
        let other = String::new();
        rows.push(vec![
            place(p).into(),
            p.what.clone(),
            size(p.weights),
            size(p.cache),
            other,
            size(p.crossing),
            ms(p.seconds),
        ]);
    }
    for (m, name) in fit.prediction.memory.iter().zip(["CPU", "GPU"]).filter(|(m, _)| m.bytes() > 0) {
        let on = |p: &&Piece| place(p) == name;
        let seconds: Option<f64> = fit.prediction.pieces.iter().filter(on).map(|p| p.seconds).sum();
        let all = format!("all: {}", split::size(m.bytes()));
        let sizes = [m.weights, m.cache, m.other].map(split::size);
        rows.push([name.to_owned(), all].into_iter().chain(sizes).chain([String::new(), ms(seconds)]).collect());
    }
    term::table(&rows)
}

fn to_json(
    fit: &DevicePlan,
    budget: &crate::plan::budget::Budget,
    name: Option<&str>,
    measured: Option<&Measured>,
) -> Json {
    let p = &fit.prediction;
    let pieces = p.pieces.iter().map(|p| {
        json!({
            "device": place(p), "what": p.what, "steps": p.nodes, "weight_bytes": p.weights, "cache_bytes": p.cache,
            "crossing_bytes": p.crossing, "seconds": p.seconds,
        })
    });
    let memory = |i: usize| {
        let m = &p.memory[i];
        json!({"weights": m.weights, "cache": m.cache, "other": m.other, "bytes": m.bytes()})
    };
    let measured = measured.map(|m| {
        let ratio = p.seconds.map(|s| m.seconds / s);
        json!({"seconds_per_token": m.seconds, "of_estimate": ratio, "gpu_bytes": m.gpu, "cpu_bytes": m.cpu})
    });
    json!({
        "device": name, "context": fit.context, "gpu_need": p.gpu_need(), "layers": fit.device_map.blocks.len(),
        "gpu_layers": fit.device_map.gpu_layers(), "why": fit.why, "whole_model_gpu_bytes": fit.whole,
        "budget": {"gpu": budget.gpu, "gpu_total": budget.gpu_total, "margin": budget.margin, "cpu": budget.cpu},
        "memory": {"cpu": memory(0), "gpu": memory(1)},
        "segments": pieces.collect::<Json>(), "seconds_per_token": p.seconds, "measured": measured,
    })
}
