//! When the GPU fails in the middle of the work: the session opens it again, or goes to the CPU, computes anew what the cache held,
//! and goes on where it was.
//!
//! Nothing else of a session lies on the device: tokens, the sampler's state and its random numbers, which are counted by
//! position, are the host's.

use super::Session;
use super::engine::{Engine, GpuSide};
use super::session::stopped;
use crate::base::{Error, ErrorKind, Result};
use crate::cpu;
use crate::gpu::Device;
use crate::graph::Place;
use crate::plan::DeviceMap;
use crate::profile::Record;
use std::fmt;
use web_time::{Duration, Instant};

/// Failures within [`WINDOW`] after which a session stays on the CPU.
const MOST: usize = 3;
/// The same where memory did not suffice: what does not fit twice will not fit a third time.
const MOST_OUT_OF_MEMORY: usize = 2;
const WINDOW: Duration = Duration::from_secs(600);

/// How a session went on after its GPU had failed.
#[derive(Debug)]
pub struct Recovery {
    /// What had happened.
    pub error: Error,
    /// The GPU that the session goes on with; `None` if it stays on the CPU.
    pub device: Option<String>,
    /// Layers on it now, the output being one, and all there are: where it was planned anew.
    pub layers: Option<(usize, usize)>,
    /// Failures within ten minutes, this one included.
    pub failures: usize,
    /// Tokens that are computed anew.
    pub tokens: usize,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.error, self.outcome())
    }
}

impl Recovery {
    /// How it goes on, without what had happened.
    pub fn outcome(&self) -> String {
        let how = match (&self.device, self.layers, self.failures) {
            (Some(_), None, _) => "it was opened again, and the work goes on".to_owned(),
            (Some(_), Some((n, all)), _) => {
                format!("it was opened again, with {n} of {all} layers there, and the work goes on")
            }
            (None, _, 1) => "the work goes on, on the CPU from now on".to_owned(),
            (None, _, n) => format!("failure {n} within ten minutes: from now on the work is done on the CPU"),
        };
        match self.tokens {
            0 => how,
            1 => how + ", 1 token is computed anew",
            n => format!("{how}, {n} tokens are computed anew"),
        }
    }
}

type Listener<T> = Box<dyn FnMut(&T) + Send>;
type Planner = Box<dyn FnMut(&Device) -> Option<DeviceMap> + Send>;
/// The GPU's name and the layers there, where they were planned anew; no name for the CPU.
type Replaced = (Option<String>, Option<(usize, usize)>);

/// What a session remembers of failures, who wants to know, and who plans anew.
#[derive(Default)]
pub(super) struct Recovering {
    failures: Vec<(Instant, ErrorKind)>,
    tell_failure: Option<Listener<Error>>,
    tell: Option<Listener<Recovery>>,
    plan: Option<Planner>,
}

impl Recovering {
    /// Notes a failure at `now`; gives how many there were of late, and whether the GPU may be tried once more.
    fn note(&mut self, now: Instant, kind: ErrorKind) -> (usize, bool) {
        self.failures.retain(|(then, _)| now.duration_since(*then) < WINDOW);
        self.failures.push((now, kind));
        let memory = self.failures.iter().filter(|(_, kind)| *kind == ErrorKind::OutOfMemory).count();
        (self.failures.len(), self.failures.len() < MOST && memory < MOST_OUT_OF_MEMORY)
    }

    /// Puts another device in the place of the one that failed with `error`. Returns whether layers lie elsewhere now. Caches are empty
    /// then, and `tokens` are computed anew.
    pub async fn take_over(&mut self, engine: &mut Engine, error: Error, tokens: usize) -> Result<bool> {
        let error = error.without_help();
        if let Some(tell) = &mut self.tell_failure {
            tell(&error);
        }
        let (failures, again) = self.note(Instant::now(), error.kind());
        let plan = self.plan.as_mut().filter(|_| error.kind() == ErrorKind::OutOfMemory);
        let (device, layers) = match engine.replace_device(again, plan).await {
            Ok(replaced) => replaced,
            Err(e) => return Err(error.because(e)),
        };
        let elsewhere = device.is_none() || layers.is_some();
        let recovery = Recovery { error, device, layers, failures, tokens };
        if let Some(tell) = &mut self.tell {
            tell(&recovery);
        }
        Ok(elsewhere)
    }
}

impl Session {
    /// From now on `tell` hears of each failure of the GPU at once: until weights lie elsewhere and what was fed is fed again, it may
    /// take a while.
    pub fn when_failed(&mut self, tell: impl FnMut(&Error) + Send + 'static) {
        self.recovering.tell_failure = Some(Box::new(tell));
    }

    /// From now on `tell` hears of each failure of the GPU that the session goes on after, and how.
    pub fn when_recovered(&mut self, tell: impl FnMut(&Recovery) + Send + 'static) {
        self.recovering.tell = Some(Box::new(tell));
    }

    /// From now on `plan` says what goes to a GPU, opened again, that ran out of memory; `None` for the same as before.
    pub fn when_short_of_memory(&mut self, plan: impl FnMut(&Device) -> Option<DeviceMap> + Send + 'static) {
        self.recovering.plan = Some(Box::new(plan));
    }

    /// Does `work`, which gets the engine and the number of tokens in its cache; where the GPU fails, does it again on what takes
    /// its place.
    /// In the cache there is room for `cells` more tokens.
    pub(super) async fn retry<T>(
        &mut self,
        cells: usize,
        mut work: impl AsyncFnMut(&mut Engine, usize) -> Result<T>,
    ) -> Result<T> {
        loop {
            self.books.reserve(&mut self.engine, cells)?;
            match work(&mut self.engine, self.books.tokens().len()).await {
                Err(e) if self.engine.can_do_without(&e) => self.recover(e).await?,
                done => return done,
            }
        }
    }

