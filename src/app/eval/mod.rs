//! `eval`: logits at positions, the tool for checking against other runtimes.

mod sequences;

use super::load::{self, EngineArgs};
use super::term;
use crate::base::{Error, Result};
use clap::Args;
use sequences::Job;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Token ids, separated by commas.
    #[arg(
        long,
        value_name = "IDS",
        value_delimiter = ',',
        required_unless_present = "sequences",
        env = "WGPU_LLM_TOKENS"
    )]
    tokens: Vec<u32>,
    /// A file with several sequences over a common prefix, - for standard input: {"prefix":[1,2],"continuations":[[3],[4,5]],"positions":"last",
    /// "then":[{"remove":{"seq":1,"n":1},"continuation":[6]},{"copy":{"from":0,"to":1},"continuation":[7]}]}. positions is "last" or "all"; remove
    /// drops the last n tokens of sequence seq, copy makes sequence `to` what `from` is, and the continuation follows. Prints JSON.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tokens", "positions"], env = "WGPU_LLM_SEQUENCES")]
    sequences: Option<PathBuf>,
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
    let mut engine = args.engine.clone();
    engine.context.ubatch_size = args.chunk.unwrap_or(engine.context.ubatch_size).min(engine.context.ubatch_size);
    if let Some(path) = &args.sequences {
        let job = Job::read(path)?;
        let mut session = load::session(&engine)?;
        let results = job.run(&mut session);
        let results = load::finish(&engine, &mut session, results)?;
        return term::print(format_args!("{}\n", serde_json::to_string(&results).expect("plain data")));
    }
    let positions = positions(args)?;
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
