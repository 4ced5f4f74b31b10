//! From flags to a session: which model, which device and why, how much context.

use super::args::{ContextArgs, DeviceArgs, ModelArgs};
use super::cache_file::CacheFile;
use super::hub::name::ModelName;
use super::hub::progress::Progress;
use super::overrides::OverrideArgs;
use super::window::{self, Window};
use super::{pull, split, term};
use crate::base::{Error, Result};
use crate::gpu::{self, InjectedFault};
use crate::model::Model;
use crate::open::{Listener, Loader, Notice, Opened, keep_pipelines, system};
use crate::ops::Caps;
use crate::plan::Options;
use crate::plan::fit::DevicePlan;
use crate::profile::{chrome, summary};
use crate::run::batcher::Batcher;
use crate::run::{Engine, Session, StepEngine};
use clap::Args;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Everything that says what runs where.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Which model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// On which device.
    #[command(flatten)]
    pub device: DeviceArgs,
    /// With how much context.
    #[command(flatten)]
    pub context: ContextArgs,
    /// What to show of the inside.
    #[command(flatten)]
    pub debug: DebugArgs,
}

/// Looking inside.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Looking inside")]
pub struct DebugArgs {
    /// Print the graph of a decoded token and of a prefill batch to stderr.
    #[arg(long, env = "WGPU_LLM_DUMP_GRAPH")]
    pub dump_graph: bool,
    /// Write the shaders that these graphs need into a folder.
    #[arg(long, value_name = "DIR", env = "WGPU_LLM_DUMP_SHADERS")]
    pub dump_shaders: Option<PathBuf>,
    /// Write when each op ran as a Chrome trace (chrome://tracing, Perfetto). Holds no text.
    #[arg(long, value_name = "FILE", env = "WGPU_LLM_TRACE")]
    pub trace: Option<PathBuf>,
    /// Write a summary of where the time went, for bug reports: devices, tokens, kernels. Holds no text.
    #[arg(long, value_name = "FILE", env = "WGPU_LLM_PROFILE_JSON")]
    pub profile_json: Option<PathBuf>,
    /// Make the GPU fail with a certain submission, the next one that takes its place after so many more: lost@40,oom@10. For tests.
    #[arg(long, value_name = "FAULTS", value_delimiter = ',', hide = true, env = "WGPU_LLM_INJECT_FAULTS")]
    pub inject_faults: Vec<InjectedFault>,
}

/// Loading that takes no longer is not shown.
const SHORT: Duration = Duration::from_millis(700);

/// Opens the model and sets up a session, saying on stderr what was chosen and why.
pub fn session(args: &EngineArgs) -> Result<Session> {
    open(args, 1, None)
}

/// The same, and the session begins with what is in the cache file, if there is one.
pub fn session_with(args: &EngineArgs, cache: Option<&mut CacheFile>) -> Result<Session> {
    let Some(cache) = cache else { return session(args) };
    let mut session = open(args, 1, Some(cache))?;
    cache.load(&mut session)?;
    Ok(session)
}

/// The same for up to so many sequences at a time, each with the context that flags ask for, in caches as large as memory has room for.
pub fn batcher(args: &EngineArgs, sequences: usize) -> Result<(Arc<Model>, Batcher<StepEngine>)> {
    let session = open(args, sequences, None)?;
    Ok((session.model().clone(), session.into_batcher()))
}

/// With a cache file, what it has must be of this model: that is known before weights are made ready.
fn open(args: &EngineArgs, sequences: usize, cache: Option<&CacheFile>) -> Result<Session> {
    let (path, model) = model(&args.model)?;
    let options = options(&args.device, &args.context, args.debug.trace.is_some())?;
    cache.map_or(Ok(()), |cache| cache.check(&model, options.kv))?;
    let loader = Loader {
        device: args.device.options(),
        context: args.context.ctx_size.map(|n| n as usize),
        options: Options { sequences, ..options },
        faults: args.debug.inject_faults.clone(),
        listener: listener(),
    };
    let Opened { mut session, fit, why } = loader.open(model)?;
    session.stop_when(term::interrupted);
    session.when_failed(|error| term::interject(format_args!("{error}; making things ready again")));
    session.when_recovered(|recovery| term::note(recovery.outcome()));
    describe(&mut session, &path, &why, &fit, (args.context.ctx_size.is_none(), sequences));
    if args.debug.profile_json.is_some() {
        trace(&mut session)?;
    }
    dump(&args.debug, &mut session)?;
    Ok(session)
}

