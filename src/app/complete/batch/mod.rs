//! `complete --batch-file`: a file of requests, answered one after the other into another file. What was answered before is not answered
//! again, so a job that was stopped goes on where it was.

use super::CompleteArgs;
use crate::app::hub::progress::Progress;
use crate::app::{input, load, term};
use crate::base::{Error, ErrorKind, Result};
use crate::chat::{Chat, ChatOptions, Conversation, WhenFull};
use crate::run::{FinishReason, Generation, Session};
use crate::sample::SamplerOptions;
use crate::text::{DetokenizeOptions, Detokenizer, Message, Segment, StopStrings};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// One line of the requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    custom_id: String,
    url: Url,
    body: Body,
    #[serde(default)]
    #[allow(dead_code, reason = "OpenAI's files have it; it is always POST")]
    method: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Url {
    #[serde(rename = "/v1/chat/completions")]
    Chat,
    #[serde(rename = "/v1/completions")]
    Completion,
}

/// A request, with OpenAI's names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Body {
    messages: Option<Vec<Message>>,
    prompt: Option<String>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<u64>,
    stop: Option<Stops>,
    /// Whatever it says: there is one model.
    #[allow(dead_code, reason = "requests may name it")]
    model: Option<String>,
}

/// One stop string or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stops {
    One(String),
    Several(Vec<String>),
}

impl Body {
    fn stops(&self) -> Vec<String> {
        match &self.stop {
            None => Vec::new(),
            Some(Stops::One(stop)) => vec![stop.clone()],
            Some(Stops::Several(stops)) => stops.clone(),
        }
    }

    /// How its tokens are drawn, `base` being what flags say.
    fn sampling(&self, base: &SamplerOptions) -> SamplerOptions {
        let mut options = base.clone();
        options.temp = self.temperature.unwrap_or(options.temp);
        options.top_p = self.top_p.unwrap_or(options.top_p);
        options.seed = self.seed.or(options.seed);
        options
    }
}

/// Answers all requests that have no answer yet.
pub fn run(args: &CompleteArgs, requests: &Path, answers: &Path) -> Result<()> {
    let text = input::prompt_file(requests)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let (mut file, done) = open(answers)?;
    let base = args.sampling.options()?;
    let mut session = load::session(&args.engine)?;
    let mut job = Job { session: &mut session, limit: args.n_predict.limit(), base, chat: None };
    let mut bar = Progress::new("answering", &input::place(Some(requests)), lines.len() as u64, false);
    let (mut failed, mut answered) = (0, 0);
    let result = lines.iter().enumerate().try_for_each(|(i, line)| {
        term::check_interrupt()?;
        let Some(answer) = job.line(line, i + 1, &done)? else { return Ok(()) };
        answered += 1;
        failed += usize::from(!answer["error"].is_null());
        bar.set(i as u64 + 1);
        // A whole line at once: what is stopped here leaves no half of one.
        let written = file.write_all(format!("{answer}\n").as_bytes());
        written.map_err(|e| Error::io("can't write the answer", e).at(answers.display()).help("is the disk full?"))
    });
    drop(bar);
    load::finish(&args.engine, &mut session, result)?;
    let before = lines.len() - answered;
    let kept = if before == 0 { String::new() } else { format!(", {before} were there before") };
    let errors = if failed == 0 { String::new() } else { format!(", {failed} of them errors") };
    term::note(format_args!("{answered} answers{errors}{kept}: {}", answers.display()));
    Ok(())
}

/// The file of the answers, at its end, and the ids that have one. A torn last line, of a process that was killed, is cut off.
fn open(path: &Path) -> Result<(File, HashSet<String>)> {
    let failed = |e| Error::io("can't open the file for the answers", e).at(path.display());
    let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed)?;
    let (mut reader, mut done, mut whole, mut line) = (BufReader::new(file), HashSet::new(), 0, String::new());
    while reader.read_line(&mut line).map_err(failed)? > 0 {
        let answer: Option<Json> = serde_json::from_str(&line).ok().filter(|_| line.ends_with('\n'));
        let Some(answer) = answer else { break };
        // What failed is tried again.
        let id = answer["custom_id"].as_str().filter(|_| answer["error"].is_null());
        done.extend(id.map(str::to_owned));
        whole += line.len() as u64;
        line.clear();
    }
    let mut file = reader.into_inner();
    let torn = file.metadata().map_err(failed)?.len() - whole;
    if torn > 0 && (line.ends_with('\n') || !line.starts_with('{')) {
        return Err(Error::usage("this file is not one of answers").at(path.display()).help("name another with -o"));
    }
    file.set_len(whole).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed)?;
    Ok((file, done))
}

/// A model that answers requests.
struct Job<'s> {
    session: &'s mut Session,
    limit: usize,
    base: SamplerOptions,
    chat: Option<Chat>,
}

/// What became of a request: a text, why it ended, and how many tokens it took.
struct Outcome {
    content: String,
    reasoning: String,
    prompt: usize,
    generation: Generation,
}

