//! `bench`: how fast a model reads prompts and writes answers, with llama-bench's flags and forms, and how much of what the
//! device could do that is.

pub mod args;
pub mod kernels;
pub mod numbers;
pub mod output;
mod parallel;
pub mod peak;
pub mod roofline;
pub mod row;

use super::hub::progress::Progress;
use super::{inspect, load, split, term};
use crate::base::{Error, Result};
use crate::cpu::ThreadPool;
use crate::gpu;
use crate::graph::Place;
use crate::model::Model;
use crate::model::synth::Synthetic;
use crate::open;
use crate::plan::Options;
use crate::plan::budget::Budget;
use crate::plan::fit::Layers;
use crate::profile::Profile;
use crate::run::Session;
use crate::simd::Level;
use args::{BenchArgs, Origin, Setting, Test};
use output::{Printer, Shown};
use peak::{Need, Peaks};
use row::{DeviceFacts, ModelFacts, Row};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Measures everything that the flags ask for.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.device_roofline {
        return roofline::run(args);
    }
    let (origins, settings, tests, loads) = (args.origins()?, args.settings()?, args.tests()?, args.loads()?);
    let mut loaded = if loads.is_empty() { None } else { Some(parallel::Printer::new(args.format())?) };
    let (device, why) = device(args)?;
    let name = device.as_ref().map_or("the CPU".to_owned(), |d| format!("{} ({})", d.info().name, d.info().backend));
    term::note(format_args!("measuring on {name}: {why}"));
    let differ = |f: &dyn Fn(&Setting) -> bool| settings.iter().any(f);
    let shown = Shown {
        layers: device.is_some(),
        batch: differ(&|s| s.batch != 2048),
        ubatch: differ(&|s| s.ubatch != 512),
        kv: differ(&|s| s.kv != crate::base::DType::F16.into()),
    };
    let mut printer = Printer::new(args.format(), shown);
    // Before any model takes memory.
    let budget = args.split.options(args.device.clone(), Layers::Auto).budget(device.as_ref());
    let peaks = Peaks::measure(&settings, device.as_ref())?;
    for origin in &origins {
        let start = Instant::now();
        let (model, file) = model(origin, args)?;
        let load = if matches!(origin, Origin::Named(_)) { start.elapsed() } else { Duration::ZERO };
        let facts = facts(&model, file, load);
        let mut bench = Bench { args, facts, model, device: &device, budget, peaks: &peaks };
        for setting in &settings {
            match &mut loaded {
                Some(printer) => bench.run_parallel(setting, &loads, printer)?,
                None => bench.run(setting, &tests, &mut printer)?,
            }
        }
    }
    loaded.map_or_else(|| printer.finish(), parallel::Printer::finish)
}

fn device(args: &BenchArgs) -> Result<(Option<gpu::Device>, String)> {
    // Only where no layer ever goes there is a GPU not looked for.
    let all_zero = args.n_gpu_layers.iter().all(|l| *l == Layers::Count(0));
    let layers = if all_zero { Layers::Count(0) } else { Layers::Auto };
    args.split.options(args.device.clone(), layers).open(&load::listener())
}

fn model(origin: &Origin, args: &BenchArgs) -> Result<(Arc<Model>, String)> {
    match origin {
        Origin::Named(name) => {
            let (path, model) = load::model_named(name, args.offline, &args.overrides)?;
            Ok((model, path.display().to_string()))
        }
        Origin::Synthetic(synthetic) => Ok((Arc::new(make(synthetic)?), synthetic.to_string())),
    }
}

fn make(synthetic: &Synthetic) -> Result<Model> {
    let mut bar = Progress::new("making", &synthetic.to_string(), synthetic.bytes()?, false);
    let mut step = |done| {
        bar.set(done);
        term::check_interrupt()
    };
    Model::new(synthetic.model_file(&ThreadPool::per_core(), &mut step)?)
}

fn facts(model: &Model, file: String, load: Duration) -> ModelFacts {
    let weights = model.gguf().tensors().iter().map(|t| t.shape.elements() as u64).sum();
    let preset = inspect::file_type(model.gguf().metadata()).unwrap_or_default();
    let kind = format!("{} {} {preset}", model.spec().architecture(), output::count(weights)).trim_end().to_owned();
    ModelFacts { file, kind, bytes: model.weight_bytes(), weights, load }
}

/// One model on one device.
struct Bench<'a> {
    args: &'a BenchArgs,
    model: Arc<Model>,
    facts: ModelFacts,
    device: &'a Option<gpu::Device>,
    budget: Budget,
    peaks: &'a Peaks,
}

