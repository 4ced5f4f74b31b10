//! From flags to a session: which model, which device and why, how much context.

use super::args::{ContextArgs, DeviceArgs, DeviceChoice, Layers, ModelArgs};
use super::hub::name::ModelName;
use super::hub::progress::Progress;
use super::overrides::OverrideArgs;
use super::window::{self, Window};
use super::{pull, split, term};
use crate::base::{Error, ErrorKind, Result, human};
use crate::gpu::{self, Fault, Selector, Tuning};
use crate::graph::Place;
use crate::model::Model;
use crate::ops::{CacheTypes, Caps};
use crate::run::budget::Budget;
use crate::run::fit::{Fit, LEAST_CONTEXT};
use crate::run::{Options, Session, chrome, summary};
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
    pub inject_faults: Vec<Fault>,
}

/// Loading that takes no longer is not shown.
const SHORT: Duration = Duration::from_millis(700);

/// A GPU that is lost so often while a session is made ready is not opened again.
const MOST_LOSSES: usize = 2;

/// Opens the model and sets up a session, telling on stderr what was chosen and why.
pub fn session(args: &EngineArgs) -> Result<Session> {
    let (path, model) = model(&args.model)?;
    let (mut session, fit, why) = fitted(args, model)?;
    session.stop_when(term::interrupted);
    session.expect(fit.prediction.seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()));
    session.when_failed(|error| term::interject(format_args!("{error}; making things ready again")));
    session.when_recovered(|recovery| term::note(recovery.outcome()));
    inject(args, session.engine().device(), false);
    describe(&mut session, &path, &why, &fit, args.context.ctx_size.is_none());
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

/// The session that is planned, its plan, and why its device was chosen. Where the GPU fails while it is made ready, less is tried.
fn fitted(args: &EngineArgs, model: Arc<Model>) -> Result<(Session, Fit, String)> {
    let (mut device, mut why) = device(&args.device)?;
    inject(args, device.as_ref(), true);
    let mut budget = args.device.split.budget(device.as_ref());
    let options = options(&args.device, &args.context, args.debug.trace.is_some())?;
    let contexts = contexts(&args.context, &model, device.as_ref(), &budget)?;
    let (mut failures, plan) = (0, split::of(&args.device));
    split::warn_of_idle_rules(&model, plan.1);
    loop {
        let fit = split::plan(&model, device.as_ref(), plan, budget, &options, contexts.clone())?;
        let taken = device.clone().filter(|_| fit.placement.uses(Place::Gpu));
        if device.is_some() && taken.is_none() {
            why.clone_from(&fit.why);
        }
        let (context, batch) = (fit.context, options.batch.min(fit.context));
        check_memory(&model, &taken, context, options.kv)?;
        let options = Options { context, batch, placement: Some(fit.placement.clone()), ..options.clone() };
        let error = match start(model.clone(), taken, options.clone()) {
            Ok(mut session) => {
                if plan.0 == Layers::Auto {
                    session.when_short_of_memory(split::with_less(model, &args.device, budget, options, &fit));
                }
                return Ok((session, fit, why));
            }
            Err(e) => e,
        };
        let Some(failed) = device.filter(|_| gives_way(&error, plan.0)) else { return Err(error) };
        failures += 1;
        let how;
        (device, how) = retry(failed, &error, failures, &mut budget, fit.prediction.gpu_bytes());
        term::warn(format_args!("{}; {how}", error.without_help()));
        if device.is_none() {
            why = "the GPU failed".into();
        }
    }
}

/// Whether something else may be tried where making a session ready failed with `error`, so many `layers` being wanted on the GPU.
fn gives_way(error: &Error, layers: Layers) -> bool {
    match error.kind() {
        ErrorKind::DeviceLost => true,
        // Who says how many layers he wants there wants to know that they don't fit.
        ErrorKind::OutOfMemory => layers == Layers::Auto,
        _ => false,
    }
}

/// What takes the place of a device that failed `failures` times while a session was made ready that takes `bytes` of it: the same,
/// opened again, and with less to put on it where its memory did not suffice; `None` for the CPU. Says which.
fn retry(
    failed: gpu::Device,
    error: &Error,
    failures: usize,
    budget: &mut Budget,
    bytes: u64,
) -> (Option<gpu::Device>, String) {
    let memory = error.kind() == ErrorKind::OutOfMemory;
    let less = split::less(bytes);
    if memory {
        // Where nobody tells how much there is, or others were faster, it is found out by trying.
        budget.gpu = less;
    }
    let hopeless = if memory { less.is_none() } else { failures >= MOST_LOSSES };
    let again = if hopeless { None } else { failed.reopen().ok() };
    failed.dispose();
    let how = match (&again, memory) {
        (Some(_), true) => format!("trying with {}", human(less.unwrap_or(0))),
        (Some(_), false) => "opening it again".into(),
        (None, _) => "going on with the CPU".into(),
    };
    (again, how)
}

