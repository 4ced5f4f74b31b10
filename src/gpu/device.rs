//! An open GPU: its capabilities, its memory budget, and what was done with it so far.
//!
//! Errors of the device arrive late and from the side. They are noted (`failure.rs`) when they arrive and returned by the next
//! [`Device::check`], which everything that waits calls.
#![allow(unsafe_code)]

use super::adapter::{Adapter, AdapterInfo, Selector, adapters};
use super::failure::{Failures, FaultKind, POLL_INTERVAL, POLL_PANIC, watch};
use super::pipeline::Pipelines;
use super::pipeline_cache::PipelineCache;
use super::probe;
use super::profile::Clock;
use super::signal::Signal;
use super::tuning::Tuning;
use crate::base::{Error, ErrorKind, Result, human};
use crate::ops::Caps;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use web_time::Instant;

/// Largest binding made use of: the host repacks a weight shard by shard, so its memory depends on this.
const MAX_BINDING: u64 = 1 << 30;

/// Whether shaders go to a browser.
pub(super) const IN_BROWSER: bool = cfg!(target_arch = "wasm32");

/// The interfaces to look for adapters in.
pub(super) fn backends() -> wgpu::Backends {
    wgpu::Backends::PRIMARY
}

/// What was done since the device was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Command buffers handed over.
    pub submits: u64,
    /// Dispatches encoded.
    pub dispatches: u64,
    /// Bytes brought to the host.
    pub read_back: u64,
    /// Times that the host waited for the device.
    pub waits: u64,
    /// Buffers made.
    pub buffers: u64,
    /// Bind groups made.
    pub bind_groups: u64,
    /// Pipelines compiled.
    pub pipelines: u64,
    /// Timestamps asked for in what was encoded.
    pub queries: u64,
    /// Bytes held by buffers now.
    pub bytes: u64,
}

#[derive(Default)]
pub(super) struct Tally {
    pub submits: AtomicU64,
    pub dispatches: AtomicU64,
    pub read_back: AtomicU64,
    pub waits: AtomicU64,
    pub buffers: AtomicU64,
    pub bind_groups: AtomicU64,
    pub pipelines: AtomicU64,
    pub queries: AtomicU64,
    pub bytes: AtomicU64,
}

/// An open device. Clones share it.
#[derive(Clone)]
pub struct Device {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub adapter: wgpu::Adapter,
    pub raw: wgpu::Device,
    pub queue: wgpu::Queue,
    pub tally: Tally,
    pub pipelines: Pipelines,
    /// What the driver has compiled, if it is to be kept.
    pub pipeline_cache: OnceLock<PipelineCache>,
    /// Which kernels were measured to be the fastest, if the device is to be tuned.
    pub tuning: Mutex<Option<Tuning>>,
    info: AdapterInfo,
    caps: Caps,
    clock: Clock,
    /// Whether shaders check their bounds.
    checked: bool,
    limits: wgpu::Limits,
    /// Bytes that buffers may hold together.
    budget: AtomicU64,
    pub failures: Arc<Failures>,
    /// Which adapter it is, to find it again.
    identity: String,
}

impl Device {
    /// Opens the adapter that `selector` means. Blocks; see [`open_async`](Self::open_async).
    pub fn open(selector: &Selector) -> Result<Device> {
        pollster::block_on(Self::open_async(selector))
    }

    /// Opens the adapter that `selector` means.
    pub async fn open_async(selector: &Selector) -> Result<Device> {
        let list = adapters().await;
        let infos: Vec<AdapterInfo> = list.iter().map(|a| a.info.clone()).collect();
        let chosen = selector.choose(&infos)?;
        Self::of(&list[chosen]).await
    }

