//! `perplexity`: how well the model predicts a text, as llama.cpp defines it.
//!
//! The text is cut into pieces of a whole context; each is fed from the start (with the beginning-of-sequence token in place of
//! its first token, if the model wants one), and the tokens of its second half are scored: exp of their mean negative
//! log-likelihood.

use super::load::{self, EngineArgs};
use super::{input, term};
use crate::base::{Error, Result};
use crate::run::Session;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `perplexity`.
#[derive(Debug, Args)]
pub struct PerplexityArgs {
    /// A file with the text; - for standard input, which is read too if none is given and it is no terminal.
    #[arg(short, long, value_name = "FILE", env = "WGPU_LLM_FILE")]
    file: Option<PathBuf>,
    /// Only this many pieces; -1 for all.
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true, env = "WGPU_LLM_CHUNKS")]
    chunks: i64,
    /// Print JSON.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// llama.cpp's context for perplexity.
const CONTEXT: u32 = 512;

/// Fewest tokens of a piece whose second half has one that is predicted.
const SHORTEST: usize = 3;

/// Scores the text.
pub fn run(args: &PerplexityArgs) -> Result<()> {
    let mut engine = args.engine.clone();
    let wanted = *engine.context.ctx_size.get_or_insert(CONTEXT);
    // Before anything is read or loaded: nothing would be scored. 0 is the model's own context.
    let pieces = match args.chunks {
        0 => return Err(Error::usage("--chunks 0 leaves nothing to score").help("use 1 or more, or -1 for all pieces")),
        n => usize::try_from(n).unwrap_or(usize::MAX),
    };
    if wanted > 0 {
        check_context(wanted as usize)?;
    }
    let text = input::text(None, args.file.as_deref())?;
    let mut session = load::session(&engine)?;
    let model = session.model().clone();
    let tokens = model.tokenizer()?.encode_text(&text, true)?;
    let context = session.context();
    check_context(context)?;
    let pieces = (tokens.len() / context).min(pieces);
    if pieces == 0 {
        let what = format!("{} tokens are less than one context of {context}", tokens.len());
        return Err(Error::usage(what)
            .at(input::place(args.file.as_deref()))
            .help("use a longer text or a smaller context (-c)"));
    }
    let mut scores: Vec<f64> = Vec::new();
    for (i, piece) in tokens.chunks_exact(context).take(pieces).enumerate() {
        let mut piece = piece.to_vec();
        if let Some(first) = model.tokenizer()?.added_first() {
            piece[0] = first;
        }
        score(&mut session, &piece, &mut scores)?;
        term::check_interrupt()?;
        let so_far = (scores.iter().sum::<f64>() / scores.len() as f64).exp();
        term::note(format_args!("[{}/{pieces}] {so_far:.4}", i + 1));
    }
    load::finish(&engine, &mut session, Ok(()))?;
    let n = scores.len() as f64;
    let mean = scores.iter().sum::<f64>() / n;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let (perplexity, spread) = (mean.exp(), (variance / n).sqrt() * mean.exp());
    if args.json {
        let record = json!({
            "perplexity": perplexity, "stderr": spread, "nll": mean, "tokens": scores.len(), "chunks": pieces, "context": context,
        });
        return term::print(format_args!("{record}\n"));
    }
    term::print(format_args!("perplexity {perplexity:.4} ± {spread:.4} over {} tokens\n", scores.len()))
}

fn check_context(context: usize) -> Result<()> {
    if context >= SHORTEST {
        return Ok(());
    }
    let what = format!(
        "a context of {context} leaves nothing to score: the second half of each piece has no token that is predicted"
    );
    Err(Error::usage(what).help(format!("use -c {SHORTEST} or more")))
}

/// Adds the negative log-likelihoods of the piece's second half.
fn score(session: &mut Session, piece: &[u32], scores: &mut Vec<f64>) -> Result<()> {
    session.truncate(0);
    let rows: Vec<usize> = (piece.len() / 2..piece.len() - 1).collect();
    let logits = session.logits(piece, &rows)?;
    scores.extend(rows.iter().zip(&logits).map(|(row, logits)| nll(logits, piece[row + 1])));
    Ok(())
}

/// −ln softmax(logits) at `token`, in f64.
pub fn nll(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::MIN, f32::max) as f64;
    let sum: f64 = logits.iter().map(|v| (*v as f64 - max).exp()).sum();
    max + sum.ln() - logits[token as usize] as f64
}
