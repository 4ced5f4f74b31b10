//! The door to this room: parse a template once, render conversations with it, ask what it supports.

use super::clock::Clock;
use super::control::ControlTokens;
use super::mask::Words;
use super::prompt::Prompt;
use super::provenance::{Inputs, attribute};
use super::{environment, python};
use crate::base::{Error, Result};
use crate::text::message::{Content, Message};
use serde_json::{Map, Value};
use std::sync::{Arc, OnceLock};

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    /// The source as minijinja takes it.
    rewritten: String,
    words: Words,
    guessed: ControlTokens,
    bos: String,
    eos: String,
    capabilities: OnceLock<Capabilities>,
}

/// What to render besides the messages.
#[derive(Debug, Clone)]
pub struct RenderOptions {
    /// Tools in OpenAI's shape, `{"type": "function", "function": {…}}`.
    pub tools: Vec<Value>,
    /// Whether to end with the start of the assistant's answer. Default: true.
    pub add_generation_prompt: bool,
    /// Turns thinking on or off, for templates that know `enable_thinking`.
    pub enable_thinking: Option<bool>,
    /// The time a template sees. Default: the system's.
    pub now: Option<Clock>,
    /// Further names for the template, as transformers' keyword arguments.
    pub extra: Map<String, Value>,
    /// The vocabulary's control tokens. Default: whatever looks like one in the template's source.
    pub control: Option<Arc<ControlTokens>>,
    /// Only what the reference does: messages are passed as they are. Default: false, which also reshapes messages that
    /// the template cannot take (text parts as one text, tool arguments as a string).
    pub exact: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        RenderOptions {
            tools: Vec::new(),
            add_generation_prompt: true,
            enable_thinking: None,
            now: None,
            extra: Map::new(),
            control: None,
            exact: false,
        }
    }
}

/// What a template supports, found by rendering small conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// It shows a system message.
    pub system: bool,
    /// It shows the tools.
    pub tools: bool,
    /// It shows the assistant's tool calls and their results.
    pub tool_calls: bool,
    /// `enable_thinking` changes the prompt.
    pub thinking: bool,
    /// It takes content in parts.
    pub parts: bool,
}

/// How messages are passed to a template.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    /// Text parts joined to one text.
    join_parts: bool,
    /// Tool arguments written as a string.
    arguments_as_text: bool,
}

impl ChatTemplate {
    /// Parses a template's source. `bos` and `eos` are the texts of the model's tokens; empty if it has none.
    /// Fails with the line where the source is no template that can be run here.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        let rewritten = environment::rewrite(source);
        environment::compile(&rewritten)?;
        Ok(ChatTemplate {
            source: source.to_string(),
            rewritten,
            words: Words::of(source)?,
            guessed: ControlTokens::guessed(source, bos, eos)?,
            bos: bos.to_string(),
            eos: eos.to_string(),
            capabilities: OnceLock::new(),
        })
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. Fails if the template refuses it (`raise_exception`, with the template's own words),
    /// uses what is not there, or reaches a limit; the error names the template's line.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Prompt> {
        let plain = Shape { join_parts: false, arguments_as_text: false };
        if options.exact {
            return self.attempt(messages, options, plain);
        }
        let has_parts = messages.iter().any(|m| matches!(m.content, Some(Content::Parts(_))));
        let has_calls = messages.iter().any(|m| m.tool_calls.is_some());
        let mut shapes = Vec::new();
        if !has_parts || self.capabilities().parts {
            shapes.push(plain);
        }
        if has_parts {
            shapes.push(Shape { join_parts: true, ..plain });
        }
        if has_calls {
            shapes.push(Shape { join_parts: has_parts, arguments_as_text: true });
        }
        let mut first_error = None;
        for shape in shapes {
            match self.attempt(messages, options, shape) {
                Ok(prompt) => return Ok(prompt),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| Error::usage("nothing to render")))
    }

    /// What the template supports. The first call renders a few small conversations; later ones are free.
    pub fn capabilities(&self) -> Capabilities {
        *self.capabilities.get_or_init(|| super::probe::probe(self))
    }

    fn attempt(&self, messages: &[Message], options: &RenderOptions, shape: Shape) -> Result<Prompt> {
        let mut names = options.extra.clone();
        names.insert("messages".into(), messages.iter().map(|m| message_value(m, shape)).collect::<Result<Value>>()?);
        if !options.tools.is_empty() {
            names.insert("tools".into(), options.tools.clone().into());
        }
        let mut own = Map::new();
        own.insert("add_generation_prompt".into(), options.add_generation_prompt.into());
        own.insert("bos_token".into(), self.bos.as_str().into());
        own.insert("eos_token".into(), self.eos.as_str().into());
        if let Some(thinking) = options.enable_thinking {
            own.insert("enable_thinking".into(), thinking.into());
        }
        let clock = options.now.unwrap_or_else(Clock::now);
        let program = environment::compile(&self.rewritten)?;
        let size = names.values().map(json_bytes).sum();
        let inputs = Inputs {
            names: &names,
            own: [&self.source, &self.bos, &self.eos],
            words: &self.words,
            control: options.control.as_deref().unwrap_or(&self.guessed),
        };
        attribute(&inputs, |names, unescaped| {
            let values = own.iter().chain(names).map(|(name, value)| (name.as_str(), python::from_json(value)));
            program.render(minijinja::Value::from_pairs(values), clock, size, unescaped)
        })
    }
}

/// A message as a template sees it: only the keys that are there, in their usual order.
fn message_value(message: &Message, shape: Shape) -> Result<Value> {
    let mut json = serde_json::to_value(message).map_err(|e| Error::usage("a message is no JSON").because(e))?;
    if let Some(text) = message.content.as_ref().filter(|_| shape.join_parts).and_then(Content::as_text) {
        json["content"] = text.into();
    }
    for call in json.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        let arguments = &mut call["function"]["arguments"];
        // OpenAI sends arguments as a string of JSON; templates expect the object, some the string.
        if shape.arguments_as_text && !arguments.is_string() {
            *arguments = arguments.to_string().into();
        } else if !shape.arguments_as_text
            && let Some(Ok(object @ Value::Object(_))) = arguments.as_str().map(serde_json::from_str)
        {
            *arguments = object;
        }
    }
    Ok(json)
}

/// Roughly the size of a value.
fn json_bytes(json: &Value) -> usize {
    match json {
        Value::String(text) => 8 + text.len(),
        Value::Array(items) => 8 + items.iter().map(json_bytes).sum::<usize>(),
        Value::Object(map) => 8 + map.iter().map(|(k, v)| k.len() + json_bytes(v)).sum::<usize>(),
        _ => 8,
    }
}
