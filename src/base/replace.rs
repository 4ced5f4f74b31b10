//! Files that are replaced as a whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Temporary files that are being written.
struct Unfinished(Mutex<Vec<PathBuf>>);

static UNFINISHED: Unfinished = Unfinished(Mutex::new(Vec::new()));

impl Unfinished {
    fn paths(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// No file is made or renamed while what this gives is held.
    fn remove(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        let mut paths = self.paths();
        paths.drain(..).for_each(|path| drop(fs::remove_file(path)));
        paths
    }
}

/// Removes the temporary files of all replacements that are under way. They wait from now on, as do later ones: for a process that ends next.
pub fn remove_unfinished() {
    std::mem::forget(UNFINISHED.remove());
}

/// Puts `bytes` into the file at `path`, as [`replace_with`] does. Makes the folder if it is missing.
pub fn replace(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    replace_with(path, |e| e, |out| out.write_all(bytes.as_ref()))
}

/// Replaces the file at `path` by what `write` writes: into a temporary file in the same folder, under a name that no other writer has, which is
/// flushed to the disk and then renamed. So nobody reads half of it; if anything fails, the file stays as it was and the temporary one is removed.
/// `failed` makes the caller's error of the system's.
pub fn replace_with<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    replace_by(&UNFINISHED, path, |path| File::create(path), failed, write)
}

/// As [`replace_with`], but on Unix only its owner may read the file, even if others may read the one before it.
pub fn replace_private<E>(
    path: &Path,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let create = |path: &Path| {
        // A file that is there already, of a process that was killed, would keep its mode.
        let _ = fs::remove_file(path);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)
    };
    replace_by(&UNFINISHED, path, create, failed, write)
}

fn replace_by<E>(
    unfinished: &Unfinished,
    path: &Path,
    create: impl Fn(&Path) -> io::Result<File>,
    failed: impl Fn(io::Error) -> E,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.{number}.part", std::process::id()));
    let temporary = path.with_file_name(name);
    let write_and_rename = || {
        let mut paths = unfinished.paths();
        let file = create(&temporary).map_err(&failed)?;
        paths.push(temporary.clone());
        drop(paths);
        let mut out = BufWriter::with_capacity(1 << 20, file);
        write(&mut out)?;
        let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
        file.sync_all().map_err(&failed)?;
        drop(file);
        let _paths = unfinished.paths();
        fs::rename(&temporary, path).map_err(&failed)
    };
    let result = write_and_rename().inspect_err(|_| {
        // The first error is the one that matters.
        let _ = fs::remove_file(&temporary);
    });
    unfinished.paths().retain(|path| *path != temporary);
    result?;
    // The rename itself reaches the disk with the folder; where folders can't be synced, this is all there is.
    #[cfg(unix)]
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_private_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        replace(&path, b"everybody's").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("its owner may");
        replace_private(&path, |e| e, |out| out.write_all(b"mine")).expect("written");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&path).expect("a file"), b"mine");
    }

    #[test]
    fn a_process_that_ends_leaves_no_half_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, unfinished) = (folder.path().join("file"), Unfinished(Mutex::default()));
        fs::write(&path, b"before").expect("written");
        let write = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            drop(unfinished.remove());
            assert_eq!(fs::read_dir(&folder)?.count(), 1);
            Ok(())
        };
        replace_by(&unfinished, &path, |path| File::create(path), |e: io::Error| e, write).expect_err("it is gone");
        assert_eq!(fs::read(&path).expect("a file"), b"before");
        assert!(unfinished.0.lock().expect("no panic").is_empty());
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/file");
        replace(&path, b"first").expect("written");
        replace(&path, b"second").expect("written");
        replace_with(&path, |e| e, |out| out.write_all(b"half").and(Err(io::Error::other("no more"))))
            .expect_err("it fails");
        assert_eq!(fs::read(&path).expect("a file"), b"second");
        // A folder in its place cannot be replaced, and nothing is left beside it.
        let taken = folder.path().join("deep/taken");
        fs::create_dir_all(taken.join("full")).expect("a folder");
        replace(&taken, b"third").expect_err("it is a folder");
        let left = fs::read_dir(folder.path().join("deep")).expect("a folder").count();
        assert_eq!(left, 2);
    }
}
