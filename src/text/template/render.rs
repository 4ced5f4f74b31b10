//! The door to this room: parse a template once, render conversations with it, ask what it supports.

use super::ast::Block;
use super::clock::Clock;
use super::fault::{Fault, FaultKind};
use super::functions::Function;
use super::interp::Interp;
use super::limits::Budget;
use super::parser::parse;
use super::prompt::Prompt;
use super::taint::Text;
use super::value::{ListKind, Value};
use crate::base::Result;
use crate::text::message::{Content, Message, Role};
use serde_json::Map;
use std::sync::{Arc, OnceLock};

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    block: Block,
    bos: String,
    eos: String,
    capabilities: OnceLock<Capabilities>,
}

/// What to render besides the messages.
#[derive(Debug, Clone)]
pub struct RenderOptions {
    /// Tools in OpenAI's shape, `{"type": "function", "function": {…}}`.
    pub tools: Vec<serde_json::Value>,
    /// Whether to end with the start of the assistant's answer. Default: true.
    pub add_generation_prompt: bool,
    /// Turns thinking on or off, for templates that know `enable_thinking`.
    pub enable_thinking: Option<bool>,
    /// The time a template sees. Default: the system's.
    pub now: Option<Clock>,
    /// Further names for the template, as transformers' keyword arguments.
    pub extra: Map<String, serde_json::Value>,
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
    /// Parses a template's source. `bos` and `eos` are the texts of the model's tokens; empty where it has none.
    /// Fails with the line where the source is no template that can be run here.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate> {
        Ok(ChatTemplate {
            source: source.to_string(),
            block: parse(source)?,
            bos: bos.to_string(),
            eos: eos.to_string(),
            capabilities: OnceLock::new(),
        })
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders a conversation. Fails where the template refuses it (`raise_exception`, with the template's own words),
    /// uses what is not there, or reaches a limit; the error names the template's line.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Prompt> {
        let plain = Shape { join_parts: false, arguments_as_text: false };
        if options.exact {
            return Ok(self.attempt(messages, options, plain)?);
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
        let mut first_fault = None;
        for shape in shapes {
            match self.attempt(messages, options, shape) {
                Ok(prompt) => return Ok(prompt),
                Err(fault) if matches!(fault.kind, FaultKind::Limit) => return Err(fault.into()),
                Err(fault) => first_fault = first_fault.or(Some(fault)),
            }
        }
        Err(first_fault.unwrap_or_else(|| Fault::ty("nothing to render")).into())
    }

    /// What the template supports. The first call renders a few small conversations; later ones are free.
    pub fn capabilities(&self) -> Capabilities {
        *self.capabilities.get_or_init(|| super::probe::probe(self))
    }

    fn attempt(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        shape: Shape,
    ) -> std::result::Result<Prompt, Fault> {
        let budget = Budget::new(input_bytes(messages, options));
        let names = self.variables(messages, options, shape, &budget)?;
        let clock = options.now.unwrap_or_else(Clock::now);
        let text = Interp::new(names, clock, &budget).render(&self.block)?;
        Ok(Prompt::from(text))
    }

    /// What a template finds defined.
    fn variables(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        shape: Shape,
        budget: &Budget,
    ) -> std::result::Result<Vec<(Arc<str>, Value)>, Fault> {
        let mut names: Vec<(Arc<str>, Value)> =
            Function::ALL.iter().map(|(name, function)| ((*name).into(), Value::Function(*function))).collect();
        let messages =
            messages.iter().map(|m| message_value(m, shape, budget)).collect::<std::result::Result<_, _>>()?;
        names.push(("messages".into(), Value::list(messages, ListKind::List, budget)?));
        if !options.tools.is_empty() {
            let tools =
                options.tools.iter().map(|t| Value::from_json(t, budget)).collect::<std::result::Result<_, _>>()?;
            names.push(("tools".into(), Value::list(tools, ListKind::List, budget)?));
        }
        names.push(("add_generation_prompt".into(), Value::Bool(options.add_generation_prompt)));
        names.push(("bos_token".into(), Value::str(self.bos.as_str())));
        names.push(("eos_token".into(), Value::str(self.eos.as_str())));
        if let Some(thinking) = options.enable_thinking {
            names.push(("enable_thinking".into(), Value::Bool(thinking)));
        }
        for (name, value) in &options.extra {
            names.push((name.as_str().into(), Value::from_json(value, budget)?));
        }
        Ok(names)
    }
}

/// A message as a template sees it: only the keys that are there, in their usual order.
fn message_value(message: &Message, shape: Shape, budget: &Budget) -> std::result::Result<Value, Fault> {
    // Roles that everybody knows become parts of control tokens; a stranger's word must not.
    let role = match &message.role {
        Role::Other(word) => Value::Str(Text::user(word.as_str())),
        known => Value::str(known.as_str()),
    };
    let mut entries = vec![(Value::str("role"), role)];
    let mut json = serde_json::to_value(message).map_err(|e| Fault::value(e.to_string()))?;
    if let Some(text) = message.content.as_ref().filter(|_| shape.join_parts).and_then(Content::as_text) {
        json["content"] = text.into();
    }
    for call in json.get_mut("tool_calls").and_then(|calls| calls.as_array_mut()).into_iter().flatten() {
        let arguments = &mut call["function"]["arguments"];
        // OpenAI sends arguments as a string of JSON; templates expect the object, some the string.
        if shape.arguments_as_text && !arguments.is_string() {
            *arguments = arguments.to_string().into();
        } else if !shape.arguments_as_text
            && let Some(Ok(object @ serde_json::Value::Object(_))) = arguments.as_str().map(serde_json::from_str)
        {
            *arguments = object;
        }
    }
    for (key, value) in json.as_object().into_iter().flatten().filter(|(key, _)| *key != "role") {
        entries.push((Value::str(key.as_str()), Value::from_json(value, budget)?));
    }
    Value::dict(entries, budget)
}

/// Roughly the size of what came with the request.
fn input_bytes(messages: &[Message], options: &RenderOptions) -> usize {
    let size = |json: &serde_json::Value| json_bytes(json);
    let messages: usize = messages
        .iter()
        .map(|m| {
            let content = match &m.content {
                Some(Content::Text(text)) => text.len(),
                Some(Content::Parts(parts)) => parts
                    .iter()
                    .map(|p| 32 + p.text.as_ref().map_or(0, String::len) + p.rest.values().map(size).sum::<usize>())
                    .sum(),
                None => 0,
            };
            let calls: usize = m
                .tool_calls
                .iter()
                .flatten()
                .map(|c| 64 + c.function.name.len() + json_bytes(&c.function.arguments))
                .sum();
            128 + content + m.reasoning_content.as_ref().map_or(0, String::len) + calls
        })
        .sum();
    messages + options.tools.iter().chain(options.extra.values()).map(size).sum::<usize>()
}

fn json_bytes(json: &serde_json::Value) -> usize {
    match json {
        serde_json::Value::String(text) => 8 + text.len(),
        serde_json::Value::Array(items) => 8 + items.iter().map(json_bytes).sum::<usize>(),
        serde_json::Value::Object(map) => 8 + map.iter().map(|(k, v)| k.len() + json_bytes(v)).sum::<usize>(),
        _ => 8,
    }
}