impl Bench<'_> {
    /// All tests in one setting, in one session.
    fn run(&mut self, setting: &Setting, tests: &[Test], printer: &mut Printer) -> Result<()> {
        let start = Instant::now();
        let longest = setting.depth + tests.iter().map(Test::tokens).max().unwrap_or(0);
        let mut session = self.session(setting, longest as usize, 0)?;
        let mut facts = self.facts.clone();
        facts.load += start.elapsed();
        for test in tests {
            if self.args.progress {
                term::note(format_args!("{} {}", facts.file, test.name(setting.depth)));
            }
            std::thread::sleep(Duration::from_secs(self.args.delay.into()));
            let row = self.measure(&mut session, setting, test, &facts)?;
            printer.row(&row)?;
        }
        Ok(())
    }

    /// For so many sequences of `context` tokens.
    fn session(&self, setting: &Setting, context: usize, sequences: usize) -> Result<Session> {
        let most = self.model.spec().context_length;
        if context > most {
            let what = format!("a test of {context} tokens, with what is before it; the model has a context of {most}");
            return Err(Error::usage(what).help("make -p, -n, -pg or -d smaller"));
        }
        let device = self.device.clone().filter(|_| setting.layers != Layers::Count(0));
        let options = Options {
            context,
            sequences,
            // Prompts of many sequences are found again behind their answers' first tokens.
            swa_full: sequences > 0,
            batch: (setting.ubatch.min(setting.batch) as usize).min(context),
            kv: setting.kv,
            threads: setting.threads as usize,
            precision: self.args.activation_bits.precision(),
            answer_precision: self.args.answer_bits.precision(),
            ..Options::default()
        };
        open::check_memory(&self.model, &device, &options)?;
        let asked = self.args.split.options(self.args.device.clone(), setting.layers);
        let listener = load::listener();
        let fit = asked.plan(&self.model, device.as_ref(), self.budget, &options, vec![context], &listener)?;
        if fit.device_map.single().is_none() {
            term::note(split::describe(&fit));
        }
        let device = device.filter(|_| fit.device_map.uses(Place::Gpu));
        let options = Options { device_map: Some(fit.device_map), ..options };
        open::start(self.model.clone(), device, options, &listener)
    }

    fn measure(&self, session: &mut Session, setting: &Setting, test: &Test, model: &ModelFacts) -> Result<Row> {
        let depth = setting.depth as usize;
        if session.cached_tokens().len() < depth {
            session.truncate(0);
            session.measure_prompt(depth)?;
            session.anchor();
        }
        if !self.args.no_warmup {
            // A whole prompt, so that every program is ready, but only one token of an answer.
            work(session, depth, &Test { answer: test.answer.min(1), ..*test })?;
        }
        let (time, mut samples) = (SystemTime::now(), Vec::new());
        let before = dispatches(session);
        for _ in 0..self.args.repetitions {
            samples.push(work(session, depth, test)?);
            term::check_interrupt()?;
        }
        let tokens = f64::from(test.tokens());
        let on_gpu = before.zip(dispatches(session)).map(|(a, b)| (b - a) as f64 / tokens / samples.len() as f64);
        let need = Need::of(session, setting, test, self.peaks)?;
        let kernels = if self.args.kernels { kernels(session, depth, test)? } else { None };
        Ok(Row {
            model: model.clone(),
            device: device_facts(session),
            setting: setting.clone(),
            test: *test,
            time,
            samples,
            need,
            dispatches: on_gpu.unwrap_or(need.nodes),
            kernels,
        })
    }
}

/// Does the test's work after the first `depth` tokens; gives the time it took.
fn work(session: &mut Session, depth: usize, test: &Test) -> Result<Duration> {
    session.truncate(depth);
    // Layers with a window may have forgotten what they need there.
    let left = session.cached_tokens().len();
    if left < depth {
        session.measure_prompt(depth - left)?;
        session.anchor();
    }
    let start = Instant::now();
    if test.prompt > 0 {
        session.measure_prompt(test.prompt as usize)?;
    }
    if test.answer > 0 {
        session.measure_answer(test.answer as usize)?;
    }
    Ok(start.elapsed())
}

/// One more run, kernel by kernel.
fn kernels(session: &mut Session, depth: usize, test: &Test) -> Result<Option<Profile>> {
    session.engine().set_trace(true)?;
    let done = work(session, depth, test);
    let trace = session.engine().set_trace(false)?;
    done.map(|_| trace)
}

/// Dispatches so far, where there is a GPU.
fn dispatches(session: &mut Session) -> Option<u64> {
    session.engine().device().map(|d| d.counters().dispatches)
}

fn device_facts(session: &Session) -> DeviceFacts {
    let threads = session.threads() as u32;
    let gpu = session.device().map(|d| (d.info().backend.clone(), d.info().name.clone()));
    let (backend, gpu) = gpu.unwrap_or(("CPU".into(), String::new()));
    let (cpu, simd) = (open::system::cpu_name(), Level::best().name());
    let (activation_bits, answer_bits) = (session.activation_bits(), session.answer_bits());
    DeviceFacts { backend, cpu, gpu, threads, simd, activation_bits, answer_bits }
}
