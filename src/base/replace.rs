//! Small files that are replaced as a whole.

use std::io::Result;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Puts `bytes` into the file at `path`, whose folder is made. They are written beside it first, under a name that no other writer has,
/// so that nobody reads half of it; where that fails, the file is as it was.
pub fn replace(path: &Path, bytes: impl AsRef<[u8]>) -> Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.{number}.part", std::process::id()));
    let beside = path.with_file_name(name);
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path)).inspect_err(|_| {
        // The first error is the one that matters.
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/file");
        replace(&path, b"first").expect("written");
        replace(&path, b"second").expect("written");
        assert_eq!(std::fs::read(&path).expect("a file"), b"second");
        // A folder in its place cannot be replaced, and nothing is left beside it.
        let taken = folder.path().join("deep/taken");
        std::fs::create_dir_all(taken.join("full")).expect("a folder");
        replace(&taken, b"third").expect_err("it is a folder");
        let left = std::fs::read_dir(folder.path().join("deep")).expect("a folder").count();
        assert_eq!(left, 2);
    }
}
