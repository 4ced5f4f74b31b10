//! The file that keeps what was measured of kernels: for each device, for each class of shapes, the variant that is the fastest.
//!
//! It is a cache and nothing depends on it: a file that cannot be read is as none, and what was measured with another driver or of
//! other shaders is left alone and not used.

use super::device::Device;
use super::preprocess;
use crate::base::{Error, Result, replace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// For each device, for each class of shapes: the variant.
type Choices = BTreeMap<String, BTreeMap<String, String>>;

/// The choices for one device.
#[derive(Debug, Default)]
pub struct Tuning {
    path: PathBuf,
    /// Adapter, driver and shaders.
    device: String,
    all: Choices,
}

impl Tuning {
    /// The choices kept in the file at `path`, if it is there and can be read; measurements will be added to it.
    pub fn open(device: &Device, path: &Path) -> Tuning {
        let info = device.info();
        let device = format!("{} | {} | {} | {:016x}", info.name, info.backend, info.driver, preprocess::fingerprint());
        Tuning { path: path.to_owned(), device, all: read(path) }
    }

    /// What was found to be the fastest for a class of shapes.
    pub fn choice(&self, class: &str) -> Option<&str> {
        self.all.get(&self.device)?.get(class).map(String::as_str)
    }

    /// Notes the fastest variant for a class of shapes.
    pub fn set(&mut self, class: &str, variant: &str) {
        self.all.entry(self.device.clone()).or_default().insert(class.to_owned(), variant.to_owned());
    }

    /// Whether a variant may be tried: not where it was begun before and never finished, which is how drivers fail.
    pub(super) fn may_try(&self, variant: &str) -> bool {
        self.choice(&trial(variant)) != Some(BEGUN)
    }

    /// Notes in the file that a variant is about to be tried for the first time. Says whether it was.
    pub(super) fn begin(&mut self, variant: &str) -> Result<bool> {
        if self.choice(&trial(variant)).is_some() {
            return Ok(false);
        }
        self.set(&trial(variant), BEGUN);
        self.save().map(|()| true)
    }

    /// Notes that a variant that was tried ran to its end.
    pub(super) fn end(&mut self, variant: &str) {
        self.set(&trial(variant), "ran");
    }

    /// Adds the choices for this device to what the file holds by now, so that no other process loses what it has measured of another
    /// device, and replaces it.
    pub fn save(&mut self) -> Result<()> {
        static SAVING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = SAVING.lock().expect("no panic while it is held");
        let mut all = read(&self.path);
        for (device, choices) in std::mem::take(&mut self.all) {
            let known = all.entry(device.clone()).or_default();
            let ours = device == self.device;
            let new = choices.into_iter().filter(|(class, _)| ours || !known.contains_key(class)).collect::<Vec<_>>();
            known.extend(new);
        }
        self.all = all;
        let text = serde_json::to_string_pretty(&self.all).expect("strings are valid JSON");
        replace(&self.path, text)
            .map_err(|e| Error::io("can't keep what was measured of kernels", e).at(self.path.display()))
    }
}

/// What stands for a trial that was begun.
const BEGUN: &str = "begun";

fn trial(variant: &str) -> String {
    format!("trial of {variant}")
}

fn read(path: &Path) -> Choices {
    let text = std::fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}
