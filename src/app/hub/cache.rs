//! The cache on disk, in Hugging Face's layout, so that other tools find what this one fetched and the other way round.
//!
//! ```text
//! models--user--repo/blobs/<hash>                     the bytes
//! models--user--repo/refs/main                        the commit that main pointed to
//! models--user--repo/snapshots/<commit>/<path>        a link to the blob
//! .locks/models--user--repo/<hash>.lock               held while the blob is fetched
//! ```

use super::fetch::disk_error;
use super::name::{HubName, Repo};
use super::pick::{Candidate, candidates, pick};
use crate::app::term;
use crate::base::{Result, replace};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A folder of models.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A model in the cache.
#[derive(Debug, Clone)]
pub struct Cached {
    /// Where it is from.
    pub repo: Repo,
    /// Its name, quantization and files.
    pub candidate: Candidate,
    /// Where its parts are, in order.
    pub paths: Vec<PathBuf>,
    /// Bytes of all parts.
    pub size: u64,
    /// When its first part was fetched.
    pub modified: Option<SystemTime>,
}

impl Cached {
    /// The name that finds it again: `hf:user/repo:QUANT`.
    pub fn name(&self) -> String {
        format!("hf:{}:{}", self.repo, self.candidate.label())
    }
}

impl Cache {
    /// The cache in this folder, which need not be there yet.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of one repository.
    pub fn repo_dir(&self, repo: &Repo) -> PathBuf {
        self.root.join(repo.folder())
    }

    /// Where the bytes with this hash lie.
    pub fn blob(&self, repo: &Repo, etag: &str) -> PathBuf {
        self.repo_dir(repo).join("blobs").join(etag)
    }

    /// A file's place in a snapshot.
    pub fn entry(&self, repo: &Repo, commit: &str, file: &str) -> PathBuf {
        self.snapshots(repo).join(commit).join(file)
    }

    /// The folder of the snapshots of a repository.
    pub fn snapshots(&self, repo: &Repo) -> PathBuf {
        self.repo_dir(repo).join("snapshots")
    }

    /// The file that is locked while the blob is written.
    pub fn lock_path(&self, repo: &Repo, etag: &str) -> PathBuf {
        self.root.join(".locks").join(repo.folder()).join(format!("{etag}.lock"))
    }

