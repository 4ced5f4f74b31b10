//! Taking models out of the cache: their names, and the bytes that no other name needs.

use super::cache::{Cache, names, try_lock};
use super::fetch::disk_error;
use super::name::{HubName, Repo};
use super::pick::{candidates, wanted};
use super::unfinished::{SUFFIX, Unfinished};
use crate::base::{Error, ErrorKind, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What a removal takes away.
#[derive(Debug, Default)]
pub struct Removal {
    /// Names in snapshots.
    pub entries: Vec<PathBuf>,
    /// Bytes on the disk that go.
    pub bytes: u64,
    blobs: Vec<PathBuf>,
    partial: Vec<PathBuf>,
    notes: Vec<PathBuf>,
}

/// What removing `name` would take away: the one quantization it names, or all GGUF files of the repository; begun downloads of it
/// too. Fails if nothing of it is in the cache.
pub fn plan(cache: &Cache, name: &HubName) -> Result<Removal> {
    let repo = &name.repo;
    let mut removal = Removal::default();
    for commit in cache.commits(repo) {
        let files = cache.files(repo, &commit);
        let all = candidates(files.iter().map(String::as_str));
        let chosen = match &name.want {
            None => all,
            Some(want) => wanted(&all, want).cloned().into_iter().collect(),
        };
        removal.entries.extend(chosen.iter().flat_map(|c| &c.files).map(|f| cache.entry(repo, &commit, f)));
    }
    let unfinished = cache.unfinished_of(repo);
    let is_meant = |begun: &&Unfinished| match &name.want {
        None => true,
        Some(want) => wanted(begun.candidate.as_slice(), want).is_some(),
    };
    for begun in unfinished.iter().filter(is_meant) {
        removal.partial.extend(begun.partial.iter().cloned());
        removal.notes.extend(begun.note.clone());
    }
    if removal.entries.is_empty() && removal.partial.is_empty() {
        let mut have: Vec<String> = cache.list().iter().filter(|c| c.repo == *repo).map(|c| c.name()).collect();
        have.extend(unfinished.iter().map(|u| u.name()));
        let have = if have.is_empty() { "`ls` lists what is".into() } else { format!("there is {}", have.join(", ")) };
        return Err(Error::usage("not in the cache").at(name).help(have));
    }
    removal.blobs = unneeded_blobs(cache, repo, &removal.entries)?;
    let files = removal.entries.iter().filter(|e| !e.is_symlink()).chain(&removal.blobs).chain(&removal.partial);
    removal.bytes = files.filter_map(|f| fs::metadata(f).ok()).map(|m| m.len()).sum();
    Ok(removal)
}

/// Carries the plan out. Fails, with nothing removed, while another process fetches one of the files.
pub fn remove(cache: &Cache, repo: &Repo, removal: &Removal) -> Result<()> {
    let mut locks = Vec::new();
    for blob in removal.blobs.iter().chain(&removal.partial) {
        let name = blob.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let etag = name.strip_suffix(SUFFIX).unwrap_or(name);
        let lock = try_lock(&cache.lock_path(repo, etag))?.ok_or_else(|| {
            Error::new(ErrorKind::Io, "another process is fetching this model").at(repo).help("wait for it, or stop it")
        })?;
        locks.push(lock);
    }
    for path in removal.entries.iter().chain(&removal.blobs).chain(&removal.partial).chain(&removal.notes) {
        fs::remove_file(path).map_err(|e| disk_error("can't remove", e, path))?;
    }
    tidy(cache, repo)
}

/// The blobs that only `entries` point to.
fn unneeded_blobs(cache: &Cache, repo: &Repo, entries: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let blobs = cache.repo_dir(repo).join("blobs");
    let target = |entry: &Path| -> Option<PathBuf> {
        let name = fs::read_link(entry).ok()?.file_name()?.to_owned();
        // Whatever a link says, only a file in this repository's own folder of blobs is taken away.
        let blob = blobs.join(name);
        blob.is_file().then_some(blob)
    };
    let mut unneeded: Vec<PathBuf> = entries.iter().filter_map(|e| target(e)).collect();
    unneeded.sort();
    unneeded.dedup();
    for commit in cache.commits(repo) {
        for file in cache.files(repo, &commit) {
            let entry = cache.entry(repo, &commit, &file);
            if !entries.contains(&entry) {
                let needed = target(&entry);
                unneeded.retain(|blob| Some(blob) != needed.as_ref());
            }
        }
    }
    Ok(unneeded)
}

/// Removes folders that have become empty, and the repository's own with what is left of it when no model is.
fn tidy(cache: &Cache, repo: &Repo) -> Result<()> {
    let snapshots = cache.snapshots(repo);
    for commit in names(&snapshots) {
        remove_empty(&snapshots.join(commit));
    }
    let dir = cache.repo_dir(repo);
    let partial = names(&dir.join("blobs")).iter().any(|n| n.ends_with(SUFFIX));
    // Only if it is empty.
    let _ = fs::remove_dir(dir.join("unfinished"));
    if names(&snapshots).is_empty() && !partial {
        fs::remove_dir_all(&dir).map_err(|e| disk_error("can't remove", e, &dir))?;
    }
    Ok(())
}

// Deepest first; a folder with something in it refuses, as it should.
fn remove_empty(folder: &Path) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() && !path.is_symlink() {
            remove_empty(&path);
        }
    }
    let _ = fs::remove_dir(folder);
}