    /// Opens `adapter` with all it has of limits and of the features that kernels know.
    pub async fn of(adapter: &Adapter) -> Result<Device> {
        let mut wanted = wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16
            | wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | wgpu::Features::PIPELINE_CACHE;
        let coop = coop(&adapter.raw);
        if coop.is_some() {
            wanted |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wgpu-llm"),
            required_features: adapter.raw.features() & wanted,
            required_limits: adapter.raw.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            experimental_features: match coop {
                // SAFETY: only matrices of a kind that the adapter lists are used, in kernels that are compared with others first.
                Some(_) => unsafe { wgpu::ExperimentalFeatures::enabled() },
                None => wgpu::ExperimentalFeatures::disabled(),
            },
            ..Default::default()
        };
        let (raw, queue) = adapter.raw.request_device(&descriptor).await.map_err(|e| {
            let what = format!("{} cannot be opened", adapter.info.name);
            Error::new(ErrorKind::NoDevice, what).because(e.to_string()).help("choose another with --device")
        })?;
        let failures = Arc::default();
        watch(&raw, &failures);
        let limits = raw.limits();
        let clock = match raw.features() {
            f if !f.contains(wgpu::Features::TIMESTAMP_QUERY) => Clock::Host,
            f if !f.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) => Clock::Passes,
            _ => Clock::Dispatches,
        };
        let caps = Caps { coop, dot4: adapter.dot4, ..caps(&limits, raw.features(), &adapter.info) };
        let inner = Inner {
            adapter: adapter.raw.clone(),
            raw,
            queue,
            tally: Tally::default(),
            pipelines: Pipelines::default(),
            pipeline_cache: OnceLock::new(),
            tuning: Mutex::default(),
            info: adapter.info.clone(),
            caps,
            clock,
            checked: cfg!(debug_assertions),
            limits,
            budget: AtomicU64::new(u64::MAX),
            failures,
            identity: adapter.identity(),
        };
        let mut device = Device { inner: Arc::new(inner) };
        let halves = probe::keeps_subnormals(&device).await;
        // Only products of matrices count on it.
        let depends = device.caps().coop.is_some() && device.caps().subgroup_size().is_none();
        let chosen_subgroup = if depends { probe::subgroup_size(&device).await } else { None };
        device.restrict(|caps| {
            caps.halves = halves;
            caps.chosen_subgroup = chosen_subgroup;
        });
        Ok(device)
    }

    /// Opens the same adapter once more, after this device has failed. The new one is as restricted as this, has its budget, and is
    /// tuned by what was measured with it. Blocks; see [`reopen_async`](Self::reopen_async).
    pub fn reopen(&self) -> Result<Device> {
        pollster::block_on(self.reopen_async())
    }

    /// Opens the same adapter once more: see [`reopen`](Self::reopen).
    pub async fn reopen_async(&self) -> Result<Device> {
        let old = &*self.inner;
        let list = adapters().await;
        let adapter = list.iter().find(|a| a.identity() == old.identity).ok_or_else(|| {
            Error::new(ErrorKind::NoDevice, format!("{} is not there any more", old.info.name)).help("use --device cpu")
        })?;
        let mut device = Self::of(adapter).await?;
        device.restrict(|caps| caps.clone_from(&old.caps));
        device.restrict_clock(old.clock);
        if !old.checked {
            device.trust_shaders();
        }
        device.set_budget(old.budget.load(Ordering::Relaxed));
        *device.inner.tuning.lock().expect("no panic while it is held") =
            old.tuning.lock().expect("no panic while it is held").take();
        if let Some(cache) = old.pipeline_cache.get() {
            device.keep_pipelines(cache.folder());
        }
        self.hand_over_faults(&device);
        Ok(device)
    }

    /// Makes the device out to be less than it is, so that kernels for lesser ones can be tested. Only right after opening:
    /// panics if the device is shared already.
    pub fn restrict(&mut self, change: impl FnOnce(&mut Caps)) {
        change(&mut Arc::get_mut(&mut self.inner).expect("restricted before it is shared").caps);
    }

    /// Times work by `clock` at the best, as lesser devices do. Only right after opening, as [`restrict`](Self::restrict).
    pub fn restrict_clock(&mut self, clock: Clock) {
        let inner = Arc::get_mut(&mut self.inner).expect("restricted before it is shared");
        inner.clock = inner.clock.min(clock);
    }

    /// Compiles shaders without bounds checks, as builds without debug assertions do. Only right after opening, as
    /// [`restrict`](Self::restrict).
    pub fn trust_shaders(&mut self) {
        Arc::get_mut(&mut self.inner).expect("trusted before it is shared").checked = false;
    }

    /// From now on, programs take the kernels that are the fastest by measurement: what is not in `tuning` yet is measured when a
    /// program is made.
    pub fn tune(&self, tuning: Tuning) {
        *self.inner.tuning.lock().expect("no panic while it is held") = Some(tuning);
    }

    /// From now on, compiled pipelines are taken from a file in `folder`, and [`save_pipelines`](Self::save_pipelines) puts them there.
    pub fn keep_pipelines(&self, folder: &Path) {
        if let Some(cache) = PipelineCache::open(self, folder) {
            // The first folder stays.
            let _ = self.inner.pipeline_cache.set(cache);
        }
    }

    /// Keeps what was compiled for the next start. Fails if the file cannot be written.
    pub fn save_pipelines(&self) -> Result<()> {
        self.inner.pipeline_cache.get().map_or(Ok(()), PipelineCache::save)
    }

    /// What the adapter is.
    pub fn info(&self) -> &AdapterInfo {
        &self.inner.info
    }

    /// What kernels choose by.
    pub fn caps(&self) -> &Caps {
        &self.inner.caps
    }

    /// Alignment of the start of a bound range, in bytes: of storage buffers and of uniforms.
    pub(super) fn alignment(&self) -> (u64, u64) {
        let l = &self.inner.limits;
        (l.min_storage_buffer_offset_alignment as u64, l.min_uniform_buffer_offset_alignment as u64)
    }

    /// Whether passes can be timed.
    pub fn has_timestamps(&self) -> bool {
        self.inner.clock > Clock::Host
    }

    /// Whether each dispatch can be timed. Elsewhere all of a node's are timed together.
    pub fn times_dispatches(&self) -> bool {
        self.inner.clock == Clock::Dispatches
    }

    /// What tells how long work takes.
    pub fn clock(&self) -> Clock {
        self.inner.clock
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        let t = &self.inner.tally;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        Counters {
            submits: get(&t.submits),
            dispatches: get(&t.dispatches),
            read_back: get(&t.read_back),
            waits: get(&t.waits),
            buffers: get(&t.buffers),
            bind_groups: get(&t.bind_groups),
            pipelines: get(&t.pipelines),
            queries: get(&t.queries),
            bytes: get(&t.bytes),
        }
    }

    /// Limits the bytes that all buffers together may hold: memory that the device has to spare, or a test's pretence.
    pub fn set_budget(&self, bytes: u64) {
        self.inner.budget.store(bytes, Ordering::Relaxed);
    }

    /// Does `work` as if there were no budget: what is measured must not be squeezed into what a plan may use.
    pub fn without_budget<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = self.inner.budget.swap(u64::MAX, Ordering::Relaxed);
        let done = work();
        self.inner.budget.store(before, Ordering::Relaxed);
        done
    }

    /// Bytes that can still be had within the budget.
    pub fn budget_left(&self) -> u64 {
        let used = self.inner.tally.bytes.load(Ordering::Relaxed);
        self.inner.budget.load(Ordering::Relaxed).saturating_sub(used)
    }

    /// The first failure that the device has reported, if any.
    pub fn check(&self) -> Result<()> {
        self.inner.failures.check(&self.inner.info.name)
    }

    /// Destroys the device: everything after fails with `DeviceLost`. For shutting down, and for tests of that failure.
    pub fn destroy(&self) {
        self.inner.failures.note(ErrorKind::DeviceLost, "destroyed");
        self.inner.raw.destroy();
    }

    /// A buffer of `size` bytes, rounded up to whole 16 bytes; refused where it passes the budget or the adapter's limit.
    pub(super) fn buffer(&self, label: &str, size: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        self.inner.failures.buffer();
        self.check()?;
        let size = super::needs::buffer_bytes(size);
        let (left, largest) = (self.budget_left(), self.inner.limits.max_buffer_size);
        if size > left {
            let what = format!("{label} needs {} of GPU memory, {} are left", human(size), human(left));
            return Err(Error::new(ErrorKind::OutOfMemory, what)
                .help("put fewer layers on the GPU with -ngl, or choose a smaller context with -c"));
        }
        if size > largest {
            let name = &self.inner.info.name;
            let what = format!("{label} needs a buffer of {}, {name} allows {}", human(size), human(largest));
            return Err(Error::new(ErrorKind::OutOfMemory, what).help("choose a smaller context with -c"));
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let raw = self.inner.raw.create_buffer(&descriptor);
        self.inner.tally.buffers.fetch_add(1, Ordering::Relaxed);
        self.inner.tally.bytes.fetch_add(size, Ordering::Relaxed);
        Ok(Buffer { raw, size, device: self.clone() })
    }

    /// Hands over commands.
    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        let before = self.inner.tally.submits.fetch_add(1, Ordering::Relaxed);
        let index = self.inner.queue.submit([encoder.finish()]);
        self.submitted(before + 1);
        index
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        self.inner.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: None })
    }

    /// Writes to a buffer, before the next submission.
    pub(super) fn write(&self, buffer: &Buffer, at: u64, bytes: &[u8]) {
        self.inner.queue.write_buffer(&buffer.raw, at, bytes);
    }

    /// Compiles a shader module, with bounds checks or without; see [`trust_shaders`](Self::trust_shaders).
    pub(super) fn module(&self, label: &str, source: wgpu::ShaderSource) -> wgpu::ShaderModule {
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source };
        if self.inner.checked {
            return self.inner.raw.create_shader_module(descriptor);
        }
        // SAFETY: the shaders are this crate's own. Their loops end, since every bound is a size or a position below the
        // number of cells; indices are checked against the sizes in `params` by the kernels themselves, and the tests run
        // every kernel with the checks on.
        unsafe { self.inner.raw.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    /// Waits for a signal that comes when submission `after` is done, or everything submitted so far.
    pub(super) async fn wait<T>(&self, signal: Signal<T>, after: Option<wgpu::SubmissionIndex>) -> Result<T> {
        self.inner.tally.waits.fetch_add(1, Ordering::Relaxed);
        self.drive(&signal, after)?;
        Ok(signal.await)
    }

    /// Natively callbacks come only from polling, so poll until the signal is there or the device has failed. The browser calls back
    /// by itself.
    pub(super) fn drive<T>(&self, signal: &Signal<T>, after: Option<wgpu::SubmissionIndex>) -> Result<()> {
        if IN_BROWSER {
            return self.check();
        }
        let is_ready = || signal.is_ready() && !self.inner.failures.hides_results();
        let (begin, mut watchdog) = (Instant::now(), self.watchdog());
        loop {
            if is_ready() {
                return Ok(());
            }
            self.poll(after.clone());
            if is_ready() {
                return Ok(());
            }
            self.still_works(&mut watchdog, begin.elapsed())?;
        }
    }

    /// Lets callbacks come, those of `after` at the latest, for as long as [`POLL_INTERVAL`].
    fn poll(&self, after: Option<wgpu::SubmissionIndex>) {
        let failures = &self.inner.failures;
        if failures.injected(FaultKind::Silent) {
            return std::thread::sleep(POLL_INTERVAL);
        }
        // Where the driver says that the device is lost, wgpu calls back, and then it panics.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert!(!failures.injected(FaultKind::Lost), "{POLL_PANIC}: made to fail");
            self.inner.raw.poll(wgpu::PollType::Wait { submission_index: after, timeout: Some(POLL_INTERVAL) })
        }));
        match polled {
            Ok(polled) => {
                let ours = self.check().is_err() || !matches!(polled, Err(wgpu::PollError::WrongSubmissionIndex(..)));
                assert!(ours, "submitted to another device");
            }
            Err(_) => failures.note(ErrorKind::DeviceLost, "waiting for it failed"),
        }
    }

    /// Waits until all submitted work is done.
    pub fn finish(&self) -> Result<()> {
        pollster::block_on(self.finish_async())
    }

    /// Waits until all submitted work is done.
    pub async fn finish_async(&self) -> Result<()> {
        self.check()?;
        let signal = Signal::default();
        let sender = signal.clone();
        self.inner.queue.on_submitted_work_done(move || sender.send(()));
        self.wait(signal, None).await?;
        self.check()
    }
}

