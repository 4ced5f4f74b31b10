//! `complete --batch-file`: a file of requests, answered one after the other into another file. What was answered before is not answered
//! again, so a job that was stopped goes on where it was.

mod answers;

use super::CompleteArgs;
use crate::app::hub::progress::counted;
use crate::app::{chat, input, load, term};
use crate::base::ErrorKind::{Format, Numeric, Unsupported, Usage};
use crate::base::{Error, Result};
use crate::chat::{Chat, ChatOptions, Conversation, ResponseStream, WhenFull};
use crate::run::{FinishReason, Generation, Session};
use crate::sample::SamplerOptions;
use crate::text::{ChatTemplate, Message, StopStrings};
use answers::Answers;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use std::ffi::OsStr;
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
    #[serde(alias = "max_completion_tokens")]
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
pub fn run(args: &CompleteArgs, requests: &Path, answers: &Path, template: Option<&OsStr>) -> Result<()> {
    let text = input::file(requests)?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let base = args.sampling.options()?;
    let mut answers = Answers::open(answers)?;
    let mut session = load::session(&args.engine)?;
    let chat = template.map(|name| chat::template(session.model(), Some(name))).transpose()?;
    let mut job = Job { args, session: &mut session, base, template: chat, chat: None, seen: HashSet::new() };
    let bar = counted("answering", &input::place(Some(requests)), lines.len(), "requests");
    let (mut failed, mut answered) = (0, 0);
    let result = lines.iter().enumerate().try_for_each(|(i, line)| {
        term::check_interrupt()?;
        bar.set_position(i as u64);
        let Some(answer) = job.line(line, i + 1, &answers)? else { return Ok(()) };
        answered += 1;
        failed += usize::from(!answer["error"].is_null());
        answers.add(&answer)
    });
    bar.finish_and_clear();
    load::finish(&args.engine, &mut session, result)?;
    let before = lines.len() - answered;
    let kept = if before == 0 { String::new() } else { format!(", {before} were there before") };
    let errors = if failed == 0 { String::new() } else { format!(", {failed} of them errors") };
    term::note(format_args!("{answered} answers{errors}{kept}"));
    Ok(())
}

/// A model that answers requests.
struct Job<'s> {
    args: &'s CompleteArgs,
    session: &'s mut Session,
    base: SamplerOptions,
    /// A chat template in place of the model's.
    template: Option<ChatTemplate>,
    chat: Option<Chat>,
    /// Ids of the lines before.
    seen: HashSet<String>,
}

/// What became of a request: a text, why it ended, and how many tokens it took.
struct Outcome {
    content: String,
    reasoning: String,
    prompt: usize,
    cached: usize,
    generation: Generation,
}

impl Job<'_> {
    /// Answers line `number`; `None` if it has one of `answers`. Only what ends the whole job is an error.
    fn line(&mut self, line: &str, number: usize, answers: &Answers) -> Result<Option<Json>> {
        let request: Line = match serde_json::from_str(line) {
            Ok(request) => request,
            Err(e) => {
                let id =
                    serde_json::from_str::<Json>(line).ok().and_then(|v| Some(v["custom_id"].as_str()?.to_owned()));
                return Ok(Some(failure(id, format!("line {number}: {e}"))));
            }
        };
        if !self.seen.insert(request.custom_id.clone()) {
            let message = format!("line {number}: another line has this custom_id");
            return Ok(Some(failure(Some(request.custom_id), message)));
        }
        if answers.has(&request.custom_id) {
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
            Err(e) if matches!(e.kind(), Usage | Format | Numeric | Unsupported) => {
                Ok(Some(failure(Some(request.custom_id), e.to_string())))
            }
            Err(e) => Err(e),
        }
    }

    fn chat(&mut self, body: &Body) -> Result<Outcome> {
        let messages = body.messages.clone().filter(|_| body.prompt.is_none());
        let messages = messages.ok_or_else(|| Error::usage("this address wants messages, and no prompt"))?;
        if messages.is_empty() {
            return Err(Error::usage("there are no messages"));
        }
        let options = ChatOptions {
            limit: body.max_tokens.unwrap_or(self.args.n_predict.limit()),
            when_full: WhenFull::Stop,
            stops: body.stops(),
            sampling: body.sampling(&self.base),
            ..ChatOptions::default()
        };
        let (model, context) = (self.session.model().clone(), self.session.context());
        // Each request begins its random numbers anew: its answer does not depend on those before it.
        let chat = match &mut self.chat {
            Some(chat) => {
                chat.set_options(&model, context, options)?;
                chat
            }
            none => {
                let template = self.template.take().map_or_else(|| model.chat_template(), Ok)?;
                none.insert(Chat::new(&model, context, template, options)?)
            }
        };
        let mut conversation = Conversation::from(messages);
        let reply = chat.reply(self.session, &mut conversation, &mut |_| go_on())?;
        let (content, reasoning) = (reply.content, reply.reasoning);
        let (prompt, cached) = (reply.prompt, reply.cached);
        Ok(Outcome { content, reasoning, prompt, cached, generation: reply.generation })
    }

    fn complete(&mut self, body: &Body) -> Result<Outcome> {
        let text = body.prompt.as_ref().filter(|_| body.messages.is_none());
        let text = text.ok_or_else(|| Error::usage("this address wants a prompt, and no messages"))?;
        let model = self.session.model().clone();
        let tokenizer = model.tokenizer()?;
        let prompt = tokenizer.encode(&[self.args.text.segment(text)], true)?;
        let cached = self.session.shared_with(&prompt);
        let mut sampler = model.sampler(&body.sampling(&self.base), self.session.context())?;
        let mut out = ResponseStream::plain(tokenizer, StopStrings::new(body.stops()));
        let mut on_token = |token| {
            out.push(token);
            if out.is_stopped() { ControlFlow::Break(()) } else { go_on() }
        };
        let limit = body.max_tokens.unwrap_or(self.args.n_predict.limit());
        let mut generation = self.session.generate(&prompt, &mut sampler, limit, &mut on_token)?;
        out.finish();
        if out.is_stopped() {
            generation.finish = FinishReason::End;
        }
        let (content, _) = out.into_texts();
        Ok(Outcome { content, reasoning: String::new(), prompt: prompt.len(), cached, generation })
    }
}

fn go_on() -> ControlFlow<()> {
    if term::interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The line for a request that has an answer, in OpenAI's form.
fn success(request: &Line, number: usize, outcome: Outcome) -> Json {
    let Outcome { content, reasoning, prompt, cached, generation } = outcome;
    let finish = if generation.finish == FinishReason::End { "stop" } else { "length" };
    let new = generation.tokens.len();
    let usage = json!({
        "prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": cached},
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
