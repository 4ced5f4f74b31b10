//! `complete`: goes on with a text as it stands, without a chat template.

use super::args::Length;
use super::input::TextArgs;
use super::load::{self, EngineArgs};
use super::sampling::SamplingArgs;
use super::term;
use crate::base::Result;
use crate::run::{Generation, Session};
use crate::text::{DetokenizeOptions, Detokenizer};
use clap::Args;
use serde_json::json;
use std::ops::ControlFlow;

/// Arguments of `complete`.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// What is gone on with.
    #[command(flatten)]
    pub text: TextArgs,
    /// New tokens at most; -1 for as many as the model wants, -2 until the context is full.
    #[arg(short, long, value_name = "N", default_value = "128", env = "WGPU_LLM_N_PREDICT")]
    n_predict: Length,
    /// Print one JSON object instead of the text as it comes.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
    /// What runs where.
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

/// Prints the continuation as it comes.
pub fn run(args: &CompleteArgs) -> Result<()> {
    let text = args.text.read()?;
    args.sampling.options()?;
    let mut session = load::session(&args.engine)?;
    let done = go_on(args, &text, &mut session);
    load::finish(&args.engine, &mut session, done)?;
    term::check_interrupt()
}

/// The same with a text and in a session that are there already.
pub fn go_on(args: &CompleteArgs, text: &str, session: &mut Session) -> Result<()> {
    let options = args.sampling.options()?;
    let model = session.model().clone();
    let tokenizer = model.tokenizer()?;
    let prompt = tokenizer.encode(&[args.text.segment(text)], true)?;
    let mut chain = session.model().sampler(&options, session.context())?;
    let mut out = Detokenizer::new(tokenizer, DetokenizeOptions { show_special: false, continued: true });
    let mut written = String::new();
    let mut failed = None;
    let answer = session.generate(&prompt, &mut chain, args.n_predict.limit(), &mut |token| {
        let piece = out.push(token);
        let told = if args.json {
            written.push_str(piece);
            Ok(())
        } else {
            term::print(piece)
        };
        failed = told.err();
        if failed.is_some() || term::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(e) = failed {
        return Err(e);
    }
    let rest = out.finish();
    if args.json {
        written.push_str(rest);
        let record = json!({
            "text": written, "tokens": answer.tokens, "prompt_tokens": prompt.len(), "seed": chain.seed(),
            "stop": format!("{:?}", answer.finish).to_lowercase(),
        });
        term::print(format_args!("{record}\n"))?;
    } else {
        term::print(format_args!("{rest}\n"))?;
    }
    term::note(speed(&answer));
    Ok(())
}

/// How fast an answer came, in words.
pub fn speed(answer: &Generation) -> String {
    let rate = |n: usize, t: std::time::Duration| n as f64 / t.as_secs_f64().max(1e-9);
    let decoded = answer.tokens.len().saturating_sub(1);
    let n = answer.prompt_tokens;
    let prompt = format!("{n} prompt token{} at {:.1} t/s", if n == 1 { "" } else { "s" }, rate(n, answer.prompt_time));
    match decoded {
        0 => prompt,
        n => format!("{prompt}, {} new at {:.1} t/s", answer.tokens.len(), rate(n, answer.decode_time)),
    }
}
