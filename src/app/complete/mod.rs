//! `complete`: continues a text as it stands, without a chat template; or many, from a file of prompts or of requests.

mod batch;
mod lines;
mod several;

use super::args::Length;
use super::cache_file::CacheFile;
use super::input::TextArgs;
use super::load::{self, EngineArgs};
use super::sampling::SamplingArgs;
use super::term;
use crate::base::{Error, Result};
use crate::chat::ResponseStream;
use crate::run::schedule::FinishReason;
use crate::run::{Generation, Session};
use crate::text::StopStrings;
use clap::Args;
use serde_json::json;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Arguments of `complete`.
#[derive(Debug, Args)]
pub struct CompleteCommand {
    /// [-np] Answer up to N prompts at once, 1 to 256. Each line of -f is a prompt, a JSON string if it begins with "; empty lines are none.
    /// Answers are printed in the order of the prompts, a line each: the text, in quotes as a JSON string where it has several lines, or an
    /// object with --json. A prompt without an answer has a line with the error, and the exit code is 1. An answer does not depend on N, with the same context and split: with
    /// --seed S the first prompt has the seed S, the next one S+1, and so on. -c is the context of each.
    /// With --batch-file: N requests at once. Default there: 1.
    #[arg(long, value_name = "N", env = "WGPU_LLM_PARALLEL", value_parser = clap::value_parser!(u32).range(1..=256))]
    parallel: Option<u32>,
    /// A file of requests, a line of JSON each, - for standard input: {"custom_id":"1","url":"/v1/chat/completions","body":{"messages":[…],
    /// "max_tokens":64}}, or the url /v1/completions and a prompt; further fields: temperature, top_p, seed, stop. Instead of a text.
    #[arg(long, value_name = "FILE", requires = "answers", conflicts_with_all = ["prompt", "file", "json", "context_shift"], env = "WGPU_LLM_BATCH_FILE")]
    batch_file: Option<PathBuf>,
    /// The file for the answers to --batch-file, as they come: custom_id says whose they are, not their order. Requests whose custom_id has
    /// an answer there already are skipped; those that failed are tried again.
    #[arg(short = 'o', long, value_name = "FILE", requires = "batch_file", env = "WGPU_LLM_ANSWERS")]
    answers: Option<PathBuf>,
    /// With --batch-file, the chat template: the name of a well-known one (chatml, llama3 …), or a file. Default: the model's own.
    #[arg(long, value_name = "NAME|FILE", requires = "batch_file", env = "WGPU_LLM_CHAT_TEMPLATE")]
    chat_template: Option<OsString>,
    /// Keep what was computed in FILE: a prompt that begins as the last one did, with its answer or without, only has the rest of it computed. The
    /// file is made if it is not there, and written anew at the end. It holds the text: on Unix only its owner can
    /// read it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["parallel", "batch_file"], env = "WGPU_LLM_CACHE_FILE")]
    cache_file: Option<PathBuf>,
    #[command(flatten)]
    /// The text in its place.
    pub one: CompleteArgs,
}

/// One text, and how it goes on: also arguments of `profile`.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// What is gone on with.
    #[command(flatten)]
    pub text: TextArgs,
    /// New tokens at most; -1 for as many as the model wants, -2 until the context is full.
    #[arg(short, long, value_name = "N", default_value = "128", env = "WGPU_LLM_N_PREDICT")]
    n_predict: Length,
    /// If the context is full, forget half of what is behind the first --keep tokens, compute the rest anew, and go on.
    #[arg(long, env = "WGPU_LLM_CONTEXT_SHIFT")]
    context_shift: bool,
    /// Tokens at the beginning that --context-shift never forgets; -1 for the whole prompt. A first token that the tokenizer adds always stays.
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true, requires = "context_shift", env = "WGPU_LLM_KEEP", value_parser = clap::value_parser!(i64).range(-1..))]
    keep: i64,
    /// Print one JSON object instead of the text as it comes.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
    /// What runs where.
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

