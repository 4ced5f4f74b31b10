//! The terminal: what stdout and stderr are, colours, Ctrl-C, exit codes, and how errors are told.
//!
//! The answer goes to stdout alone; everything else to stderr. A reader that leaves early (`| head`) ends the program
//! quietly.

use crate::base::{Error, ErrorKind, Result, remove_unfinished};
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// Something failed while running.
    Failed = 1,
    /// The command line asks for something that cannot be.
    Usage = 2,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Tells `error` on stderr in one line and gives the exit code that goes with it.
pub fn report(error: &Error) -> Exit {
    if interrupted() {
        return Exit::Interrupted;
    }
    if is_broken_pipe(error) {
        return Exit::Ok;
    }
    let label = paint(Stream::Stderr, "1;31", "error:");
    // The terminal may be gone too; there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{label} {error}");
    match error.kind() {
        ErrorKind::Usage => Exit::Usage,
        _ => Exit::Failed,
    }
}

/// Tells something worth knowing that stops nothing.
pub fn warn(text: impl std::fmt::Display) {
    let label = paint(Stream::Stderr, "1;33", "warning:");
    let _ = writeln!(io::stderr(), "{label} {text}");
}

/// Tells it while an answer is being printed.
pub fn interject(text: impl std::fmt::Display) {
    // The answer's line is not at its end.
    if Stream::Stdout.is_terminal() && Stream::Stderr.is_terminal() {
        let _ = writeln!(io::stderr());
    }
    warn(text);
}

/// Keeps quiet about panics that are caught and told as errors: wgpu's, when a device is lost.
pub fn quiet_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload_as_str().is_some_and(|text| text.starts_with(crate::gpu::POLL_PANIC)) {
            tell(info);
        }
    }));
}

/// Says on stderr what is going on.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints to stdout. A closed pipe is an error, which [`report`] passes over in silence.
pub fn print(text: impl std::fmt::Display) -> Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(|e| Error::io("can't write the answer", e).at("stdout"))
}

/// Whether the reader of stdout has left.
pub fn is_broken_pipe(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|e| e.downcast_ref::<io::Error>()).is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Answers.
    Stdout,
    /// Everything else.
    Stderr,
}

impl Stream {
    /// Whether a person watches this stream.
    pub fn is_terminal(self) -> bool {
        match self {
            Stream::Stdout => io::stdout().is_terminal(),
            Stream::Stderr => io::stderr().is_terminal(),
        }
    }
}

/// Whether a person types and reads: both stdin and stdout are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// `text` in the SGR style `code` (`"2"` is dim) where the stream shows colours, else as it is.
pub fn paint(stream: Stream, code: &str, text: &str) -> String {
    let var = |name: &str| std::env::var(name).ok();
    if colours(&var, stream.is_terminal()) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

// no-color.org and bixense.com/clicolors, in their order: NO_COLOR wins, then CLICOLOR_FORCE, then the terminal.
fn colours(var: &dyn Fn(&str) -> Option<String>, terminal: bool) -> bool {
    if var("NO_COLOR").is_some_and(|v| !v.is_empty()) {
        return false;
    }
    if var("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0") {
        return true;
    }
    terminal && var("TERM").as_deref() != Some("dumb") && var("CLICOLOR").as_deref() != Some("0")
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static PRESSES: AtomicU32 = AtomicU32::new(0);

/// From now on the first Ctrl-C asks the work to stop ([`interrupted`]), and a second one ends the program.
pub fn watch_interrupts() -> Result<()> {
    ctrlc::set_handler(|| {
        INTERRUPTED.store(true, Ordering::SeqCst);
        if PRESSES.fetch_add(1, Ordering::SeqCst) > 0 {
            // Whatever it is that does not stop: the user has asked twice. The shell's prompt begins a line of its own.
            if Stream::Stderr.is_terminal() {
                let _ = writeln!(io::stderr());
            }
            remove_unfinished();
            std::process::exit(Exit::Interrupted as i32);
        }
    })
    .map_err(|e| Error::new(ErrorKind::Io, "can't watch for Ctrl-C").because(e))
}

/// Whether Ctrl-C was pressed since the last [`clear_interrupt`].
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Does what a Ctrl-C does, for a line editor that reads the key itself.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Takes note of a stop: the next Ctrl-C is a first one again. For a chat that goes on after a stopped answer.
pub fn clear_interrupt() {
    PRESSES.store(0, Ordering::SeqCst);
    INTERRUPTED.store(false, Ordering::SeqCst);
}

/// An error after Ctrl-C, so that the work unwinds; `Ok` otherwise. To be asked in loops that may last.
pub fn check_interrupt() -> Result<()> {
    if interrupted() {
        return Err(Error::io("stopped", io::ErrorKind::Interrupted.into()));
    }
    Ok(())
}

/// Sends log events to stderr, as `RUST_LOG` asks; warnings without it.
pub fn init_logs() {
    let asked = EnvFilter::try_from_default_env();
    let plain = asked.is_err();
    let var = |name: &str| std::env::var(name).ok();
    let ansi = colours(&var, Stream::Stderr.is_terminal());
    let logs = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(ansi);
    let logs = logs.with_env_filter(asked.unwrap_or_else(|_| EnvFilter::new("wgpu_llm=warn")));
    // Fails only if a subscriber is set already: then that one is wanted.
    let _ = if plain { logs.event_format(Plain).try_init() } else { logs.try_init() };
}

/// Log events that look like the program's other messages. Time and place are for who asks for logs.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (code, label) = match *event.metadata().level() {
            Level::ERROR => ("1;31", "error:"),
            _ => ("1;33", "warning:"),
        };
        write!(out, "{} ", paint(Stream::Stderr, code, label))?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// A number of bytes for people: `93.8 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Rows as a table with aligned columns, two spaces between them; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let chars = |row: &Vec<String>, c: usize| row.get(c).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = (0..columns).map(|c| rows.iter().map(|row| chars(row, c)).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_conventions() {
        let with = |vars: &'static [(&str, &str)], terminal| {
            let var = |name: &str| vars.iter().find(|(k, _)| *k == name).map(|(_, v)| v.to_string());
            colours(&var, terminal)
        };
        assert!(with(&[], true) && !with(&[], false));
        assert!(!with(&[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")], true));
        assert!(with(&[("NO_COLOR", ""), ("CLICOLOR_FORCE", "1")], false));
        assert!(!with(&[("TERM", "dumb")], true) && !with(&[("CLICOLOR", "0")], true));
    }

    #[test]
    fn bytes_are_told_in_binary_units() {
        let cases =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (98_362_432, "93.8 MiB"), (u64::MAX, "16777216.0 TiB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn only_a_broken_pipe_is_silent() {
        let pipe = Error::io("can't write", io::ErrorKind::BrokenPipe.into());
        assert!(is_broken_pipe(&pipe) && report(&pipe) == Exit::Ok);
        assert!(!is_broken_pipe(&Error::io("can't write", io::ErrorKind::StorageFull.into())));
        assert_eq!(report(&Error::usage("no such flag")), Exit::Usage);
        assert_eq!(report(&Error::format("not a GGUF file")), Exit::Failed);
    }

    #[test]
    fn tables_align() {
        let rows = [vec!["NAME".to_string(), "SIZE".into()], vec!["é".into(), "1".into()]];
        assert_eq!(table(&rows), "NAME  SIZE\né     1\n");
    }
}
