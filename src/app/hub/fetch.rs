//! One file from the hub to the disk, such that its name stands for its whole and right bytes.
//!
//! Bytes go to `<hash>.incomplete` under a lock; a later try or process goes on where the last one stopped. Only when
//! length and hash are right is the file synced and renamed. A process killed at any moment leaves the incomplete file.

use super::api::Source;
use super::http::{Client, Failure, broken};
use super::progress::Progress;
use super::unfinished::incomplete;
use crate::app::term;
use crate::base::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Body;
use ureq::http::Response;

/// Bytes per read: large enough that the system calls do not matter.
const CHUNK: usize = 256 << 10;
/// Left free on the disk beyond the file itself.
const SPARE: u64 = 16 << 20;

/// Fetches `source` to `target` unless it is there. The caller holds the lock of `target`.
pub fn fetch(client: &Client, source: &Source, target: &Path, progress: &mut Progress) -> Result<()> {
    let mut partial = Partial::open(target, source.size)?;
    need_space(target, source.size - partial.len)?;
    let mut resumed = partial.len > 0;
    loop {
        progress.resume(partial.len);
        download(client, source, &mut partial, progress)?;
        match partial.check(source.sha256.as_deref()) {
            Ok(()) => return partial.finish(target),
            Err(e) if resumed => {
                // The part found on the disk may have been bad, or of another file.
                progress.say(&format!("{e}; starting again from the beginning"));
                partial.restart()?;
                resumed = false;
            }
            Err(e) => {
                partial.discard()?;
                return Err(e.at(&source.url).help("run the command again; if it stays, tell the repository's owner"));
            }
        }
    }
}

/// Reads until the partial file has all bytes. Tries start anew whenever bytes have come.
fn download(client: &Client, source: &Source, partial: &mut Partial, progress: &mut Progress) -> Result<()> {
    let mut attempt = 0;
    while partial.len < source.size {
        let before = partial.len;
        let (error, wait) = match transfer(client, source, partial, progress) {
            Ok(()) => continue,
            Err(Failure::Fatal(e)) => return Err(e),
            Err(Failure::Retry(e, wait)) => (e, wait),
        };
        if partial.len > before {
            attempt = 0;
        }
        if attempt >= client.retries() {
            return Err(error.help("run the command again: it goes on where it stopped"));
        }
        progress.say(&format!("{error}; trying again"));
        client.pause(attempt, wait)?;
        attempt += 1;
    }
    Ok(())
}

/// One request for the rest of the file.
fn transfer(client: &Client, source: &Source, partial: &mut Partial, progress: &mut Progress) -> Result<(), Failure> {
    let reply = client.get(&source.url, partial.len)?;
    if reply.status() != 206 || range_start(&reply) != Some(partial.len) {
        if reply.status() != 200 {
            // 416, or a range that was not asked for: what is here does not fit what is there.
            partial.restart()?;
            let e = Error::new(ErrorKind::Network, "the server can't go on where the download stopped");
            return Err(Failure::Retry(e.at(&source.url), None));
        }
        partial.restart()?;
        progress.resume(0);
    }
    let mut body = reply.into_body().into_reader();
    let mut chunk = vec![0; CHUNK];
    loop {
        term::check_interrupt()?;
        let n = match body.read(&mut chunk) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::Retry(broken(&source.url, e), None)),
        };
        if n == 0 {
            break;
        }
        if partial.len + n as u64 > source.size {
            let e = Error::new(
                ErrorKind::Network,
                format!("the server sends more than the {} bytes it told of", source.size),
            );
            return Err(Failure::Fatal(e.at(&source.url)));
        }
        partial.write(&chunk[..n])?;
        progress.set(partial.len);
    }
    if partial.len < source.size {
        let e = format!("the connection ended after {} of {} bytes", partial.len, source.size);
        return Err(Failure::Retry(Error::new(ErrorKind::Network, e), Some(Duration::ZERO)));
    }
    Ok(())
}