/// Has `device` fail as tests want it to: while a session is made ready, or once it is.
fn inject(args: &EngineArgs, device: Option<&gpu::Device>, loading: bool) {
    let faults = &args.debug.inject_faults;
    if let (Some(device), Some(first)) = (device, faults.first())
        && (first.at == 0) == loading
    {
        device.inject(faults.iter().copied());
    }
}

/// The options that flags ask for; context and placement are still to be planned.
pub(super) fn options(device: &DeviceArgs, context: &ContextArgs, trace: bool) -> Result<Options> {
    Ok(Options {
        batch: context.ubatch_size.min(context.batch_size) as usize,
        kv: context.kv()?,
        threads: device.threads.unwrap_or(0) as usize,
        precision: device.activation_bits.precision(),
        system_memory: memory_total(),
        trace,
        ..Options::default()
    })
}

/// Sets up a session, and shows a terminal how far the weights are while they are made ready for the CPU.
pub(super) fn start(model: Arc<Model>, device: Option<gpu::Device>, options: Options) -> Result<Session> {
    let (total, began) = (model.weight_bytes(), Instant::now());
    let quiet = !term::Stream::Stderr.is_terminal();
    let shown: Arc<Mutex<(u64, Option<Progress>)>> = Arc::default();
    let watched = shown.clone();
    model.watch(Some(Box::new(move |bytes| {
        let (done, bar) = &mut *watched.lock().unwrap_or_else(|e| e.into_inner());
        *done = total.min(*done + bytes as u64);
        if bar.is_some() || began.elapsed() > SHORT {
            bar.get_or_insert_with(|| Progress::new("loading", "weights", total, quiet)).set(*done);
        }
        term::check_interrupt()
    })));
    let mut session = Session::new(model.clone(), device, options);
    model.watch(None);
    if let Ok(session) = &mut session {
        keep_pipelines(session);
    }
    // Weights that stay as they are count as well, in the end.
    if let (Ok(_), (_, Some(bar))) = (&session, &mut *shown.lock().unwrap_or_else(|e| e.into_inner())) {
        bar.set(total);
    }
    session
}