impl CompleteArgs {
    /// Refuses what only one text can have.
    fn check_parallel(&self) -> Result<()> {
        let no = |flag: &str, instead: &str| {
            let what = format!("{flag} is for one text: with --parallel an answer ends where the context is full");
            Err(Error::usage(what).help(instead))
        };
        match (self.context_shift, self.n_predict) {
            (true, _) => no("--context-shift", "leave out one of the two, or choose a larger context (-c)"),
            (_, Length::UntilFull) => no("-n -2", "write -n -1, or a number of tokens"),
            _ => Ok(()),
        }
    }
}

/// Prints the continuation as it comes.
pub fn run(command: &CompleteCommand) -> Result<()> {
    let (args, parallel) = (&command.one, command.parallel.map(|n| n as usize));
    if parallel.is_some() {
        args.check_parallel()?;
    }
    if let (Some(requests), Some(answers)) = (&command.batch_file, &command.answers) {
        let template = command.chat_template.as_deref();
        return batch::run(args, requests, answers, template, parallel.unwrap_or(1));
    }
    if let Some(parallel) = parallel {
        return lines::run(args, parallel);
    }
    let text = args.text.read()?;
    args.sampling.options()?;
    let mut cache = command.cache_file.as_deref().map(CacheFile::open).transpose()?;
    cache.as_ref().map_or(Ok(()), CacheFile::refuse_conversation)?;
    let mut session = load::session_with(&args.engine, cache.as_mut())?;
    let mut done = go_on(args, &text, &mut session);
    if let Some(cache) = cache {
        done = cache.finish(&mut session, &[], done);
    }
    load::finish(&args.engine, &mut session, done)?;
    term::check_interrupt()
}

/// The same with a text and in a session that are there already.
pub fn go_on(args: &CompleteArgs, text: &str, session: &mut Session) -> Result<()> {
    let options = args.sampling.options()?;
    let model = session.model().clone();
    let tokenizer = model.tokenizer()?;
    let prompt = tokenizer.encode(&[args.text.segment(text)], true)?;
    // What the tokenizer puts before every text.
    let added = usize::from(tokenizer.added_first().is_some() && prompt.first().copied() == tokenizer.added_first());
    let mut chain = session.model().sampler(&options, session.context())?;
    let mut out = ResponseStream::plain(tokenizer, StopStrings::default());
    let mut failed = None;
    let mut on_token = |token| {
        let piece = out.push(token).content;
        failed = if args.json { None } else { term::print(piece).err() };
        if failed.is_some() || term::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let limit = args.n_predict.limit();
    let shifts = args.context_shift && args.n_predict != Length::UntilFull;
    let keep = usize::try_from(args.keep).unwrap_or(prompt.len()).max(added);
    if shifts && keep + 2 >= session.context() {
        let what = format!("keeping {keep} tokens leaves no room in a context of {}", session.context());
        return Err(Error::usage(what).help("choose a smaller --keep, or a larger context (-c)"));
    }
    let cached = session.shared_with(&prompt);
    let mut answer = session.generate(&prompt, &mut chain, limit, &mut on_token)?;
    let mut window = [&prompt[..], &answer.tokens].concat();
    while shifts && answer.finish == FinishReason::Context && answer.tokens.len() < limit {
        shift(&mut window, keep);
        let more = session.generate(&window, &mut chain, limit - answer.tokens.len(), &mut on_token)?;
        window.extend(&more.tokens);
        answer.append(more);
    }
    if let Some(e) = failed {
        return Err(e);
    }
    let rest = out.finish().content;
    if args.json {
        let (written, _) = out.into_texts();
        let record = json!({
            "text": written, "tokens": answer.tokens, "prompt_tokens": prompt.len(), "seed": chain.seed(),
            "stop": answer.finish.name(), "truncated": answer.finish == FinishReason::Context,
        });
        term::print(format_args!("{record}\n"))?;
    } else {
        term::print(format_args!("{rest}\n"))?;
    }
    if answer.finish == FinishReason::Context {
        let context = session.context();
        term::warn(format_args!(
            "the context of {context} tokens is full: the text ends here (-c, or --context-shift)"
        ));
    }
    let cached = if cached > 0 { format!(" ({cached} more were cached)") } else { String::new() };
    term::note(speed(&answer) + &cached);
    Ok(())
}

/// Forgets half of the tokens behind the first `keep`.
fn shift(window: &mut Vec<u32>, keep: usize) {
    let keep = keep.min(window.len());
    window.drain(keep..keep + (window.len() - keep) / 2);
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
