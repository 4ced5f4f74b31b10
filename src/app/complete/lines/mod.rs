//! `complete --parallel`: each line of a text is a prompt. Answers are printed in the order of the prompts, a line each.

mod printer;

use super::CompleteArgs;
use super::several::{self, Ask, Completed, Job};
use crate::app::hub::progress::counted;
use crate::app::{input, load, term};
use crate::base::{Error, ErrorKind, Result};
use crate::chat::ResponseStream;
use crate::run::batcher::Request;
use crate::run::schedule::FinishReason;
use crate::sample::SamplerOptions;
use crate::text::{StopStrings, Tokenizer};
use printer::{Printer, failure, plain, record};
use serde_json::{Value as Json, json};
use std::borrow::Cow;

/// Answers the lines of the text that is meant.
pub fn run(args: &CompleteArgs, parallel: usize) -> Result<()> {
    if args.text.prompt.is_some() {
        let error = Error::usage("--parallel answers the lines of a file, and -p is one text");
        return Err(error.help("put prompts into a file for -f, a line each, or leave out --parallel"));
    }
    let sampling = args.sampling.options()?;
    let text = args.text.read()?;
    let prompts: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let (model, mut batcher) = load::batcher(&args.engine, parallel)?;
    let (tokenizer, context) = (model.tokenizer()?, batcher.scheduler().context());
    // What makes no sense for this model fails once, not for each line.
    model.sampler(&sampling, context)?;
    let bar = counted("answering", &input::place(args.text.file.as_deref()), prompts.len(), "prompts");
    let printer = Printer::new(args.json, bar);
    let mut lines = Lines { args, tokenizer, sampling, context, prompts, next: 0, printer, failed: 0, full: 0 };
    let done = several::run(&mut batcher, parallel, &mut lines);
    lines.printer.bar.finish_and_clear();
    if done.is_err() {
        // That it cannot be printed is not what ended the work.
        let _ = lines.printer.print_rest();
    }
    let totals = load::finish_batcher(&args.engine, &mut batcher, done)?;
    term::check_interrupt()?;
    if lines.full > 0 {
        let n = lines.full;
        term::warn(format_args!("{n} of the answers end because the context of {context} tokens is full (-c)"));
    }
    term::note(totals);
    match lines.failed {
        0 => Ok(()),
        n => {
            Err(Error::format(format!("{n} of {} prompts have no answer", lines.prompts.len()))
                .help("their lines say why"))
        }
    }
}

/// The prompts, and what became of them.
struct Lines<'t> {
    args: &'t CompleteArgs,
    tokenizer: &'t Tokenizer,
    sampling: SamplerOptions,
    context: usize,
    prompts: Vec<&'t str>,
    /// The first that is not submitted.
    next: usize,
    printer: Printer,
    /// Prompts without an answer, and answers that end because the context is full.
    failed: usize,
    full: usize,
}

impl<'t> Job<'t> for Lines<'t> {
    type Key = usize;

    fn next(&mut self) -> Result<Option<Ask<'t, usize>>> {
        while let Some(line) = self.prompts.get(self.next) {
            let index = self.next;
            self.next += 1;
            match self.tokens(line) {
                Ok(prompt) if prompt.len() > self.context => {
                    let sizes = json!({"prompt_tokens": prompt.len(), "context": self.context});
                    self.fail(index, &several::too_long(prompt.len(), self.context), sizes)?;
                }
                Ok(prompt) => {
                    let seed = self.sampling.seed.map(|seed| seed.wrapping_add(index as u64));
                    let sampling = SamplerOptions { seed, ..self.sampling.clone() };
                    let limit = self.args.n_predict.limit();
                    let request = Request { sampling, cache_answer: false, ..Request::new(prompt, limit) };
                    let response = ResponseStream::plain(self.tokenizer, StopStrings::default());
                    return Ok(Some(Ask { key: index, request, response }));
                }
                Err(e) => self.fail(index, &several::of_request(e)?, json!({}))?,
            }
        }
        Ok(None)
    }

    fn answered(&mut self, index: usize, answer: Result<Completed>) -> Result<()> {
        match answer {
            Ok(answer) => {
                self.full += usize::from(answer.finish == FinishReason::Context);
                let line = if self.args.json { record(index, &answer).to_string() } else { plain(&answer.content) };
                self.printer.add(index, line)
            }
            Err(e) => self.fail(index, &e, json!({})),
        }
    }
}

impl Lines<'_> {
    /// The tokens of a line.
    fn tokens(&self, line: &str) -> Result<Vec<u32>> {
        let text = prompt_of(line)?;
        self.tokenizer.encode(&[self.args.text.segment(&text)], true)
    }

    /// Puts an error in the place of an answer; `more` is said of it in JSON.
    fn fail(&mut self, index: usize, error: &Error, more: Json) -> Result<()> {
        self.failed += 1;
        self.printer.add(index, failure(self.args.json, index, &error.to_string(), more))
    }
}

/// The prompt that a line stands for: itself, or the text of a JSON string.
fn prompt_of(line: &str) -> Result<Cow<'_, str>> {
    if !line.starts_with('"') {
        return Ok(line.into());
    }
    let text = serde_json::from_str::<String>(line).map_err(|e| {
        let error = Error::new(ErrorKind::Format, "a prompt that begins with \" is a JSON string, and this is none");
        error.because(e).help("end it with \", with \\\" for each \" within")
    })?;
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_prompt_as_it_stands_or_a_json_string() {
        assert_eq!(prompt_of(" say \"hi\" ").unwrap(), " say \"hi\" ");
        assert_eq!(prompt_of(r#""two\nlines""#).unwrap(), "two\nlines");
        let error = prompt_of("\"open").unwrap_err();
        assert!(error.to_string().contains("is a JSON string") && error.kind() == ErrorKind::Format, "{error}");
    }
}