impl Job<'_> {
    /// Answers line `number`; `None` if it is among those that are `done`. Only what ends the whole job is an error.
    fn line(&mut self, line: &str, number: usize, done: &HashSet<String>) -> Result<Option<Json>> {
        let request: Line = match serde_json::from_str(line) {
            Ok(request) => request,
            Err(e) => {
                let id =
                    serde_json::from_str::<Json>(line).ok().and_then(|v| Some(v["custom_id"].as_str()?.to_owned()));
                return Ok(Some(failure(id, format!("line {number}: {e}"))));
            }
        };
        if done.contains(&request.custom_id) {
            return Ok(None);
        }
        let answer = match request.url {
            Url::Chat => self.chat(&request.body),
            Url::Completion => self.complete(&request.body),
        };
        match answer {
            // Stopped in the middle: it is answered next time.
            Ok(outcome) if outcome.generation.finish == FinishReason::Interrupted => {
                term::check_interrupt()?;
                Ok(Some(failure(Some(request.custom_id), "interrupted".into())))
            }
            Ok(outcome) => Ok(Some(success(&request, number, outcome))),
            Err(e) if matches!(e.kind(), ErrorKind::Usage | ErrorKind::Format | ErrorKind::Numeric) => {
                Ok(Some(failure(Some(request.custom_id), e.to_string())))
            }
            Err(e) => Err(e),
        }
    }

    fn chat(&mut self, body: &Body) -> Result<Outcome> {
        let messages = body.messages.clone().filter(|m| !m.is_empty() && body.prompt.is_none());
        let messages = messages.ok_or_else(|| Error::usage("this address wants messages, and no prompt"))?;
        let options = ChatOptions {
            limit: body.max_tokens.unwrap_or(self.limit),
            when_full: WhenFull::Stop,
            stops: body.stops(),
            sampling: body.sampling(&self.base),
            ..ChatOptions::default()
        };
        if self.chat.is_none() {
            let template = self.session.model().chat_template()?;
            self.chat = Some(Chat::new(self.session, template, options.clone())?);
        }
        let chat = self.chat.as_mut().expect("just made");
        chat.set_options(self.session, options)?;
        // Each request begins its random numbers anew: its answer does not depend on those before it.
        chat.reseed(self.session)?;
        let mut conversation = Conversation::from(messages);
        let reply = chat.reply(self.session, &mut conversation, &mut |_| go_on())?;
        let (content, reasoning) = (reply.content, reply.reasoning);
        Ok(Outcome { content, reasoning, prompt: reply.prompt, generation: reply.generation })
    }

    fn complete(&mut self, body: &Body) -> Result<Outcome> {
        let text = body.prompt.as_ref().filter(|_| body.messages.is_none());
        let text = text.ok_or_else(|| Error::usage("this address wants a prompt, and no messages"))?;
        let model = self.session.model().clone();
        let tokenizer = model.tokenizer()?;
        let prompt = tokenizer.encode(&[Segment::Template(text)], true)?;
        let mut sampler = model.sampler(&body.sampling(&self.base), self.session.context())?;
        let mut out = Detokenizer::new(tokenizer, DetokenizeOptions { show_special: false, continued: true });
        let (mut stops, mut content) = (StopStrings::new(body.stops()), String::new());
        let mut on_token = |token| {
            content += &stops.push(out.push(token));
            if stops.found() { ControlFlow::Break(()) } else { go_on() }
        };
        let limit = body.max_tokens.unwrap_or(self.limit);
        let mut generation = self.session.generate(&prompt, &mut sampler, limit, &mut on_token)?;
        content += &stops.push(out.finish());
        content += &stops.finish();
        if stops.found() {
            generation.finish = FinishReason::End;
        }
        Ok(Outcome { content, reasoning: String::new(), prompt: prompt.len(), generation })
    }
}

fn go_on() -> ControlFlow<()> {
    if term::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The line for a request that has an answer, in OpenAI's form.
fn success(request: &Line, number: usize, outcome: Outcome) -> Json {
    let Outcome { content, reasoning, prompt, generation } = outcome;
    let finish = if generation.finish == FinishReason::End { "stop" } else { "length" };
    let new = generation.tokens.len();
    let usage = json!({
        "prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": prompt.saturating_sub(generation.prompt_tokens)},
    });
    let (kind, object, mut choice) = match request.url {
        Url::Chat => {
            let mut message = json!({"role": "assistant", "content": content});
            if !reasoning.is_empty() {
                message["reasoning_content"] = reasoning.into();
            }
            ("chatcmpl", "chat.completion", json!({"index": 0, "message": message}))
        }
        Url::Completion => ("cmpl", "text_completion", json!({"index": 0, "text": content})),
    };
    choice["logprobs"] = Json::Null;
    choice["finish_reason"] = finish.into();
    let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let body = json!({
        "id": format!("{kind}-{number}"), "object": object, "created": created,
        "model": request.body.model.as_deref().unwrap_or("wgpu-llm"), "choices": [choice], "usage": usage,
    });
    json!({
        "id": format!("batch_req_{number}"), "custom_id": request.custom_id,
        "response": {"status_code": 200, "request_id": format!("req_{number}"), "body": body}, "error": null,
    })
}

/// The line for a request that cannot be answered.
fn failure(custom_id: Option<String>, message: String) -> Json {
    json!({
        "id": null, "custom_id": custom_id, "response": null,
        "error": {"code": "invalid_request_error", "message": message},
    })
}
