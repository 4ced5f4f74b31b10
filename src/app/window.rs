//! The profiler's window: another program, `wgpu-llm-profiler`, that gets records through a pipe.
//!
//! Windows are events of the main thread on some systems, and the terminal's chat has that one here; a window that crashes takes no
//! chat with it; and the library's users need not build one. A thread writes to the pipe: nobody who computes waits for it.

use super::term;
use crate::base::{Error, Result};
use crate::profile::Record;
use std::ffi::OsStr;
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PROGRAM: &str = "wgpu-llm-profiler";

/// What the window has for the rest of the records after Ctrl-C: plenty where it takes them at all.
const GRACE: Duration = Duration::from_millis(300);
/// After this a person is told what the program waits for.
const LONG: Duration = Duration::from_secs(2);

/// A window that is open, or was.
pub struct Window {
    child: Child,
    writer: Option<JoinHandle<()>>,
    complaints: Option<JoinHandle<String>>,
}

/// Opens a window that shows what the sender is given.
pub fn live() -> Result<(Sender<Record>, Window)> {
    let mut window = Window::open([OsStr::new("-")], Stdio::piped())?;
    let (sender, records) = mpsc::channel();
    let pipe = window.child.stdin.take();
    window.writer = pipe.map(|pipe| std::thread::spawn(move || write(&records, pipe)));
    Ok((sender, window))
}

/// Opens a window that shows trace files, and stays until it is closed.
pub fn files(paths: &[PathBuf]) -> Result<()> {
    Window::open(paths, Stdio::null())?.wait()
}

impl Window {
    fn open<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, stdin: Stdio) -> Result<Window> {
        let mut command = Command::new(program());
        command.args(args).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped());
        // Ctrl-C in the terminal stops an answer; the window stays.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|e| {
            Error::io(format!("can't start {PROGRAM}, which opens the window"), e).help(
                "`cargo build --release` makes it beside wgpu-llm, `cargo install --path tools/profiler` installs it; \
                 without it, use --profile-json or --trace",
            )
        })?;
        let stderr = child.stderr.take();
        let complaints = stderr.map(|mut stderr| {
            std::thread::spawn(move || {
                let mut text = String::new();
                // What is not text is not for people.
                let _ = stderr.read_to_string(&mut text);
                text
            })
        });
        Ok(Window { child, writer: None, complaints })
    }

    /// Sees to it that all records are written; the window stays open. To be called when the sender is gone.
    pub fn finish(&mut self) {
        self.finish_writing();
        if let Ok(Some(_)) = self.child.try_wait()
            && let Err(e) = self.result()
        {
            term::warn(e);
        }
    }

    /// Waits until the window is closed; Ctrl-C closes it.
    pub fn wait(mut self) -> Result<()> {
        self.finish_writing();
        while let Ok(None) = self.child.try_wait() {
            if term::interrupted() {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.result()
    }

    fn finish_writing(&mut self) {
        if let Some(writer) = self.writer.take()
            && written(&writer, &term::interrupted)
        {
            let _ = writer.join();
        }
    }

    /// How the program ended.
    fn result(&mut self) -> Result<()> {
        let status = self.child.wait().map_err(|e| Error::io(format!("can't wait for {PROGRAM}"), e))?;
        if status.success() {
            return Ok(());
        }
        let told = self.complaints.take().and_then(|c| c.join().ok()).unwrap_or_default();
        let why = told.lines().rev().find_map(|l| l.strip_prefix("error: ")).unwrap_or("it ended early").to_owned();
        Err(Error::unsupported(why).help("--profile-json and --trace write to files, without a window"))
    }
}

/// Beside this program, where cargo puts it; else wherever the system looks.
fn program() -> PathBuf {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(&name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// Waits until `writer` is done; whether it is. A window that hangs takes no records: then only `stop` ends the wait.
fn written(writer: &JoinHandle<()>, stop: &dyn Fn() -> bool) -> bool {
    let began = Instant::now();
    let mut told = false;
    while !writer.is_finished() {
        if began.elapsed() >= GRACE && stop() {
            return false;
        }
        if !told && began.elapsed() >= LONG {
            term::note("the window is slow to take what was recorded; Ctrl-C leaves without");
            told = true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Writes records, a line each, until there are no more or nobody reads them.
fn write(records: &Receiver<Record>, pipe: ChildStdin) {
    let mut pipe = BufWriter::new(pipe);
    while let Ok(record) = records.recv() {
        let line = serde_json::to_string(&record).expect("records are plain data");
        if writeln!(pipe, "{line}").and_then(|()| pipe.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_hangs_holds_nobody_up_after_ctrl_c() {
        let (sender, receiver) = mpsc::channel::<()>();
        let writer = std::thread::spawn(move || while receiver.recv().is_ok() {});
        assert!(!written(&writer, &|| true), "it hangs");
        drop(sender);
        assert!(written(&writer, &|| false), "it does not, and nobody stops it");
        assert!(written(&writer, &|| true), "what is done already counts");
    }
}
