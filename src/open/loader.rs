//! From a model file to a session: which device and why, how much context, and less of it all if the GPU fails meanwhile.

use super::contexts::{check_memory, contexts, pool};
use super::devices::DeviceOptions;
use super::notice::Listener;
use super::system;
use crate::base::{Error, ErrorKind, Result, human};
use crate::gpu::{self, InjectedFault};
use crate::graph::Place;
use crate::model::Model;
use crate::plan::budget::Budget;
use crate::plan::fit::{DevicePlan, Layers};
use crate::plan::{DeviceMap, Options};
use crate::run::{Engine, Session};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A GPU that is lost so often while a session is made ready is not opened again.
const MOST_LOSSES: usize = 2;
/// GPU memory below which it is not tried again.
const LEAST_TRIED: u64 = 64 << 20;

/// How a session is opened.
#[derive(Clone, Default)]
pub struct Loader {
    /// On which device, and how much of the model there.
    pub device: DeviceOptions,
    /// Tokens of context: 0 for as many as the model was trained with; `None` for that, or less if memory is short.
    pub context: Option<usize>,
    /// What else a session is made by; context and device map are planned, and so is the pool of several sequences if none is given.
    pub options: Options,
    /// How the GPU fails, for tests.
    pub faults: Vec<InjectedFault>,
    /// Who gets the notices.
    pub listener: Listener,
}

/// A session, and how it came about.
pub struct Opened {
    /// The session.
    pub session: Session,
    /// What was planned.
    pub fit: DevicePlan,
    /// Why its device was chosen, in words.
    pub why: String,
}

impl Loader {
    /// Plans a session of `model` and makes it ready. If the GPU fails meanwhile, less is tried, then the CPU.
    pub fn open(&self, model: Arc<Model>) -> Result<Opened> {
        let (mut device, mut why) = self.device.open(&self.listener)?;
        self.inject(device.as_ref(), true);
        let mut budget = self.device.budget(device.as_ref());
        let system_memory = self.options.system_memory.or_else(system::memory_total);
        let options = Options { system_memory, ..self.options.clone() };
        let pooled = |device: Option<&gpu::Device>, budget: &Budget| {
            let pool = options.pool.or_else(|| pool(&options, &model, device, budget));
            Options { pool, ..options.clone() }
        };
        let first = pooled(device.as_ref(), &budget);
        let contexts = contexts(self.context, &first, &model, device.as_ref(), &budget, &self.listener)?;
        self.device.warn_of_idle_overrides(&model, &self.listener)?;
        let mut failures = 0;
        loop {
            let planned = contexts.clone();
            let options = pooled(device.as_ref(), &budget);
            let fit = self.device.plan(&model, device.as_ref(), budget, &options, planned, &self.listener)?;
            let taken = device.clone().filter(|_| fit.device_map.uses(Place::Gpu));
            if device.is_some() && taken.is_none() {
                why.clone_from(&fit.why);
            }
            let (context, batch) = (fit.context, options.batch.min(fit.context));
            let options = Options { context, batch, device_map: Some(fit.device_map.clone()), ..options.clone() };
            check_memory(&model, &taken, &options)?;
            let error = match start(model.clone(), taken, options.clone(), &self.listener) {
                Ok(mut session) => {
                    if self.device.layers == Layers::Auto {
                        session.when_short_of_memory(self.with_less(model.clone(), budget, options, &fit));
                    }
                    session.set_predicted_token_time(
                        fit.prediction.seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()),
                    );
                    self.inject(session.engine().device(), false);
                    return Ok(Opened { session, fit, why });
                }
                Err(e) => e,
            };
            let Some(failed) = device.filter(|_| self.gives_way(&error)) else { return Err(error) };
            failures += 1;
            let how;
            (device, how) = retry(failed, &error, failures, &mut budget, fit.prediction.gpu_bytes());
            self.listener.warn(format!("{}; {how}", error.without_help()))?;
            if device.is_none() {
                why = "the GPU failed".into();
            }
        }
    }

    /// Whether something else may be tried if making a session ready failed with `error`.
    fn gives_way(&self, error: &Error) -> bool {
        match error.kind() {
            ErrorKind::DeviceLost => true,
            // Who says how many layers he wants there wants to know that they don't fit.
            ErrorKind::OutOfMemory => self.device.layers == Layers::Auto,
            _ => false,
        }
    }

    /// Has `device` fail as tests want it to: while a session is made ready, or once it is.
    fn inject(&self, device: Option<&gpu::Device>, loading: bool) {
        if let (Some(device), Some(first)) = (device, self.faults.first())
            && (first.at == 0) == loading
        {
            device.inject(self.faults.iter().copied());
        }
    }

    /// Plans anew for a session of `model`, planned as `fit` with `options`, whose GPU has run out of memory: other programs took it. What
    /// is so small that less would hardly help stays as it is, and so does what the system's memory has no room for.
    fn with_less(
        &self,
        model: Arc<Model>,
        budget: Budget,
        options: Options,
        fit: &DevicePlan,
    ) -> impl FnMut(&gpu::Device) -> Option<DeviceMap> + Send + 'static {
        let (asked, listener, context) = (self.device.clone(), self.listener.clone(), options.context);
        let mut planned = fit.prediction.gpu_bytes();
        move |device| {
            let budget = Budget { gpu: Some(less(planned)?), ..budget };
            let made = asked.plan(&model, Some(device), budget, &options, vec![context], &listener);
            let fit = made.inspect_err(|e| tracing::warn!("no plan with less memory: {e}")).ok()?;
            planned = fit.prediction.gpu_bytes();
            Some(fit.device_map)
        }
    }
}

/// What takes the place of a device that failed `failures` times while a session was made ready that takes `bytes` of it: the same,
/// opened again, and with less to put on it if its memory did not suffice; `None` for the CPU. Returns which, in words, too.
fn retry(
    failed: gpu::Device,
    error: &Error,
    failures: usize,
    budget: &mut Budget,
    bytes: u64,
) -> (Option<gpu::Device>, String) {
    let memory = error.kind() == ErrorKind::OutOfMemory;
    let less = less(bytes);
    if memory {
        // If nobody says how much there is, or others were faster, it is found out by trying.
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

/// What is tried next if `bytes` of GPU memory were too many: three quarters. `None` if that pays no more.
fn less(bytes: u64) -> Option<u64> {
    Some(bytes / 4 * 3).filter(|less| *less >= LEAST_TRIED)
}

/// Sets up a session as planned; the listener gets how far the weights are while they are made ready for the CPU.
pub fn start(model: Arc<Model>, device: Option<gpu::Device>, options: Options, listener: &Listener) -> Result<Session> {
    let total = model.weight_bytes();
    listener.weights(0, total)?;
    let (done, hears) = (Mutex::new(0), listener.clone());
    model.watch(Some(Box::new(move |bytes| {
        let mut done = done.lock().unwrap_or_else(|e| e.into_inner());
        *done = total.min(*done + bytes as u64);
        // Weights that stay as they are count as well, in the end.
        hears.weights((*done).min(total.saturating_sub(1)), total)
    })));
    let session = Session::new(model.clone(), device, options);
    model.watch(None);
    // Also if it failed: a listener that shows progress is done then.
    listener.weights(total, total)?;
    let mut session = session?;
    keep_pipelines(session.engine());
    Ok(session)
}

/// Keeps what the GPU's driver has compiled. That it cannot be kept is no reason to fail.
pub fn keep_pipelines(engine: &Engine) {
    if let Some(Err(e)) = engine.device().map(gpu::Device::save_pipelines) {
        tracing::warn!("{e}");
    }
}