/// The model that is meant, and where it lies. What it says that nothing is known of is told on stderr.
pub(super) fn model(args: &ModelArgs) -> Result<(PathBuf, Arc<Model>)> {
    model_named(&args.name()?, args.offline, &args.overrides)
}

/// The model of this name, likewise.
pub(super) fn model_named(name: &ModelName, offline: bool, overrides: &OverrideArgs) -> Result<(PathBuf, Arc<Model>)> {
    let path = pull::hub(offline)?.resolve(name)?;
    let model = Model::open_with(&path, &overrides.overrides())?;
    let unknown = &model.spec().unknown_keys;
    if !unknown.is_empty() {
        let some = unknown.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if unknown.len() > 5 { " …" } else { "" };
        term::warn(format_args!("the file has metadata that this version knows nothing of: {some}{more}"));
    }
    Ok((path, Arc::new(model)))
}

/// The options that flags ask for; context and device map are still to be planned.
pub(super) fn options(device: &DeviceArgs, context: &ContextArgs, trace: bool) -> Result<Options> {
    Ok(Options {
        batch: context.ubatch_size.min(context.batch_size) as usize,
        kv: context.kv()?,
        swa_full: context.swa_full,
        threads: device.threads.unwrap_or(0) as usize,
        precision: device.activation_bits.precision(),
        answer_precision: device.answer_bits.precision(),
        system_memory: system::memory_total(),
        trace,
        ..Options::default()
    })
}

/// Shows on stderr what is worth saying while a model is opened: on a terminal also how far the weights are, if that takes longer.
pub(super) fn listener() -> Listener {
    let quiet = !term::Stream::Stderr.is_terminal();
    let loading: Mutex<Option<Loading>> = Mutex::default();
    Listener::new(move |notice| {
        match notice {
            Notice::Note(text) => term::note(text),
            Notice::Warning(text) => term::warn(text),
            Notice::Weights { done, total } => {
                Loading::show(&mut loading.lock().unwrap_or_else(|e| e.into_inner()), done, total, quiet);
            }
        }
        term::check_interrupt()
    })
}

/// Weights that are being made ready, and the bar that shows it.
struct Loading {
    began: Instant,
    bar: Option<Progress>,
}

impl Loading {
    /// Shows that `done` of `total` bytes are ready. At the end nothing is left: a bar would be drawn over what comes next.
    fn show(loading: &mut Option<Loading>, done: u64, total: u64, quiet: bool) {
        if done == 0 {
            *loading = None;
        }
        let now = loading.get_or_insert_with(|| Loading { began: Instant::now(), bar: None });
        if now.bar.is_some() || (now.began.elapsed() > SHORT && done < total) {
            now.bar.get_or_insert_with(|| Progress::new("loading", "weights", total, quiet)).set(done);
        }
        if done == total {
            *loading = None;
        }
    }
}

/// Begins a trace in which kernels are told as parts of what the devices can do.
pub fn trace(session: &mut Session) -> Result<()> {
    measure(session)?;
    session.engine().set_trace(true).map(drop)
}

/// Does the same in a window.
pub fn watch(session: &mut Session) -> Result<Window> {
    let (sender, window) = window::live()?;
    measure(session)?;
    session.engine().observe(Box::new(sender))?;
    Ok(window)
}

fn measure(session: &mut Session) -> Result<()> {
    if !session.engine().is_measured() {
        term::note("measuring what the device can do, for the profile");
    }
    session.engine().measure_rooflines()
}

/// Ends the work, be it `done` or failed: then most of all it is wanted what was recorded.
pub fn finish<T>(args: &EngineArgs, session: &mut Session, done: Result<T>) -> Result<T> {
    let pace = session.token_times();
    end(args, session.engine(), pace, done)
}

/// As [`finish`]. What a token takes is not compared with what was planned, since several are computed at a time.
pub fn finish_batcher<T>(args: &EngineArgs, batcher: &mut Batcher<StepEngine>, done: Result<T>) -> Result<T> {
    end(args, batcher.compute_mut().engine(), None, done)
}

