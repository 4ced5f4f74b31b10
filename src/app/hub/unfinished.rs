//! Downloads that were begun and have not ended: which model they are of, and how far they are.
//!
//! The bytes lie in `blobs/<hash>.incomplete`, which tells nothing of the model. So a note is kept with them while a model is fetched:
//! `unfinished/<hash of its first path>.json` in the repository's folder, beside what the layout has, where other tools do not look.

use super::api::{Source, is_hex, is_safe};
use super::cache::{Cache, names, try_lock};
use super::fetch::disk_error;
use super::name::Repo;
use super::pick::{Candidate, candidates};
use crate::base::{Result, replace};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// What an incomplete blob's name ends with.
pub const SUFFIX: &str = ".incomplete";

/// A model that is being fetched.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note {
    /// The commit it is of.
    pub commit: String,
    files: Vec<NotedFile>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct NotedFile {
    path: String,
    size: Option<u64>,
    /// The name of its blob, once that is known.
    etag: Option<String>,
}

impl Note {
    /// For a model of these files, which are not empty, with their sizes where they are known.
    pub fn new<'f>(commit: &str, files: impl Iterator<Item = (&'f str, Option<u64>)>) -> Note {
        let files = files.map(|(path, size)| NotedFile { path: path.into(), size, etag: None }).collect();
        Note { commit: commit.into(), files }
    }

    /// Notes where a file's bytes come from, and so where they go.
    pub fn set(&mut self, path: &str, source: &Source) {
        for file in self.files.iter_mut().filter(|file| file.path == path) {
            (file.size, file.etag) = (Some(source.size), Some(source.etag.clone()));
        }
    }

    fn file_name(&self) -> String {
        let hash = Sha256::digest(self.files[0].path.as_bytes());
        let hex: String = hash.iter().take(16).map(|b| format!("{b:02x}")).collect();
        hex + ".json"
    }

    /// The note in this file, unless it is none or would lead out of the cache.
    fn read(path: &Path) -> Option<Note> {
        let note: Note = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let is_sound =
            |file: &NotedFile| is_safe(&file.path) && file.etag.as_deref().is_none_or(|etag| is_hex(etag, 32..=64));
        (is_hex(&note.commit, 7..=64) && !note.files.is_empty() && note.files.iter().all(is_sound)).then_some(note)
    }
}

/// A download that has not ended.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// Where the model is from.
    pub repo: Repo,
    /// The model; `None` if no note tells it, because another program fetches it.
    pub candidate: Option<Candidate>,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes of the model, where they are known.
    pub total: Option<u64>,
    /// The incomplete blobs.
    pub partial: Vec<PathBuf>,
    /// The note.
    pub note: Option<PathBuf>,
}

impl Unfinished {
    /// The name that goes on with it, `hf:user/repo:QUANT`, or the repository's alone.
    pub fn name(&self) -> String {
        match &self.candidate {
            Some(candidate) => format!("hf:{}:{}", self.repo, candidate.label()),
            None => format!("hf:{}", self.repo),
        }
    }

    /// How much of it is here; never 100.
    pub fn percent(&self) -> Option<u64> {
        let total = self.total.filter(|total| *total > 0)?;
        Some(((self.done as u128 * 100 / total as u128) as u64).min(99))
    }
}

impl Cache {
    fn notes(&self, repo: &Repo) -> PathBuf {
        self.repo_dir(repo).join("unfinished")
    }

    /// Notes that a model is being fetched. Bytes of another commit's download of the same model cannot be gone on with: they are removed.
    pub fn begin(&self, repo: &Repo, note: &Note) -> Result<()> {
        let path = self.notes(repo).join(note.file_name());
        let before = Note::read(&path);
        let text = serde_json::to_vec(note).expect("a note is plain data");
        replace(&path, text).map_err(|e| disk_error("can't note the download", e, &path))?;
        for file in before.iter().flat_map(|note| &note.files) {
            let Some(etag) = file.etag.as_deref() else { continue };
            let is_meant = note.files.iter().any(|now| now.path == file.path && now.etag.is_none());
            if is_meant || note.files.iter().any(|now| now.etag.as_deref() == Some(etag)) {
                continue;
            }
            if let Ok(Some(_lock)) = try_lock(&self.lock_path(repo, etag)) {
                // What cannot be removed is listed, and can be removed by name.
                let _ = fs::remove_file(incomplete(&self.blob(repo, etag)));
            }
        }
        Ok(())
    }

    /// Forgets the note: the model is here.
    pub fn end(&self, repo: &Repo, note: &Note) {
        // Another process may have done so. A note that stays tells of nothing: its files are all there.
        let _ = fs::remove_file(self.notes(repo).join(note.file_name()));
        let _ = fs::remove_dir(self.notes(repo));
    }

    /// All downloads that have not ended, by name.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        let mut all: Vec<Unfinished> = self.repos().iter().flat_map(|repo| self.unfinished_of(repo)).collect();
        all.sort_by_key(Unfinished::name);
        all
    }

    /// Those of one repository.
    pub fn unfinished_of(&self, repo: &Repo) -> Vec<Unfinished> {
        let (folder, blobs) = (self.notes(repo), self.repo_dir(repo).join("blobs"));
        let noted = names(&folder).into_iter().filter_map(|name| self.noted(repo, &folder.join(name)));
        let mut all: Vec<Unfinished> = noted.collect();
        let is_unknown = |path: &PathBuf| !all.iter().any(|known| known.partial.contains(path));
        let partial = names(&blobs).into_iter().filter(|name| name.ends_with(SUFFIX)).map(|name| blobs.join(name));
        let partial: Vec<PathBuf> = partial.filter(is_unknown).collect();
        if !partial.is_empty() {
            let done = partial.iter().map(|path| len(path).unwrap_or(0)).sum();
            all.push(Unfinished { repo: repo.clone(), candidate: None, done, total: None, partial, note: None });
        }
        all
    }

    fn noted(&self, repo: &Repo, path: &Path) -> Option<Unfinished> {
        let note = Note::read(path)?;
        let (mut done, mut total, mut partial) = (0, Some(0), Vec::new());
        let mut is_whole = true;
        for file in &note.files {
            total = total.and_then(|total: u64| total.checked_add(file.size?));
            let here = len(&self.entry(repo, &note.commit, &file.path));
            is_whole &= here.is_some();
            let blob = file.etag.as_deref().map(|etag| self.blob(repo, etag));
            let part = blob.as_deref().map(incomplete).filter(|part| part.is_file());
            let begun = || part.as_deref().and_then(len).or_else(|| len(blob.as_deref()?));
            done += here.or_else(begun).unwrap_or(0);
            partial.extend(part);
        }
        let candidate = candidates(note.files.iter().map(|file| file.path.as_str())).into_iter().next();
        let unfinished =
            Unfinished { repo: repo.clone(), candidate, done, total, partial, note: Some(path.to_owned()) };
        (!is_whole && (done > 0 || !unfinished.partial.is_empty())).then_some(unfinished)
    }
}

/// Where the bytes of a blob come in.
pub fn incomplete(blob: &Path) -> PathBuf {
    let mut name = blob.as_os_str().to_os_string();
    name.push(SUFFIX);
    name.into()
}

fn len(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|m| m.len())
}