/// The first byte of a partial answer: `Content-Range: bytes 100-199/200`.
fn range_start(reply: &Response<Body>) -> Option<u64> {
    let range = reply.headers().get("content-range")?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A file being filled, with the hash of what it has.
pub struct Partial {
    file: File,
    path: PathBuf,
    hash: Sha256,
    /// Bytes there are.
    pub len: u64,
}

impl Partial {
    /// Opens `<target>.incomplete`, hashing what is there already. A file longer than `size` starts anew.
    pub fn open(target: &Path, size: u64) -> Result<Partial> {
        let path = incomplete(target);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| disk_error("can't make the folder", e, folder))?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(|e| disk_error("can't write the download", e, &path))?;
        let mut partial = Partial { file, path, hash: Sha256::new(), len: 0 };
        let mut chunk = vec![0; CHUNK];
        loop {
            term::check_interrupt()?;
            let n =
                partial.file.read(&mut chunk).map_err(|e| disk_error("can't read the download", e, &partial.path))?;
            if n == 0 {
                return Ok(partial);
            }
            partial.len += n as u64;
            if partial.len > size {
                partial.restart()?;
                return Ok(partial);
            }
            partial.hash.update(&chunk[..n]);
        }
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| disk_error("can't write the download", e, &self.path))?;
        self.hash.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Forgets all bytes.
    pub fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|e| disk_error("can't start the download again", e, &self.path))?;
        self.hash = Sha256::new();
        self.len = 0;
        Ok(())
    }

    /// Whether the bytes have this SHA-256; without one there is only the length.
    pub fn check(&self, sha256: Option<&str>) -> Result<()> {
        let got: String = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        match sha256 {
            Some(want) if want != got => Err(Error::new(
                ErrorKind::Network,
                format!("the downloaded file is not the right one: sha256 {got}, expected {want}"),
            )),
            _ => Ok(()),
        }
    }

    /// Gives the file its name, with its bytes on the disk before.
    pub fn finish(self, target: &Path) -> Result<()> {
        self.file.sync_all().map_err(|e| disk_error("can't write the download", e, &self.path))?;
        drop(self.file);
        fs::rename(&self.path, target).map_err(|e| disk_error("can't name the downloaded file", e, target))?;
        sync_folder(target)
    }

    /// Removes the file.
    pub fn discard(self) -> Result<()> {
        drop(self.file);
        fs::remove_file(&self.path).map_err(|e| disk_error("can't remove the bad download", e, &self.path))
    }
}

// A rename is in the folder: without this a power cut may forget it.
#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().expect("a file has a folder");
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| disk_error("can't write the folder", e, folder))
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}

/// The error for a disk that refuses; a full one gets advice.
pub fn disk_error(what: &str, e: io::Error, path: &Path) -> Error {
    let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let denied = e.kind() == io::ErrorKind::PermissionDenied;
    let error = Error::io(what, e).at(path.display());
    match (full, denied) {
        (true, _) => error.help("make room and run the command again: it goes on where it stopped; HF_HUB_CACHE moves the cache to another disk"),
        (_, true) => error.help("HF_HUB_CACHE moves the cache to a folder you may write to"),
        _ => error,
    }
}

/// An error unless the disk of `target` has room for `bytes` more.
pub fn need_space(target: &Path, bytes: u64) -> Result<()> {
    let folder = target.parent().expect("a file has a folder");
    let Some(free) = free_space(folder) else { return Ok(()) };
    if free >= bytes.saturating_add(SPARE) || bytes == 0 {
        return Ok(());
    }
    let need = format!("the download needs {} more, the disk has {} free", term::bytes(bytes), term::bytes(free));
    Err(Error::new(ErrorKind::Io, need)
        .at(folder.display())
        .help("make room, take a smaller quantization, or move the cache with HF_HUB_CACHE"))
}

#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

// Elsewhere a full disk shows when it is full: the partial file stays, and the error says what to do.
#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_fits_no_disk_is_refused_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("blob");
        assert!(need_space(&target, 0).is_ok());
        if cfg!(unix) {
            let e = need_space(&target, 1 << 60).unwrap_err().to_string();
            assert!(e.contains("free") && e.contains("HF_HUB_CACHE"), "{e}");
        }
    }

    #[test]
    fn a_full_disk_says_what_to_do() {
        let e = disk_error("can't write the download", io::ErrorKind::StorageFull.into(), Path::new("x")).to_string();
        assert!(e.contains("make room") && e.contains("where it stopped"), "{e}");
    }

    #[test]
    fn a_partial_file_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("blob");
        let mut partial = Partial::open(&target, 6).unwrap();
        partial.write(b"abc").unwrap();
        drop(partial);
        let mut partial = Partial::open(&target, 6).unwrap();
        assert_eq!(partial.len, 3);
        partial.write(b"def").unwrap();
        // printf abcdef | sha256sum
        partial.check(Some("bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721")).unwrap();
        assert!(partial.check(Some(&"0".repeat(64))).is_err());
        partial.finish(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"abcdef");
        drop(Partial::open(&target, 6).unwrap().write(b"longer than six"));
        assert_eq!(Partial::open(&target, 6).unwrap().len, 0);
    }
}
