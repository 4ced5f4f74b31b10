//! `pull`: a model into the cache, or its newest version.

use super::args::ModelArgs;
use super::hub::Hub;
use super::hub::config::Config;
use super::hub::name::{HubName, ModelName};
use super::term;
use crate::base::{Error, Result};
use clap::Args;

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// hf:user/repo:QUANT or an alias. Default: the default model.
    name: Option<String>,
    /// Print the result as JSON.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Fetches the model and prints its path.
pub fn run(args: &PullArgs) -> Result<()> {
    // A name written here wins over one from the environment.
    let model = match &args.name {
        Some(name) => ModelArgs { model: Some(name.into()), hf_repo: None, hf_file: None, ..args.model.clone() },
        None => args.model.clone(),
    };
    let name = on_hub(&model.name()?)?;
    let found = hub(model.offline)?.pull(&name)?;
    if args.json {
        return term::print(format_args!("{}\n", super::ls::json(&found)));
    }
    term::note(format_args!("{}, {}", found.name(), term::bytes(found.size)));
    term::print(format_args!("{}\n", found.paths[0].display()))
}

/// The hub of this environment.
pub fn hub(offline: bool) -> Result<Hub> {
    let mut config = Config::from_env()?;
    config.offline |= offline;
    Ok(Hub::new(config))
}

/// The name on the hub; an error for a file, which needs no fetching and is not the cache's to remove.
pub fn on_hub(name: &ModelName) -> Result<HubName> {
    match name {
        ModelName::Hub(name) => Ok(name.clone()),
        ModelName::Path(path) => Err(Error::usage("this is a file, not a model of the cache")
            .at(path.display())
            .help("name hf:user/repo:QUANT or an alias")),
    }
}
