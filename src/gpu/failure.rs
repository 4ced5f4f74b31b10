//! How a device fails: what it reports becomes errors, waits for it end, and tests make it fail on purpose.
//!
//! A device that works may be slow: it is given up only if nothing that was submitted gets done any more.

use super::device::{Device, IN_BROWSER};
use crate::base::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use web_time::Instant;

/// What the panic begins with that wgpu ends a wait with where the driver says that the device is lost.
pub const POLL_PANIC: &str = "Error in Device::poll";

/// How long a wait sleeps before it looks around.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// For so long a GPU may finish no submission, though they are cut to a tenth of a second: errors come within five seconds.
const SILENCE: Duration = Duration::from_secs(4);
/// The same for a CPU that plays GPU: it is slow, and what is lost there says so.
const SOFTWARE_SILENCE: Duration = Duration::from_secs(600);

/// In place of a submission: the next buffer.
const NEXT_BUFFER: u64 = u64::MAX;

/// What has become of a device, and what tests want to become of it.
#[derive(Default)]
pub(super) struct Failures {
    /// The first failure that the device reported; it stays.
    first: Mutex<Option<(ErrorKind, String)>>,
    /// Submissions that the device has done.
    done: AtomicU64,
    /// What is to fail, on this device and those that take its place.
    faults: Mutex<VecDeque<InjectedFault>>,
    /// The submission that fails; 0 for none, [`NEXT_BUFFER`] for what comes before any.
    at: AtomicU64,
    /// What fails on purpose.
    injected: Mutex<Option<FaultKind>>,
}

/// A failure made on purpose, `lost@40`: where no device breaks by itself, this is how it is known what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InjectedFault {
    /// What happens.
    pub kind: FaultKind,
    /// With which submission to the device, counted from 1; 0 means with the next buffer, while a session is made ready. Of the next
    /// fault, to the device that has taken its place.
    pub at: u64,
}

/// How a device fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It goes away, and who waits for it hears so from the driver.
    Lost,
    /// It has no memory left.
    OutOfMemory,
    /// It does not answer any more, as a GPU and not a CPU that plays one.
    Silent,
}

impl FromStr for InjectedFault {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let fault = s.split_once('@').and_then(|(kind, at)| {
            let kind = match kind {
                "lost" => FaultKind::Lost,
                "oom" => FaultKind::OutOfMemory,
                "silent" => FaultKind::Silent,
                _ => return None,
            };
            Some(InjectedFault { kind, at: at.parse().ok()? })
        });
        fault.ok_or_else(|| Error::usage(format!("there is no fault {s:?}")).help("use lost@N, oom@N or silent@N"))
    }
}

impl Failures {
    /// Notes a failure, if it is the first.
    pub fn note(&self, kind: ErrorKind, what: impl Into<String>) {
        self.first.lock().expect("no panic while it is held").get_or_insert_with(|| (kind, what.into()));
    }

    /// The first failure, as an error of the device called `name`.
    pub fn check(&self, name: &str) -> Result<()> {
        match &*self.first.lock().expect("no panic while it is held") {
            Some((kind, what)) => Err(error(*kind, what, name)),
            None => Ok(()),
        }
    }

    fn any(&self) -> bool {
        self.first.lock().expect("no panic while it is held").is_some()
    }

    /// Whether results that are there are to be as if they never came.
    pub fn hides_results(&self) -> bool {
        self.injected(FaultKind::Silent) || self.injected(FaultKind::Lost)
    }

