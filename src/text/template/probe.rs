//! Finds out what a template supports by rendering small conversations and looking for their words in the prompt.

use super::render::{Capabilities, ChatTemplate, RenderOptions};
use crate::text::message::{Content, FunctionCall, Message, Part, ToolCall};

/// A word no template contains.
const NEEDLE: &str = "qzvxw7";

/// Renders the probes.
pub fn probe(template: &ChatTemplate) -> Capabilities {
    let options = RenderOptions { exact: true, now: Some(super::Clock::from_unix(0)), ..RenderOptions::default() };
    let render = |messages: &[Message], options: &RenderOptions| {
        template.render(messages, options).map(|p| p.text().to_string())
    };
    let shows = |messages: &[Message], options: &RenderOptions, word: &str| {
        render(messages, options).is_ok_and(|text| text.contains(word))
    };
    let user = || Message::user("Hello");

    let system = shows(&[Message::system(NEEDLE), user()], &options, NEEDLE);
    let tool = serde_json::json!({"type": "function", "function": {
        "name": NEEDLE,
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer", "description": "N"}}, "required": ["n"]},
    }});
    let with_tool = RenderOptions { tools: vec![tool], ..options.clone() };
    let tools =
        shows(&[user()], &with_tool, NEEDLE) || shows(&[Message::system("Be brief."), user()], &with_tool, NEEDLE);
    let thinking = {
        let with = |on| render(&[user()], &RenderOptions { enable_thinking: Some(on), ..options.clone() }).ok();
        with(true) != with(false)
    };
    let part = Part { kind: "text".into(), text: Some(NEEDLE.into()), rest: serde_json::Map::new() };
    let in_parts = Message { content: Some(Content::Parts(vec![part])), ..user() };
    // A template that knows no parts prints the list itself, if it does not fail.
    let parts = render(&[in_parts], &options).is_ok_and(|text| {
        text.find(NEEDLE).is_some_and(|at| !text[..at].trim_end_matches([' ', '"', '\'', ':']).ends_with("text"))
    });
    Capabilities { system, tools, tool_calls: tool_calls(template, &options), thinking, parts }
}

/// Whether a call and its result are shown, with the arguments in either form.
fn tool_calls(template: &ChatTemplate, options: &RenderOptions) -> bool {
    let function = FunctionCall { name: "add".into(), arguments: serde_json::json!({"n": "qzvxw1"}) };
    // Nine characters, as Mistral's templates demand.
    let id = Some("abcdef123".to_string());
    let call = ToolCall { id: id.clone(), kind: "function".into(), function };
    let mut assistant = Message::assistant("");
    assistant.tool_calls = Some(vec![call]);
    let mut result = Message::new("tool".into(), "qzvxw2");
    (result.tool_call_id, result.name) = (id, Some("add".into()));
    let options = RenderOptions { exact: false, ..options.clone() };
    let prompt = template.render(&[Message::user("Hello"), assistant, result], &options);
    prompt.is_ok_and(|prompt| ["qzvxw1", "qzvxw2"].iter().all(|word| prompt.text().contains(word)))
}
