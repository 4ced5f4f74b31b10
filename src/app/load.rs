//! From flags to a session: which model, which device and why, how much context.

use super::args::{ContextArgs, DeviceArgs, DeviceChoice, Layers, ModelArgs};
use super::hub::progress::Progress;
use super::window::{self, Window};
use super::{pull, term};
use crate::base::{DType, Error, ErrorKind, Result};
use crate::gpu::{self, Selector, Tuning};
use crate::model::Model;
use crate::ops::Caps;
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
}

/// Loading that takes no longer is not shown.
const SHORT: Duration = Duration::from_millis(700);

/// The smallest context that is chosen unasked.
const LEAST_CONTEXT: usize = 4096;

/// Opens the model and sets up a session, telling on stderr what was chosen and why.
pub fn session(args: &EngineArgs) -> Result<Session> {
    let path = pull::hub(args.model.offline)?.resolve(&args.model.name()?)?;
    let model = Arc::new(Model::open(&path)?);
    let (device, why) = device(&args.device)?;
    let kv = args.context.kv()?;
    let context = context(args, &model, device.as_ref().map(gpu::Device::caps), kv)?;
    check_memory(&model, &device, context, kv)?;
    let options = Options {
        context,
        batch: (args.context.ubatch_size.min(args.context.batch_size) as usize).min(context),
        kv,
        threads: args.device.threads.unwrap_or(0) as usize,
        gpu_layers: match args.device.n_gpu_layers {
            Layers::Auto | Layers::All => None,
            Layers::Count(n) => Some(n as usize),
        },
        precision: args.device.activation_bits.precision(),
        trace: args.debug.trace.is_some(),
    };
    let mut session = start(model, device, options)?;
    session.stop_when(term::interrupted);
    describe(&mut session, &path, &why);
    if args.debug.profile_json.is_some() {
        trace(&mut session)?;
    }
    dump(&args.debug, &mut session)?;
    Ok(session)
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
    let session = Session::new(model.clone(), device, options);
    model.watch(None);
    // Weights that stay as they are count as well, in the end.
    if let (Ok(_), (_, Some(bar))) = (&session, &mut *shown.lock().unwrap_or_else(|e| e.into_inner())) {
        bar.set(total);
    }
    session
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

/// Writes the trace and the summary, where they were asked for.
pub fn finish(args: &EngineArgs, session: &mut Session) -> Result<()> {
    let Some(profile) = session.engine().trace()? else { return Ok(()) };
    let write = |path: &Path, what: &str, text: String| {
        std::fs::write(path, text).map_err(|e| Error::io(format!("can't write the {what}"), e).at(path.display()))
    };
    if let Some(path) = &args.debug.trace {
        write(path, "trace", chrome::to_json(profile).to_string())?;
    }
    if let Some(path) = &args.debug.profile_json {
        write(path, "summary", format!("{}\n", summary::to_json(profile)))?;
    }
    Ok(())
}

/// The device that is meant, to be tuned if it is a real GPU, and the reason in words.
pub(super) fn device(args: &DeviceArgs) -> Result<(Option<gpu::Device>, String)> {
    let (device, why) = choose(args)?;
    if let Some(device) = device.as_ref().filter(|d| !d.info().software && !args.no_autotune)
        && let Some(path) = tuning_file()
    {
        device.tune(Tuning::open(device, &path));
    }
    Ok((device, why))
}

fn choose(args: &DeviceArgs) -> Result<(Option<gpu::Device>, String)> {
    if args.n_gpu_layers == Layers::Count(0) && args.device == DeviceChoice::Auto {
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

/// Where measurements of kernels are kept: the user's cache.
fn tuning_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache =
        folder("XDG_CACHE_HOME").or_else(|| folder("LOCALAPPDATA")).or_else(|| Some(folder("HOME")?.join(".cache")));
    Some(cache?.join("wgpu-llm").join("tuning.json"))
}

/// Tokens of context: what was asked for, else the model's, halved until its cache is a small part of memory and fits the device.
fn context(args: &EngineArgs, model: &Model, caps: Option<&Caps>, kv: DType) -> Result<usize> {
    let spec = model.spec();
    match args.context.ctx_size {
        Some(0) => return Ok(spec.context_length),
        Some(n) => return Ok(n as usize),
        None => {}
    }
    let room = memory_available().map_or(2 << 30, |bytes| bytes / 4) as usize;
    let layers = spec.layers.iter().filter(|l| l.kv_heads > 0).count().max(1);
    let fits = |context: usize| {
        let bytes = spec.cache_bytes(context, kv);
        // A layer's keys, or its values, are one binding.
        bytes <= room && caps.is_none_or(|c| (bytes / layers / 2) as u64 <= c.max_binding)
    };
    let mut context = spec.context_length;
    while context > LEAST_CONTEXT && !fits(context) {
        context = (context / 2).max(LEAST_CONTEXT);
    }
    Ok(context)
}

/// An error where weights and cache cannot fit into system memory.
pub(super) fn check_memory(model: &Model, device: &Option<gpu::Device>, context: usize, kv: DType) -> Result<()> {
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

fn memory_available() -> Option<u64> {
    Some(memory().available_memory()).filter(|bytes| *bytes > 0)
}

fn memory_total() -> Option<u64> {
    Some(memory().total_memory()).filter(|bytes| *bytes > 0)
}

fn describe(session: &mut Session, path: &Path, why: &str) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (context, threads) = (session.context(), session.engine().threads());
    let size = term::bytes(session.model().weight_bytes());
    let place = match session.engine().device() {
        Some(device) => format!("{} ({}, {})", device.info().name, device.info().backend, device.info().kind),
        None => format!("the CPU ({threads} threads, {})", crate::simd::Level::best().name()),
    };
    let placement = session.engine().placement();
    let part = match placement.single() {
        Some(_) => String::new(),
        None => format!(
            ", {} of {} layers there (the output is one) and the rest on the CPU",
            placement.gpu_layers,
            placement.layers + 1
        ),
    };
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