fn caps(limits: &wgpu::Limits, features: wgpu::Features, info: &AdapterInfo) -> Caps {
    Caps {
        // The room that kernels have for the parts of a sum is for subgroups of four and more.
        subgroups: info.subgroups.filter(|(min, _)| *min >= 4),
        f16: features.contains(wgpu::Features::SHADER_F16),
        chosen_subgroup: None,
        halves: false,
        coop: None,
        dot4: false,
        max_binding: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min(MAX_BINDING),
        max_invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
        max_shared: limits.max_compute_workgroup_storage_size,
        max_workgroups: limits.max_compute_workgroups_per_dimension,
        speed: if info.kind == "discrete" { Caps::CARD } else { Caps::SLOW },
    }
}

/// The size of the matrices with f16 factors and f32 sums that subgroups of `adapter` multiply: 16 or 8, the larger one.
fn coop(adapter: &wgpu::Adapter) -> Option<u32> {
    let features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
    if !adapter.features().contains(features) {
        return None;
    }
    let known = adapter.cooperative_matrix_properties();
    let of = |n: u32| {
        known.iter().any(|p| {
            let types = (p.ab_type, p.cr_type) == (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
            types && (p.m_size, p.n_size, p.k_size) == (n, n, n)
        })
    };
    [16, 8].into_iter().find(|n| of(*n))
}

/// A buffer that counts against its device's budget for as long as it lives.
pub(super) struct Buffer {
    pub raw: wgpu::Buffer,
    pub size: u64,
    device: Device,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.device.inner.tally.bytes.fetch_sub(self.size, Ordering::Relaxed);
        // Natively dropping `raw` frees it; a browser's garbage collector may take its time.
        if IN_BROWSER {
            self.raw.destroy();
        }
    }
}
