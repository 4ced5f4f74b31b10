//! `complete --batch-file`: a file of requests, several of which are answered at a time, into another file. What was answered before is
//! not answered again, so a job that was stopped goes on where it was.

mod answers;
mod request;

use super::CompleteArgs;
use super::several::{self, Ask, Completed, Job};
use crate::app::hub::progress::counted;
use crate::app::{chat, input, load, term};
use crate::base::{Error, Result};
use crate::chat::ResponseStream;
use crate::model::Model;
use crate::run::batcher::Request;
use crate::sample::SamplerOptions;
use crate::text::{ChatTemplate, StopStrings, Tokenizer};
use answers::{Answers, failure, success};
use indicatif::ProgressBar;
use request::{Body, Line, Url};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

/// Answers all requests that have no answer yet, up to `parallel` at a time.
pub fn run(
    args: &CompleteArgs,
    requests: &Path,
    answers: &Path,
    template: Option<&OsStr>,
    parallel: usize,
) -> Result<()> {
    let text = input::file(requests)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let (all, base, answers) = (lines.len(), args.sampling.options()?, Answers::open(answers)?);
    let (model, mut batcher) = load::batcher(&args.engine, parallel)?;
    let mut job = Requests {
        args,
        model: &model,
        tokenizer: model.tokenizer()?,
        context: batcher.scheduler().context(),
        base,
        template: template.map(|name| chat::template(&model, Some(name))).transpose()?,
        lines: lines.into_iter().zip(1..),
        answers,
        seen: HashSet::new(),
        bar: counted("answering", &input::place(Some(requests)), all, "requests"),
        answered: 0,
        failed: 0,
    };
    let result = several::run(&mut batcher, parallel, &mut job);
    job.bar.finish_and_clear();
    let totals = load::finish_batcher(&args.engine, &mut batcher, result)?;
    let Requests { answered, failed, .. } = job;
    let before = all - answered;
    let kept = if before == 0 { String::new() } else { format!(", {before} were there before") };
    let errors = if failed == 0 { String::new() } else { format!(", {failed} of them errors") };
    term::note(format_args!("{answered} answers{errors}{kept}"));
    if answered > failed {
        term::note(totals);
    }
    Ok(())
}

/// What is known of a request under way.
pub struct Asked {
    custom_id: String,
    url: Url,
    model: Option<String>,
    /// The number of its line.
    number: usize,
}

/// The requests, and the file of their answers.
struct Requests<'t, L> {
    args: &'t CompleteArgs,
    model: &'t Model,
    tokenizer: &'t Tokenizer,
    context: usize,
    base: SamplerOptions,
    /// The chat template, once it is known.
    template: Option<ChatTemplate>,
    lines: L,
    answers: Answers,
    /// Ids of the lines before.
    seen: HashSet<String>,
    bar: ProgressBar,
    answered: usize,
    failed: usize,
}

impl<'t, L: Iterator<Item = (&'t str, usize)>> Job<'t> for Requests<'t, L> {
    type Key = Asked;

    fn next(&mut self) -> Result<Option<Ask<'t, Asked>>> {
        while let Some((line, number)) = self.lines.next() {
            let request = match Line::read(line) {
                Ok(request) => request,
                Err((id, e)) => {
                    self.fail(id, format!("line {number}: {e}"))?;
                    continue;
                }
            };
            if !self.seen.insert(request.custom_id.clone()) {
                self.fail(Some(request.custom_id), format!("line {number}: another line has this custom_id"))?;
                continue;
            }
            if self.answers.has(&request.custom_id) {
                self.bar.inc(1);
                continue;
            }
            let Line { custom_id, url, body, .. } = request;
            match self.ask(url, &body) {
                Ok((request, response)) => {
                    let key = Asked { custom_id, url, model: body.model, number };
                    return Ok(Some(Ask { key, request, response }));
                }
                Err(e) => self.fail(Some(custom_id), several::of_request(e)?.to_string())?,
            }
        }
        Ok(None)
    }

    fn answered(&mut self, asked: Asked, answer: Result<Completed>) -> Result<()> {
        match answer {
            Ok(answer) => {
                self.answered += 1;
                self.bar.inc(1);
                self.answers.add(&success(asked, answer))
            }
            Err(e) => self.fail(Some(asked.custom_id), e.to_string()),
        }
    }
}

impl<'t, L> Requests<'t, L> {
    /// The request, and what makes a text of its tokens.
    fn ask(&mut self, url: Url, body: &Body) -> Result<(Request, ResponseStream<'t>)> {
        let stops = StopStrings::new(body.stops());
        let (prompt, response) = match url {
            Url::Chat => self.chat(body, stops)?,
            Url::Completion => self.complete(body, stops)?,
        };
        if prompt.len() > self.context {
            return Err(several::too_long(prompt.len(), self.context));
        }
        let limit = body.max_tokens.unwrap_or(self.args.n_predict.limit());
        let sampling = body.sampling(&self.base);
        Ok((Request { sampling, cache_answer: false, ..Request::new(prompt, limit) }, response))
    }

    fn chat(&mut self, body: &Body, stops: StopStrings) -> Result<(Vec<u32>, ResponseStream<'t>)> {
        let messages = body.messages.as_ref().filter(|_| body.prompt.is_none());
        let messages = messages.ok_or_else(|| Error::usage("this address wants messages, and no prompt"))?;
        if messages.is_empty() {
            return Err(Error::usage("there are no messages"));
        }
        let template = match self.template.take() {
            Some(template) => template,
            None => self.model.chat_template()?,
        };
        let template = self.template.insert(template);
        let (prompt, opened) = self.model.prompt(template, messages, None)?;
        Ok((prompt, ResponseStream::new(self.tokenizer, template, opened, stops)))
    }

    fn complete(&self, body: &Body, stops: StopStrings) -> Result<(Vec<u32>, ResponseStream<'t>)> {
        let text = body.prompt.as_ref().filter(|_| body.messages.is_none());
        let text = text.ok_or_else(|| Error::usage("this address wants a prompt, and no messages"))?;
        let prompt = self.tokenizer.encode(&[self.args.text.segment(text)], true)?;
        Ok((prompt, ResponseStream::plain(self.tokenizer, stops)))
    }

    fn fail(&mut self, custom_id: Option<String>, message: String) -> Result<()> {
        self.answered += 1;
        self.failed += 1;
        self.bar.inc(1);
        self.answers.add(&failure(custom_id, message))
    }
}
