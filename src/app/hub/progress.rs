//! How far long work is: a bar for people, plain lines for logs, both on stderr.

use crate::app::term::{self, Stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// A bar for `count` things; for logs one line.
pub fn counted(doing: &str, what: &str, count: usize, things: &str) -> ProgressBar {
    if !Stream::Stderr.is_terminal() {
        term::note(format_args!("{doing} {what}: {count} {things}"));
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(count as u64), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template("{prefix} {msg} [{bar:30}] {pos}/{len}").expect("a valid template");
    bar.with_style(style.progress_chars("=> ")).with_prefix(doing.to_owned()).with_message(what.to_owned())
}

/// Tells how far one file is.
pub struct Progress {
    label: String,
    total: u64,
    done: u64,
    tenths: u64,
    show: Show,
}

enum Show {
    Bar(ProgressBar),
    Lines,
    Nothing,
}

impl Progress {
    /// For a file of `total` bytes called `label`; `doing` says what happens to it. `quiet` shows nothing.
    pub fn new(doing: &str, label: &str, total: u64, quiet: bool) -> Progress {
        let show = match (quiet, Stream::Stderr.is_terminal()) {
            (true, _) => Show::Nothing,
            (false, true) => Show::Bar(bar(label, total)),
            (false, false) => Show::Lines,
        };
        if matches!(show, Show::Lines) {
            term::note(format_args!("{doing} {label}, {}", term::bytes(total)));
        }
        Progress { label: label.into(), total, done: 0, tenths: 0, show }
    }

    /// `done` bytes are there; less than before after a restart.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        match &self.show {
            Show::Bar(bar) => bar.set_position(done),
            Show::Lines => {
                let tenths = self.tenths_done();
                if tenths > self.tenths && tenths < 10 {
                    term::note(format_args!("{}: {} %", self.label, tenths * 10));
                }
                self.tenths = tenths;
            }
            Show::Nothing => {}
        }
    }

    /// `done` bytes were there before: they say nothing about the speed.
    pub fn resume(&mut self, done: u64) {
        if let Show::Bar(bar) = &self.show {
            bar.reset_eta();
        }
        self.tenths = 0;
        self.set(done);
    }

    /// Says something between two states of the bar.
    pub fn say(&self, text: &str) {
        match &self.show {
            Show::Bar(bar) => bar.suspend(|| term::note(text)),
            Show::Lines => term::note(text),
            Show::Nothing => {}
        }
    }

    fn tenths_done(&self) -> u64 {
        (self.done as u128 * 10 / self.total.max(1) as u128) as u64
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        match &self.show {
            Show::Bar(bar) if self.done >= self.total => bar.finish(),
            Show::Bar(bar) => bar.abandon(),
            Show::Lines if self.done >= self.total => term::note(format_args!("{}: done", self.label)),
            Show::Lines | Show::Nothing => {}
        }
    }
}

fn bar(label: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let template = "{msg}  {bar:30}  {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  ETA {eta}";
    bar.set_style(ProgressStyle::with_template(template).expect("a valid template").progress_chars("=> "));
    bar.set_message(label.to_string());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