fn end<T>(args: &EngineArgs, engine: &mut Engine, pace: Option<(Duration, Duration)>, done: Result<T>) -> Result<T> {
    keep_pipelines(engine);
    if let Some((predicted, taken)) = pace {
        term::note(split::compare(predicted.as_secs_f64(), taken.as_secs_f64()));
    }
    match (done, record(args, engine)) {
        (Ok(done), recorded) => recorded.map(|()| done),
        (Err(e), recorded) => {
            recorded.unwrap_or_else(term::warn);
            Err(e)
        }
    }
}

/// Writes the trace and the summary, where they were asked for.
fn record(args: &EngineArgs, engine: &mut Engine) -> Result<()> {
    let Some(profile) = engine.trace()? else { return Ok(()) };
    if let Some(path) = &args.debug.trace {
        let file = std::fs::File::create(path).map(std::io::BufWriter::new);
        let written = file.and_then(|file| chrome::write(profile, file));
        written.map_err(|e| Error::io("can't write the trace", e).at(path.display()))?;
    }
    if let Some(path) = &args.debug.profile_json {
        let text = format!("{}\n", summary::to_json(profile));
        std::fs::write(path, text).map_err(|e| Error::io("can't write the summary", e).at(path.display()))?;
    }
    Ok(())
}

fn describe(session: &mut Session, path: &Path, why: &str, fit: &DevicePlan, (any_context, sequences): (bool, usize)) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (context, threads) = (session.context(), session.engine().threads());
    let size = term::bytes(session.model().weight_bytes());
    let place = match session.engine().device() {
        Some(device) => format!("{} ({}, {})", device.info().name, device.info().backend, device.info().kind),
        None => format!("the CPU ({threads} threads, {})", crate::simd::Level::best().name()),
    };
    // Without a device there is nothing to split.
    let part = session.engine().device().map_or(String::new(), |_| format!("; {}", split::describe(fit)));
    let most = session.model().spec().context_length;
    let mut context = if any_context && context < most { format!("{context} of {most}") } else { context.to_string() };
    if sequences > 1 {
        context += &format!(", {sequences} sequences in caches of {} tokens", session.cache_tokens());
    }
    let architecture = session.model().spec().architecture();
    term::note(format_args!("{name}: {architecture}, {size}, context {context}; on {place}: {why}{part}"));
}

fn dump(args: &DebugArgs, session: &mut Session) -> Result<()> {
    if !args.dump_graph && args.dump_shaders.is_none() {
        return Ok(());
    }
    let caps = session.engine().device().map_or(Caps::BASELINE, |d| d.caps().clone());
    let prefill = session.context().min(64);
    for tokens in [1, prefill] {
        let graph = session.engine().graph(tokens, 1)?;
        if args.dump_graph {
            term::note(format_args!("# {tokens} tokens\n{graph}"));
        }
        let Some(dir) = &args.dump_shaders else { continue };
        let failed = |e| Error::io("can't write the shaders", e).at(dir.display());
        std::fs::create_dir_all(dir).map_err(failed)?;
        for node in &graph.nodes {
            let metas: Vec<_> = node.src.iter().map(|t| t.meta).collect();
            for kernel in node.op.gpu(&metas, &node.dst.meta, &caps).into_iter().take(1) {
                for pass in &kernel.passes {
                    let text = gpu::expand(pass, gpu::Target::Naga)?.text;
                    // Named by content: the same shader in many layers is one file.
                    let mut hasher = std::hash::DefaultHasher::new();
                    std::hash::Hash::hash(&text, &mut hasher);
                    let hash = std::hash::Hasher::finish(&hasher) as u32;
                    std::fs::write(dir.join(format!("{}-{}-{hash:08x}.wgsl", pass.shader, kernel.variant)), text)
                        .map_err(failed)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_of_the_weights_comes_when_it_takes_long_and_goes_at_the_end() {
        let mut loading = None;
        Loading::show(&mut loading, 0, 10, true);
        Loading::show(&mut loading, 5, 10, true);
        assert!(loading.as_ref().is_some_and(|l| l.bar.is_none()), "it has only begun");
        loading.as_mut().unwrap().began -= 2 * SHORT;
        Loading::show(&mut loading, 6, 10, true);
        assert!(loading.as_ref().is_some_and(|l| l.bar.is_some()));
        Loading::show(&mut loading, 10, 10, true);
        assert!(loading.is_none());
    }
}