/// Keeps what the GPU's driver has compiled. That it cannot be kept is no reason to fail.
fn keep_pipelines(session: &mut Session) {
    if let Some(Err(e)) = session.engine().device().map(gpu::Device::save_pipelines) {
        tracing::warn!("{e}");
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
    keep_pipelines(session);
    match (done, record(args, session)) {
        (Ok(done), recorded) => recorded.map(|()| done),
        (Err(e), recorded) => {
            recorded.unwrap_or_else(term::warn);
            Err(e)
        }
    }
}

/// Writes the trace and the summary, where they were asked for.
fn record(args: &EngineArgs, session: &mut Session) -> Result<()> {
    if let Some((foretold, taken)) = session.pace() {
        term::note(split::compare(foretold.as_secs_f64(), taken.as_secs_f64()));
    }
    let Some(profile) = session.engine().trace()? else { return Ok(()) };
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

/// The device that is meant, to be tuned if it is a real GPU, and the reason in words.
pub(super) fn device(args: &DeviceArgs) -> Result<(Option<gpu::Device>, String)> {
    let (mut device, why) = choose(args)?;
    if let (Some(device), Some(most)) = (&mut device, args.split.workgroup_memory) {
        device.restrict(|caps| caps.max_shared = caps.max_shared.min(u32::try_from(most.0).unwrap_or(u32::MAX)));
    }
    if let Some(device) = device.as_ref().filter(|d| !d.info().software && !args.no_autotune)
        && let Some(path) = tuning_file()
    {
        device.tune(Tuning::open(device, &path));
    }
    if let (Some(device), Some(folder)) = (&device, cache_file("pipelines")) {
        device.keep_pipelines(&folder);
    }
    Ok((device, why))
}

fn choose(args: &DeviceArgs) -> Result<(Option<gpu::Device>, String)> {
    if args.n_gpu_layers == Layers::Count(0) && args.device == DeviceChoice::Auto && !args.split.wants_gpu() {
        return Ok((None, "as -ngl 0 asks".into()));
    }
    let open = |selector: &Selector| gpu::Device::open(selector).map(Some);
    Ok(match &args.device {
        DeviceChoice::Cpu => (None, "as --device cpu asks".into()),
        DeviceChoice::Auto => match gpu::Device::open(&Selector::Auto) {
            Ok(device) => (Some(device), "the fastest GPU".into()),
            Err(e) if e.kind() == ErrorKind::NoDevice => (None, "no GPU was found".into()),
            Err(e) => {
                term::warn(format_args!("{e}; going on with the CPU"));
                (None, "the GPU failed".into())
            }
        },
        DeviceChoice::Gpu => (open(&Selector::Gpu)?, "as --device gpu asks".into()),
        DeviceChoice::GpuNumber(n) => (open(&Selector::Index(*n))?, format!("as --device gpu:{n} asks")),
        DeviceChoice::GpuName(name) => (open(&Selector::Name(name.clone()))?, format!("as --device gpu:{name} asks")),
    })
}

/// Where measurements of kernels are kept.
fn tuning_file() -> Option<PathBuf> {
    cache_file("tuning.json")
}

/// A file in the user's cache.
pub(super) fn cache_file(name: &str) -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache =
        folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA")).or_else(|| Some(folder("HOME")?.join(".cache")));
    Some(cache?.join("wgpu-llm").join(name))
}

/// Tokens of context, the largest first: what was asked for, else the model's, halved until its cache is a small part of memory and
/// fits the device, and what it may shrink to before layers leave the GPU.
pub(super) fn contexts(
    args: &ContextArgs,
    model: &Model,
    device: Option<&gpu::Device>,
    budget: &Budget,
) -> Result<Vec<usize>> {
    let (spec, kv) = (model.spec(), args.kv()?);
    match args.ctx_size {
        Some(0) => return Ok(vec![spec.context_length]),
        Some(n) => {
            if n as usize > spec.context_length {
                term::warn(format_args!(
                    "a context of {n} tokens; the model was trained with {}: beyond that its answers may be no good",
                    spec.context_length
                ));
            }
            return Ok(vec![n as usize]);
        }
        None => {}
    }
    let system = memory_available().map_or(2 << 30, |bytes| bytes / 4);
    // The plan sees to it that the cache fits the GPU beside the weights; where it comes to lie is not known yet.
    let own = budget.gpu.filter(|_| device.is_some_and(|d| !d.shares_memory()));
    let room = usize::try_from(system.max(own.unwrap_or(0))).unwrap_or(usize::MAX);
    let layers = spec.layers.iter().filter(|l| l.kv_heads > 0).count().max(1);
    let fits = |context: usize| {
        // A layer's keys, or its values, are one binding.
        let part = [kv.keys, kv.values].map(|of| spec.cache_bytes(context, of.into()) / layers / 2);
        let largest = part[0].max(part[1]) as u64;
        spec.cache_bytes(context, kv) <= room && device.is_none_or(|d| largest <= d.caps().max_binding)
    };
    let mut all = vec![spec.context_length];
    while let Some(context) = all.last().copied().filter(|c| *c > LEAST_CONTEXT) {
        all.push((context / 2).max(LEAST_CONTEXT));
    }
    let first = all.iter().position(|context| fits(*context)).unwrap_or(all.len() - 1);
    Ok(all.split_off(first))
}

/// An error where what a plan leaves on the CPU does not fit into `total` bytes of system memory, of which the GPU's part is one if
/// it `shares` it.
pub(super) fn check_system_memory(fit: &Fit, total: Option<u64>, shares: bool) -> Result<()> {
    let need = fit.prediction.cpu_bytes() + if shares { fit.prediction.gpu_bytes() } else { 0 };
    match total.filter(|total| need > *total) {
        Some(total) => {
            let what = format!("this needs {} of system memory, which has {}", human(need), human(total));
            Err(Error::new(ErrorKind::OutOfSystemMemory, what)
                .help("use a smaller model or quantization, or a smaller context (-c)"))
        }
        None => Ok(()),
    }
}

/// An error where weights and cache cannot fit into system memory.
pub(super) fn check_memory(model: &Model, device: &Option<gpu::Device>, context: usize, kv: CacheTypes) -> Result<()> {
    match memory_total() {
        Some(total) if device.as_ref().is_none_or(|d| d.info().software) => {
            model.check_fits(model.spec().cache_bytes(context, kv) as u64, total, "system memory")
        }
        _ => Ok(()),
    }
}

/// What the processor calls itself.
pub(super) fn cpu_name() -> String {
    let what = sysinfo::RefreshKind::nothing().with_cpu(sysinfo::CpuRefreshKind::nothing());
    let system = sysinfo::System::new_with_specifics(what);
    system.cpus().first().map_or(String::new(), |cpu| cpu.brand().trim().to_owned())
}

fn memory() -> sysinfo::System {
    let what = sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram());
    sysinfo::System::new_with_specifics(what)
}

pub(super) fn memory_available() -> Option<u64> {
    Some(memory().available_memory()).filter(|bytes| *bytes > 0)
}

pub(super) fn memory_total() -> Option<u64> {
    Some(memory().total_memory()).filter(|bytes| *bytes > 0)
}

fn describe(session: &mut Session, path: &Path, why: &str, fit: &Fit, any_context: bool) {
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
    let context = if any_context && context < most { format!("{context} of {most}") } else { context.to_string() };
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