    /// Makes the fault happen that waits for submission `n`.
    fn trigger(&self, n: u64) {
        // Only one of those who make buffers at the same time.
        if self.at.compare_exchange(n, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let fault = self.faults.lock().expect("no panic while it is held").pop_front();
        match fault.map(|fault| fault.kind) {
            Some(FaultKind::OutOfMemory) => self.note(ErrorKind::OutOfMemory, ""),
            // Nobody may wait for it while a session is made ready.
            Some(FaultKind::Lost) if n == NEXT_BUFFER => self.note(ErrorKind::DeviceLost, "made to fail"),
            _ => {}
        }
        *self.injected.lock().expect("no panic while it is held") = fault.map(|fault| fault.kind);
    }

    /// Before a buffer is made.
    pub fn buffer(&self) {
        self.trigger(NEXT_BUFFER);
    }

    pub fn injected(&self, kind: FaultKind) -> bool {
        *self.injected.lock().expect("no panic while it is held") == Some(kind)
    }
}

/// So long a lost device is waited for while it is let go of: those that answer take milliseconds.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

impl Device {
    /// Makes the device fail, and those that take its place ([`reopen`](Self::reopen)) after it: a fault each.
    pub fn inject(&self, faults: impl IntoIterator<Item = InjectedFault>) {
        let failures = &self.inner.failures;
        let mut waiting = failures.faults.lock().expect("no panic while it is held");
        waiting.extend(faults);
        let at = waiting.front().map_or(0, |fault| match fault.at {
            0 => NEXT_BUFFER,
            at => self.counters().submits + at,
        });
        failures.at.store(at, Ordering::Relaxed);
    }