    /// Puts another device in the place of the one that failed with `error`, and has it compute what lay in the cache.
    pub(super) async fn recover(&mut self, mut error: Error) -> Result<()> {
        let tokens = self.books.reset();
        loop {
            if self.recovering.take_over(&mut self.engine, error, tokens.len()).await? {
                // What was predicted holds no more.
                self.set_predicted_token_time(None);
            }
            match self.feed_again(&tokens).await {
                Err(e) if self.engine.can_do_without(&e) => error = e,
                done => return done,
            }
        }
    }

    /// Feeds what was fed before. What is not fed when this fails or is stopped counts as never fed.
    async fn feed_again(&mut self, tokens: &[u32]) -> Result<()> {
        self.books.reset();
        for batch in tokens.chunks(self.batch()) {
            if self.stops() {
                return Err(stopped());
            }
            self.books.reserve(&mut self.engine, batch.len())?;
            self.engine.decode_async(batch, self.books.tokens().len(), &[]).await?;
            self.books.commit(batch);
        }
        Ok(())
    }
}

impl Engine {
    /// Whether `error` is a failure of the GPU, so that the work can be done elsewhere.
    pub(super) fn can_do_without(&self, error: &Error) -> bool {
        self.gpu.is_some() && matches!(error.kind(), ErrorKind::DeviceLost | ErrorKind::OutOfMemory)
    }

    /// Lets go of the GPU and opens it `again`, with what `plan` puts there, or goes to the CPU where that is not wanted or fails;
    /// gives the GPU's name and the layers there, of all, where they are others. Caches are empty then.
    async fn replace_device(&mut self, again: bool, plan: Option<&mut Planner>) -> Result<Replaced> {
        let old = self.let_go();
        let reopened = match old.as_ref().filter(|_| again) {
            Some(old) => old.reopen_async().await.ok(),
            None => None,
        };
        old.into_iter().for_each(Device::dispose);
        if let Some(device) = reopened {
            let name = device.info().name.clone();
            let planned = plan.and_then(|plan| plan(&device));
            let layers = planned.as_ref().map(|p| (p.gpu_layers(), p.blocks.len() + 1));
            if let Some(device_map) = planned {
                self.device_map = device_map;
            }
            if self.device_map.uses(Place::Gpu) {
                self.gpu = GpuSide::new(device, &self.model, &mut self.device_map, &self.options).ok();
            }
            if self.gpu.is_some() && self.prepare_decoding().await.is_ok() {
                self.tell_facts();
                return Ok((Some(name), layers));
            }
            self.let_go().into_iter().for_each(Device::dispose);
        }
        let cache = self.model.spec().cache_bytes(&self.cells, self.options.kv) as u64;
        let system = (ErrorKind::OutOfSystemMemory, "system memory");
        self.model.check_fits(cache, self.options.system_memory.unwrap_or(u64::MAX), system)?;
        self.device_map = DeviceMap::cpu(self.device_map.blocks.len());
        self.prepare_decoding().await?;
        self.tell_facts();
        Ok((None, None))
    }

    /// Drops all that belongs to the device, which makes room on it, and the caches; gives the device.
    fn let_go(&mut self) -> Option<Device> {
        if let Some(trace) = &mut self.trace {
            trace.forget();
        }
        self.programs.clear();
        self.memory = cpu::Memory::of_sequences(self.options.sequences);
        self.gpu.take().map(|gpu| gpu.device)
    }

    /// Tells the trace what the session is made of now. A GPU that is no more stays in it: kernels ran there.
    fn tell_facts(&mut self) {
        let mut facts = self.facts();
        let Some(trace) = &mut self.trace else { return };
        let gone = trace.profile().facts.devices.get(facts.devices.len()..).unwrap_or_default();
        facts.devices.extend_from_slice(gone);
        trace.tell(Record::Facts(facts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_ten_minutes_or_two_of_memory_are_too_many() {
        let begin = Instant::now();
        let at = |minutes: u64| begin + Duration::from_secs(60 * minutes);
        let mut lost = Recovering::default();
        let mut note = |minutes| lost.note(at(minutes), ErrorKind::DeviceLost);
        assert_eq!([note(0), note(9), note(11)], [(1, true), (2, true), (2, true)]);
        assert_eq!(note(12), (3, false));
        let mut memory = Recovering::default();
        assert_eq!(memory.note(at(0), ErrorKind::OutOfMemory), (1, true));
        assert_eq!(memory.note(at(1), ErrorKind::OutOfMemory), (2, false));
    }

    #[test]
    fn a_recovery_says_what_happened_and_how_it_goes_on() {
        let recovery = |device: Option<&str>, failures, tokens, layers| {
            let error = Error::new(ErrorKind::DeviceLost, "the GPU X was lost: gone");
            Recovery { error, device: device.map(str::to_owned), layers, failures, tokens }.to_string()
        };
        let again = "the GPU X was lost: gone; it was opened again, and the work goes on, 7 tokens are computed anew";
        assert_eq!(recovery(Some("X"), 2, 7, None), again);
        let fewer = "the GPU X was lost: gone; it was opened again, with 3 of 5 layers there, and the work goes on";
        assert_eq!(recovery(Some("X"), 1, 0, Some((3, 5))), fewer);
        let third = "the GPU X was lost: gone; failure 3 within ten minutes: from now on the work is done on the CPU";
        assert_eq!(recovery(None, 3, 0, Some((0, 5))), third);
    }
}