    /// Locks the blob against other processes until the file is dropped; calls `waiting` once if another has it.
    pub fn lock(&self, repo: &Repo, etag: &str, waiting: impl FnOnce()) -> Result<File> {
        let path = self.lock_path(repo, etag);
        let mut waiting = Some(waiting);
        loop {
            if let Some(lock) = try_lock(&path)? {
                return Ok(lock);
            }
            if let Some(say) = waiting.take() {
                say();
            }
            term::check_interrupt()?;
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Puts the blob under its name into a snapshot. A link, or the file itself where there are no links.
    pub fn link(&self, repo: &Repo, commit: &str, file: &str, etag: &str) -> Result<PathBuf> {
        let entry = self.entry(repo, commit, file);
        let folder = entry.parent().expect("an entry has a folder");
        fs::create_dir_all(folder).map_err(|e| disk_error("can't make the folder", e, folder))?;
        let up = "../".repeat(file.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{etag}"));
        if fs::read_link(&entry).is_ok_and(|now| now == target) {
            return Ok(entry);
        }
        let temp = folder.join(temp_name(etag));
        let linked = symlink(&target, &temp).and_then(|()| fs::rename(&temp, &entry));
        if linked.is_err() {
            // Windows without developer mode, or a file system without links: the blob itself becomes the entry.
            let blob = self.blob(repo, etag);
            fs::rename(&blob, &entry).map_err(|e| disk_error("can't put the model into the cache", e, &entry))?;
        }
        Ok(entry)
    }

    /// Notes that `main` points to `commit`.
    pub fn set_main(&self, repo: &Repo, commit: &str) -> Result<()> {
        let path = self.repo_dir(repo).join("refs").join("main");
        replace(&path, commit).map_err(|e| disk_error("can't note the commit", e, &path))
    }

    /// The model that `name` asks for, if all its parts are here. The commit of `main` comes first, then the newest.
    pub fn find(&self, name: &HubName) -> Option<Cached> {
        let commits = self.commits(&name.repo);
        commits.iter().find_map(|commit| {
            let files = self.files(&name.repo, commit);
            let all: Vec<Candidate> =
                candidates(files.iter().map(String::as_str)).into_iter().filter(|c| c.whole).collect();
            let found = pick(&all, name.want.as_deref(), "").ok()?;
            Some(self.describe(&name.repo, commit, found))
        })
    }

    /// All whole models, by name. A model that several commits have is told once.
    pub fn list(&self) -> Vec<Cached> {
        let mut all: Vec<Cached> = Vec::new();
        for repo in self.repos() {
            let mut seen = Vec::new();
            for commit in self.commits(&repo) {
                for found in candidates(self.files(&repo, &commit).iter().map(String::as_str)) {
                    if found.whole && !seen.contains(&found.files) {
                        seen.push(found.files.clone());
                        all.push(self.describe(&repo, &commit, found));
                    }
                }
            }
        }
        all.sort_by_key(Cached::name);
        all
    }

    /// The repositories that have a folder here.
    pub fn repos(&self) -> Vec<Repo> {
        let mut repos: Vec<Repo> = names(&self.root).iter().filter_map(|n| Repo::from_folder(n)).collect();
        repos.sort();
        repos
    }

    fn describe(&self, repo: &Repo, commit: &str, candidate: Candidate) -> Cached {
        let paths: Vec<PathBuf> = candidate.files.iter().map(|file| self.entry(repo, commit, file)).collect();
        let size = paths.iter().filter_map(|p| fs::metadata(p).ok()).map(|m| m.len()).sum();
        let modified = fs::metadata(&paths[0]).and_then(|m| m.modified()).ok();
        Cached { repo: repo.clone(), candidate, paths, size, modified }
    }

    /// The commits of a repository: that of `main` first, then from the newest to the oldest.
    pub fn commits(&self, repo: &Repo) -> Vec<String> {
        let folder = self.snapshots(repo);
        let main = fs::read_to_string(self.repo_dir(repo).join("refs").join("main")).unwrap_or_default();
        let mut commits = names(&folder);
        let age = |commit: &str| fs::metadata(folder.join(commit)).and_then(|m| m.modified()).ok();
        commits.sort_by_key(|commit| (commit == main.trim(), age(commit), commit.clone()));
        commits.reverse();
        commits
    }

    /// Paths inside a snapshot whose bytes are there.
    pub fn files(&self, repo: &Repo, commit: &str) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.snapshots(repo).join(commit), String::new(), &mut files);
        files.sort();
        files
    }
}

/// How deep a snapshot's folders are followed.
const MAX_DEPTH: usize = 8;

fn walk(folder: &Path, prefix: String, files: &mut Vec<String>) {
    if prefix.matches('/').count() > MAX_DEPTH {
        return;
    }
    for name in names(folder) {
        let path = folder.join(&name);
        // Follows the link: a link to a blob that is gone is no file.
        match fs::metadata(&path) {
            Ok(m) if m.is_file() => files.push(format!("{prefix}{name}")),
            Ok(m) if m.is_dir() => walk(&path, format!("{prefix}{name}/"), files),
            _ => {}
        }
    }
}

/// The names in a folder; none if there is no folder.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()
}

/// A name that no other writer has, in this process or another: whoever renames it into place renames what he wrote himself.
fn temp_name(of: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(".{of}.{}.{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The lock in `path`, or `None` if another process holds it. The system frees it when its holder dies.
pub fn try_lock(path: &Path) -> Result<Option<File>> {
    let fail = |e| disk_error("can't lock the cache", e, path);
    let folder = path.parent().expect("a lock has a folder");
    fs::create_dir_all(folder).map_err(fail)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
            // Some network disks have no locks. Two writers would then spoil a download, which its hash shows.
            tracing::warn!("this disk has no file locks: {}", path.display());
            Ok(Some(file))
        }
        Err(TryLockError::Error(e)) => Err(fail(e)),
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    let _ = fs::remove_file(link);
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(not(any(unix, windows)))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that note the same commit and link the same file at once must not take each other's temporary file away.
    #[test]
    fn writers_do_not_share_temporary_files() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let repo = Repo::from_folder("models--ann--model-GGUF").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for round in 0..200 {
                        cache.set_main(&repo, "0123").unwrap();
                        cache.link(&repo, &format!("commit{round}"), "a/model.gguf", "0123").unwrap();
                    }
                });
            }
        });
        assert_eq!(names(&cache.repo_dir(&repo).join("refs")), ["main"], "nothing is left over");
    }
}
