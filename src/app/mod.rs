//! Floor 11: the program: its commands, and what stands between them and people: arguments, terminal, downloads.

pub mod args;
pub mod argv;
pub mod bench;
mod cache_file;
pub mod chat;
pub mod complete;
pub mod devices;
pub mod doctor;
pub mod eval;
pub mod fit;
pub mod flags;
pub mod hub;
pub mod input;
pub mod inspect;
pub mod load;
pub mod ls;
pub mod overrides;
pub mod perplexity;
pub mod profile;
pub mod pull;
pub mod repl;
pub mod rm;
pub mod sampling;
pub mod split;
pub mod synth;
pub mod term;
pub mod tokenize;
pub mod web;
pub mod window;

use crate::base::Result;
use crate::simd::Level;
use args::{Cli, Command};
use std::process::ExitCode;
use term::Exit;

/// Runs the command that the process's arguments name, and tells how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os());
    term::init_logs();
    term::quiet_panics();
    let done = term::watch_interrupts().and_then(|()| run(&cli));
    match done {
        Ok(()) => Exit::Ok.into(),
        Err(e) => term::report(&e).into(),
    }
}

fn run(cli: &Cli) -> Result<()> {
    Level::asked()?;
    let Some(command) = &cli.command else { return devices::list(cli.json) };
    match command {
        Command::Chat(args) => chat::run(args),
        Command::Complete(args) => complete::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Fit(args) => fit::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Profile(args) => profile::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Ls(args) => ls::run(args),
        Command::Rm(args) => rm::run(args),
        Command::Web(args) => web::run(args),
    }
}
