//! `ls`: the models in the cache, downloads that have not ended, and the aliases.

use super::hub::cache::Cached;
use super::hub::name::{ALIASES, Alias, DEFAULT_MODEL};
use super::hub::unfinished::Unfinished;
use super::{pull, term};
use crate::base::Result;
use clap::Args;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// List the short names of models instead.
    #[arg(long, env = "WGPU_LLM_ALIASES")]
    aliases: bool,
    /// Print JSON.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
}

/// Prints the list.
pub fn run(args: &LsArgs) -> Result<()> {
    if args.aliases {
        return print_aliases(args.json);
    }
    let hub = pull::hub(true)?;
    let (models, begun) = (hub.cache().list(), hub.cache().unfinished());
    if args.json {
        let rows: Vec<Value> = models.iter().map(json).chain(begun.iter().map(json_of_begun)).collect();
        return term::print(format_args!("{:#}\n", Value::from(rows)));
    }
    if models.is_empty() && begun.is_empty() {
        term::note(format_args!("no models in {}; `pull` fetches one", hub.cache().root().display()));
        return Ok(());
    }
    let mut rows = vec![["NAME", "SIZE", "FETCHED"].map(String::from).to_vec()];
    rows.extend(models.iter().map(|m| vec![m.name(), term::bytes(m.size), m.modified.map(ago).unwrap_or_default()]));
    rows.extend(begun.iter().map(|u| vec![u.name(), term::bytes(u.total.unwrap_or(u.done)), progress(u)]));
    term::print(term::table(&rows))
}

/// A model as JSON, with the name that finds it and the paths of its parts.
pub fn json(model: &Cached) -> Value {
    let fetched = model.modified.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map(|d| d.as_secs());
    json!({
        "name": model.name(),
        "repo": model.repo.to_string(),
        "quant": model.candidate.quant,
        "size": model.size,
        "fetched": fetched,
        "paths": model.paths,
        "complete": true,
    })
}

/// How far an unfinished download is, in words.
fn progress(begun: &Unfinished) -> String {
    begun.percent().map_or("incomplete".into(), |percent| format!("incomplete {percent} %"))
}

/// A download that has not ended: `done` of `size` bytes are here.
fn json_of_begun(begun: &Unfinished) -> Value {
    json!({
        "name": begun.name(),
        "repo": begun.repo.to_string(),
        "quant": begun.candidate.as_ref().and_then(|c| c.quant.clone()),
        "size": begun.total,
        "fetched": null,
        "paths": [],
        "complete": false,
        "done": begun.done,
        "percent": begun.percent(),
    })
}

fn print_aliases(as_json: bool) -> Result<()> {
    let full = |row: &Alias| format!("hf:{}:{}", row.repo, row.want);
    if as_json {
        let row = |row: &Alias| json!({"alias": row.name, "name": full(row), "about": row.about, "default": row.name == DEFAULT_MODEL});
        let rows: Vec<Value> = ALIASES.iter().map(row).collect();
        return term::print(format_args!("{:#}\n", Value::from(rows)));
    }
    let mut rows = vec![["ALIAS", "MODEL", "NAME"].map(String::from).to_vec()];
    rows.extend(ALIASES.iter().map(|row| vec![row.name.into(), row.about.into(), full(row)]));
    term::print(term::table(&rows))
}

fn ago(time: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(time).unwrap_or_default().as_secs();
    match seconds {
        0..60 => "just now".into(),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86400),
    }
}