    /// Lets go of a device that may have failed.
    pub fn dispose(self) {
        if self.check().is_err_and(|e| e.kind() == ErrorKind::DeviceLost) {
            // The last one who lets go waits for the device's queue, which may never answer: not the caller. Where there are no
            // threads there is no such wait either, and it is dropped here.
            let thread = std::thread::Builder::new().spawn(move || drop(self));
            // What answers is gone then: its memory is free for what takes its place, and no process ends while its driver is unloaded.
            let start = Instant::now();
            while thread.as_ref().is_ok_and(|thread| !thread.is_finished()) && start.elapsed() < DROP_TIMEOUT {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Hands the faults that are still to come over to the device that takes the place of this one.
    pub(super) fn hand_over_faults(&self, to: &Device) {
        let rest = std::mem::take(&mut *self.inner.failures.faults.lock().expect("no panic while it is held"));
        to.inject(rest);
    }

    /// Watches a submission, the `n`th, which is handed over: whether it gets done, and whether it is to fail.
    pub(super) fn submitted(&self, n: u64) {
        let failures = self.inner.failures.clone();
        failures.trigger(n);
        // Nobody waits by polling in a browser.
        if !IN_BROWSER {
            self.inner.queue.on_submitted_work_done(move || {
                failures.done.fetch_add(1, Ordering::Relaxed);
            });
        }
    }

    /// Who watches the device while it is waited for.
    pub(super) fn watchdog(&self) -> Watchdog {
        let real = !self.info().software || self.inner.failures.injected(FaultKind::Silent);
        Watchdog::new(if real { SILENCE } else { SOFTWARE_SILENCE })
    }

    /// After a poll from which nothing woke, at `now`: an error if the device has failed or is silent for too long.
    pub(super) fn still_works(&self, watchdog: &mut Watchdog, now: Duration) -> Result<()> {
        self.check()?;
        let failures = &self.inner.failures;
        let done = if failures.injected(FaultKind::Silent) { 0 } else { failures.done.load(Ordering::Relaxed) };
        if watchdog.is_alarmed(now, done) {
            failures.note(ErrorKind::DeviceLost, format!("no answer for {} s", watchdog.patience.as_secs()));
        }
        self.check()
    }
}

/// Tells a device that is slow from one that does nothing.
pub(super) struct Watchdog {
    patience: Duration,
    since: Duration,
    polls: u32,
    done: u64,
}

impl Watchdog {
    fn new(patience: Duration) -> Watchdog {
        Watchdog { patience, since: Duration::ZERO, polls: 0, done: 0 }
    }

    /// After another poll, `now` from the beginning of the wait, the device having done `done` submissions: whether it is to be given
    /// up. Naps are counted beside the time: a process that was stopped for an hour has not waited for one.
    fn is_alarmed(&mut self, now: Duration, done: u64) -> bool {
        if self.done != done {
            (self.done, self.since, self.polls) = (done, now, 0);
        }
        self.polls += 1;
        now - self.since >= self.patience && POLL_INTERVAL * self.polls >= self.patience
    }
}

/// Notes the first failure that the device reports.
pub(super) fn watch(raw: &wgpu::Device, failures: &Arc<Failures>) {
    let lost = failures.clone();
    raw.set_device_lost_callback(move |reason, message| {
        lost.note(ErrorKind::DeviceLost, format!("{reason:?} {message}").trim().to_lowercase());
    });
    let uncaptured = failures.clone();
    raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| match error {
        wgpu::Error::OutOfMemory { .. } => uncaptured.note(ErrorKind::OutOfMemory, ""),
        wgpu::Error::Internal { description, .. } => uncaptured.note(ErrorKind::DeviceLost, description),
        wgpu::Error::Validation { description, .. } => {
            // Once a device is lost, everything done with what belonged to it is wrong.
            let bug = cfg!(debug_assertions) && !uncaptured.any();
            assert!(!bug, "a bug in this program's use of the GPU: {description}");
            uncaptured.note(ErrorKind::DeviceLost, description);
        }
    }));
}

/// The error for a device that has failed.
fn error(kind: ErrorKind, what: &str, name: &str) -> Error {
    match kind {
        ErrorKind::OutOfMemory => Error::new(kind, format!("{name} is out of memory"))
            .help("put fewer layers on the GPU with -ngl, or choose a smaller context with -c"),
        _ => Error::new(kind, format!("the GPU {name} was lost: {what}"))
            .help("try again; if it happens often, update the driver or use --device cpu"),
    }
}

/// Catches what fails; see [`Device::scope`].
pub(super) struct Scope {
    device: Device,
    memory: wgpu::ErrorScopeGuard,
    driver: wgpu::ErrorScopeGuard,
}

impl Device {
    /// Catches running out of memory, and shaders that the driver cannot compile, until [`Scope::finish`].
    pub(super) fn scope(&self) -> Scope {
        let memory = self.inner.raw.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let driver = self.inner.raw.push_error_scope(wgpu::ErrorFilter::Internal);
        Scope { device: self.clone(), memory, driver }
    }
}

impl Scope {
    /// What went wrong since the scope was opened, if anything.
    pub async fn finish(self) -> Result<()> {
        // Scopes close in the reverse order of opening, both before anything is awaited.
        let driver = self.driver.pop();
        let memory = self.memory.pop();
        let name = &self.device.info().name;
        if memory.await.is_some() {
            return Err(error(ErrorKind::OutOfMemory, "", name));
        }
        if let Some(error) = driver.await {
            let what = format!("the driver of {name} cannot compile a shader");
            return Err(Error::unsupported(what).because(error.to_string()).help("update it, or use --device cpu"));
        }
        self.device.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_device_is_not_a_silent_one() {
        let s = Duration::from_secs_f64;
        let mut slow = Watchdog::new(SILENCE);
        // A submission every 3.5 seconds, for an hour.
        assert!((1..14_400).all(|poll| !slow.is_alarmed(POLL_INTERVAL * poll, u64::from(poll / 14))));
        let mut silent = Watchdog::new(SILENCE);
        let alarm = (1..).find(|poll| silent.is_alarmed(POLL_INTERVAL * *poll, 0)).map(|poll| POLL_INTERVAL * poll);
        assert_eq!(alarm, Some(s(4.0)));
        let mut stopped = Watchdog::new(SILENCE);
        assert!(!stopped.is_alarmed(s(0.25), 7));
        assert!(!stopped.is_alarmed(s(3600.0), 7), "it was this process that did nothing for an hour");
        assert!(!stopped.is_alarmed(s(3600.25), 8));
    }

    #[test]
    fn faults_are_written_as_they_are_read() {
        let fault = |kind, at| InjectedFault { kind, at };
        assert_eq!("lost@40".parse::<InjectedFault>().unwrap(), fault(FaultKind::Lost, 40));
        assert_eq!("oom@1".parse::<InjectedFault>().unwrap(), fault(FaultKind::OutOfMemory, 1));
        assert_eq!("silent@2".parse::<InjectedFault>().unwrap(), fault(FaultKind::Silent, 2));
        assert_eq!("oom@0".parse::<InjectedFault>().unwrap(), fault(FaultKind::OutOfMemory, 0));
        for bad in ["", "lost", "lost@", "lost@-1", "late@3"] {
            assert!(bad.parse::<InjectedFault>().unwrap_err().to_string().contains("lost@N"), "{bad}");
        }
    }
}
