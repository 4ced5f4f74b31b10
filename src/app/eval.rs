//! `eval`: logits at positions, the tool for checking against other runtimes.

use super::load::{self, EngineArgs};
use super::term;
use crate::base::{Error, Result};
use clap::Args;
use serde_json::json;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Token ids, separated by commas.
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true, env = "WGPU_LLM_TOKENS")]
    tokens: Vec<u32>,
    /// Places whose logits are wanted: all, or numbers separated by commas. Default: the last.
    #[arg(long, value_name = "all|N,N", env = "WGPU_LLM_POSITIONS")]
    positions: Option<String>,
    /// Feed the tokens in pieces of this many.
    #[arg(long, value_name = "N", env = "WGPU_LLM_CHUNK", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: Option<u32>,
    /// Print JSON, with all logits.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Computes and prints the logits.
pub fn run(args: &EvalArgs) -> Result<()> {
    let positions = positions(args)?;
    let mut engine = args.engine.clone();
    engine.context.ubatch_size = args.chunk.unwrap_or(engine.context.ubatch_size).min(engine.context.ubatch_size);
    let mut session = load::session(&engine)?;
    let logits = session.logits(&args.tokens, &positions);
    let logits = load::finish(&engine, &mut session, logits)?;
    let argmax: Vec<usize> = logits.iter().map(|row| best(row)).collect();
    if args.json {
        return term::print(format_args!("{}\n", json!({"positions": positions, "logits": logits, "argmax": argmax})));
    }
    let mut rows = vec![["POSITION", "BEST", "LOGIT"].map(String::from).to_vec()];
    for (i, position) in positions.iter().enumerate() {
        rows.push(vec![position.to_string(), argmax[i].to_string(), format!("{:.4}", logits[i][argmax[i]])]);
    }
    term::print(term::table(&rows))
}

/// Ascending places of the tokens.
fn positions(args: &EvalArgs) -> Result<Vec<usize>> {
    let n = args.tokens.len();
    let mut places: Vec<usize> = match args.positions.as_deref() {
        None => vec![n - 1],
        Some("all") => (0..n).collect(),
        Some(list) => {
            let number = |s: &str| s.trim().parse().ok().filter(|p| *p < n);
            let places: Option<Vec<usize>> = list.split(',').map(number).collect();
            places.ok_or_else(|| {
                Error::usage(format!(
                    "--positions {list}: write all, or places from 0 to {} separated by commas",
                    n - 1
                ))
            })?
        }
    };
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// The place of the greatest logit; of equal ones the first.
pub fn best(logits: &[f32]) -> usize {
    (0..logits.len()).reduce(|a, b| if logits[b] > logits[a] { b } else { a }).unwrap_or(0)
}
