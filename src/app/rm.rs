//! `rm`: a model out of the cache.

use super::hub::name::ModelName;
use super::hub::remove;
use super::{pull, term};
use crate::base::{Error, Result};
use clap::Args;
use std::io;

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct RmArgs {
    /// hf:user/repo:QUANT or an alias; without QUANT all GGUF files of the repository.
    name: String,
    /// Remove without asking. Off a terminal nothing is asked.
    #[arg(short, long, env = "WGPU_LLM_YES")]
    yes: bool,
}

/// Removes the model, asking first on a terminal.
pub fn run(args: &RmArgs) -> Result<()> {
    let name = pull::on_hub(&ModelName::parse(&args.name)?)?;
    let hub = pull::hub(true)?;
    let removal = remove::plan(hub.cache(), &name)?;
    let what = format!("{name}, {}", term::bytes(removal.bytes));
    if !args.yes && term::is_interactive() && !confirmed(&what)? {
        return Err(Error::usage("nothing removed"));
    }
    remove::remove(hub.cache(), &name.repo, &removal)?;
    term::note(format_args!("removed {what}"));
    Ok(())
}

fn confirmed(what: &str) -> Result<bool> {
    term::print(format_args!("remove {what}? [y/N] "))?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|e| Error::io("can't read the answer", e))?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
