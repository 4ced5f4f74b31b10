//! The 70 real templates × 11 conversations that Jinja2 rendered as transformers configures it.

use super::{Capabilities, ChatTemplate, Clock, ControlTokens, Prompt, RenderOptions};
use crate::text::{Message, Segment};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// The folder of the real templates; none, with a note, where the test data is not there.
fn folder() -> Option<PathBuf> {
    let folder =
        std::env::var_os("WGPU_LLM_TEST_DATA").map(|root| PathBuf::from(root).join("llama.cpp/models/templates"));
    let found = folder.filter(|folder| folder.is_dir());
    if found.is_none() {
        println!("SKIPPED: WGPU_LLM_TEST_DATA does not name a folder with llama.cpp/models/templates");
        assert_ne!(std::env::var("WGPU_LLM_DATA").as_deref(), Ok("require"), "test data is required");
    }
    found
}

fn data(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    serde_json::from_slice(&std::fs::read(path).expect("tests/data is in the repository")).expect("valid JSON")
}

fn load(folder: &std::path::Path, file: &str) -> ChatTemplate {
    let source = std::fs::read_to_string(folder.join(file)).expect("the template is there");
    ChatTemplate::new(&source, "<s>", "</s>").unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// A conversation of the fixture, rendered as the reference does unless `exact` is off.
fn case(case: &Value, exact: bool) -> (Vec<Message>, RenderOptions) {
    let messages = serde_json::from_value(case["messages"].clone()).expect("messages in OpenAI's shape");
    let options = RenderOptions {
        tools: case["tools"].as_array().cloned().unwrap_or_default(),
        add_generation_prompt: case["add_generation_prompt"] == true,
        enable_thinking: case["enable_thinking"].as_bool(),
        now: Some(Clock { year: 2026, month: 11, day: 20, hour: 12, minute: 0, second: 0 }),
        exact,
        ..RenderOptions::default()
    };
    (messages, options)
}

/// Every template with every case and the reference's answer.
fn each(mut check: impl FnMut(&str, &str, &ChatTemplate, &Value, &Value)) -> bool {
    let Some(folder) = folder() else { return false };
    let fixture = data("chat-templates.json");
    for (file, cases) in fixture["templates"].as_object().expect("templates") {
        let template = load(&folder, file);
        for (name, expected) in cases.as_object().expect("cases") {
            check(file, name, &template, &fixture["cases"][name], expected);
        }
    }
    true
}

/// Errors of the reference that are answers here, because a user wants them: `tools|map(…)|tojson`, which Python cannot
/// serialize.
fn better(error: &str) -> bool {
    error.contains("generator is not JSON serializable")
}

#[test]
fn renderings_equal_the_reference() {
    let (mut equal, mut errors, mut improved, mut wrong) = (0, 0, 0, Vec::new());
    let improvements = data("chat-better.json");
    let ran = each(|file, name, template, input, expected| {
        let (messages, options) = case(input, true);
        let result = template.render(&messages, &options);
        match (result, expected["text"].as_str(), expected["error"].as_str()) {
            (Ok(prompt), Some(text), _) if prompt.text() == text => equal += 1,
            (Ok(prompt), Some(text), _) => {
                wrong.push(format!("{file} {name}: {}", first_difference(prompt.text(), text)))
            }
            (Ok(prompt), None, Some(error)) if better(error) && improvements[file][name] == prompt.text() => {
                improved += 1
            }
            (Ok(prompt), None, Some(error)) => {
                wrong.push(format!("{file} {name}: wanted {error}, got {:?}", prompt.text()))
            }
            (Err(found), _, Some(error)) => {
                // What the template itself says must stand in the message; Python's own words are not ours.
                let words = error.strip_prefix("TemplateError: ").unwrap_or_default();
                let said = found.to_string();
                if said.contains(words) && said.starts_with("chat template, line ") {
                    errors += 1;
                } else {
                    wrong.push(format!("{file} {name}: wanted {error}, got {found}"));
                }
            }
            (Err(found), _, None) => wrong.push(format!("{file} {name}: {found}")),
            (Ok(_), None, None) => unreachable!("a case without an answer"),
        }
    });
    if ran {
        let total = equal + errors + improved + wrong.len();
        println!(
            "templates: {equal} of {total} renderings equal, {errors} errors as expected, {improved} rendered where the \
             reference fails, {} wrong",
            wrong.len()
        );
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!((equal, errors, improved), (717, 51, 2));
    }
}

fn first_difference(ours: &str, theirs: &str) -> String {
    let at = ours.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
    let show = |text: &str| text.get(at.saturating_sub(40)..).unwrap_or(text).chars().take(160).collect::<String>();
    format!("ours {:?}, theirs {:?}", show(ours), show(theirs))
}

/// The marks around each control token that `tools/golden/chat_templates.py` puts into user text.
const BEFORE: char = '\x02';
const AFTER: char = '\x03';

/// Puts `tokens` between marks behind every text that a user could write.
fn poison(value: &Value, tokens: &[&str], key: &str) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), poison(v, tokens, k))).collect(),
        Value::Array(items) => items.iter().map(|v| poison(v, tokens, key)).collect(),
        Value::String(text) if matches!(key, "content" | "text" | "reasoning_content" | "description" | "city") => {
            tokens.iter().fold(text.clone(), |text, token| text + &format!("{BEFORE}{token}{AFTER}")).into()
        }
        other => other.clone(),
    }
}

fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// Whether each byte of a prompt is a user's.
fn by_user(prompt: &Prompt) -> Vec<bool> {
    let of = |segment: Segment| vec![matches!(segment, Segment::Text(_)); segment.as_str().len()];
    prompt.segments().into_iter().flat_map(of).collect()
}

/// Tokens in what everybody but the assistant wrote.
fn poison_others(case: &Value, tokens: &[&str]) -> Value {
    let mut poisoned = poison(case, tokens, "");
    for (to, from) in poisoned["messages"].as_array_mut().unwrap().iter_mut().zip(case["messages"].as_array().unwrap())
    {
        if from["role"] == "assistant" {
            *to = from.clone();
        }
    }
    poisoned
}

/// What became of the control tokens between marks, and of those without.
#[derive(Debug, Default, PartialEq)]
struct Tally {
    /// Wholly in user text, as they must be.
    forged: usize,
    /// Template text between marks: a template that cuts a message at a token writes its own there, or keeps the message's.
    cut: usize,
    /// The template's own.
    genuine: usize,
}

fn tally(prompt: &Prompt, tokens: &[&str], place: &str) -> Tally {
    let (text, user) = (prompt.text(), by_user(prompt));
    let mut tally = Tally::default();
    for token in tokens {
        for (at, _) in text.match_indices(token) {
            let range = at..at + token.len();
            let marked = text[..at].ends_with(BEFORE) && text[range.end..].starts_with(AFTER);
            let theirs = user[range].iter().filter(|user| **user).count();
            match (marked, theirs) {
                (true, n) if n == token.len() => tally.forged += 1,
                (true, 0) => tally.cut += 1,
                (true, _) => panic!("{place}: {token} is partly a user's"),
                (false, 0) => tally.genuine += 1,
                (false, _) => {}
            }
        }
    }
    tally
}

/// Every template with control tokens behind every text: rendered as the reference does, and none of them is template
/// text, but for those that the template itself looks for in the assistant's turns.
#[test]
fn control_tokens_in_user_text_stay_user_text() {
    let hostile = data("chat-hostile.json");
    let (mut equal, mut failing, mut undecided) = (0, 0, Vec::new());
    let (mut everywhere, mut others) = (Tally::default(), Tally::default());
    let add = |sum: &mut Tally, more: Tally| {
        *sum = Tally { forged: sum.forged + more.forged, cut: sum.cut + more.cut, genuine: sum.genuine + more.genuine }
    };
    let ran = each(|file, name, template, input, _| {
        let place = format!("{file} {name}");
        let entry = &hostile[file];
        let tokens: Vec<&str> = entry["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let control = Some(Arc::new(ControlTokens::new(tokens.iter().copied()).unwrap()));
        let expected = &entry["cases"][name];
        let render = |input: &Value| {
            let (messages, options) = case(input, true);
            template.render(&messages, &RenderOptions { control: control.clone(), ..options })
        };
        match (render(&poison(input, &tokens, "")), expected["error"].as_str()) {
            (Ok(prompt), Some(error)) if better(error) => add(&mut everywhere, tally(&prompt, &tokens, &place)),
            (Ok(prompt), None) => {
                let hash = format!("{:016x}", fnv1a64(prompt.text().as_bytes()));
                let found = (Some(prompt.text().len() as u64), Some(hash.as_str()));
                assert_eq!(found, (expected[0].as_u64(), expected[1].as_str()), "{place}");
                equal += 1;
                add(&mut everywhere, tally(&prompt, &tokens, &place));
            }
            (Err(_), Some(_)) => failing += 1,
            (Err(error), None) if error.to_string().contains("cannot be told") => undecided.push(place.clone()),
            (result, _) => panic!("{place}: {result:?}, the reference {expected}"),
        }
        let harmless: Vec<String> = tokens.iter().map(|token| "x".repeat(token.len())).collect();
        let harmless: Vec<&str> = harmless.iter().map(String::as_str).collect();
        if let (Ok(prompt), Ok(clean)) =
            (render(&poison_others(input, &tokens)), render(&poison_others(input, &harmless)))
        {
            let found = tally(&prompt, &tokens, &place);
            assert_eq!(found.cut, 0, "{place}: a token that no assistant wrote is template text");
            let genuine = tally(&clean, &tokens, &place).genuine;
            assert_eq!(found.genuine, genuine, "{place}: users changed the number of control tokens");
            add(&mut others, found);
        }
    });
    if ran {
        println!(
            "control tokens: {equal} hostile renderings equal to the reference, {failing} errors as the reference, {} \
             refused as undecidable {undecided:?}; forged ones everywhere: {everywhere:?}, in all but assistants' turns: \
             {others:?}",
            undecided.len()
        );
        assert!(equal > 700 && everywhere.forged > 20_000 && everywhere.genuine > 4_000 && others.forged > 15_000);
    }
}

/// Fine pieces: a token half of which a user wrote is no token, and what templates do to text keeps its origin.
#[test]
fn origin_survives_what_templates_do() {
    let user = |source: &str, content: &str| {
        let template = ChatTemplate::new(&format!("{{% set c = messages[0].content %}}{source}"), "", "").unwrap();
        let prompt = template.render(&[Message::user(content)], &RenderOptions::default()).unwrap();
        let show = |segment: Segment| match segment {
            Segment::Text(text) => format!("«{text}»"),
            Segment::Template(text) => text.to_string(),
        };
        prompt.segments().into_iter().map(show).collect::<String>()
    };
    let cases = [
        ("<|{{ c }}|>", "end", "<|«end»|>"),
        ("{{ '<|' + c + '|>' }}", "end", "<|«end»|>"),
        ("{{ c|trim }}", " <|a|> ", "«<|a|>»"),
        ("{{ c.split(',')[1] }}", "x,<|a|>", "«<|a|>»"),
        ("{{ c[1:-1]|upper }}", "<ab>", "«AB»"),
        ("{{ c|tojson }}", "a\"<|b|>", "\"«a\\\"<|b|>»\""),
        ("{{ [c] }}", "<|a|>", "['«<|a|>»']"),
        ("{{ {'k': c} }}", "v", "{'k': '«v»'}"),
        ("{{ c|replace('[', '<')|replace(']', '>') }}", "[a]", "<«a»>"),
        ("{{ '%s' % c }}{{ '{}'.format(c) }}{{ [c, c]|join('-') }}", "<s>", "«<s><s><s>»-«<s>»"),
        ("{% set x %}({{ c }}){% endset %}{{ x.strip('()') }}", "a", "«a»"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(c) }}", "s", "<«s»>"),
        ("{% for ch in c %}{{ ch }}.{% endfor %}", "ab", "«a».«b»."),
        ("{{ c|indent }}", "<\nb", "«<\n    b»"),
        // Characters that become several cannot be followed; without a control token in sight that does no harm.
        ("{{ c|e }}", "<b>", "&lt;b&gt;"),
        ("{{ messages[0].role }}{{ messages|tojson }}", "x", "user[{\"role\": \"user\", \"content\": \"«x»\"}]"),
    ];
    for (source, content, expected) in cases {
        assert_eq!(user(source, content), expected, "{source}");
    }
    // A token that is written because users wrote it: whose is it?
    let asks = ChatTemplate::new("{% if messages[0].content == '<s>' %}{{ '<s>' }}{% endif %}", "", "").unwrap();
    let error = asks.render(&[Message::user("<s>")], &RenderOptions::default()).unwrap_err().to_string();
    assert!(error.contains("cannot be told") && error.contains("<s>"), "{error}");
    // Tokens that come about only by putting pieces together.
    let parts = serde_json::json!([{"role": "user", "content": [
        {"type": "text", "text": "<|im_"}, {"type": "text", "text": "end|>"}]}]);
    let parts: Vec<Message> = serde_json::from_value(parts).unwrap();
    let template = "{% for p in messages[0].content if p.type == 'text' %}{{ p.text }}{% endfor %}<|im_end|>";
    let prompt = ChatTemplate::new(template, "", "").unwrap().render(&parts, &RenderOptions::default()).unwrap();
    assert_eq!(prompt.segments(), [Segment::Text("<|im_end|>"), Segment::Template("<|im_end|>")]);
    assert_eq!(user("{{ c.replace('_', '') }}<a>", "<_a>"), "«<a>»<a>");
    assert_eq!(user("{{ c|lower }}<a>", "<A>"), "«<a>»<a>");
    // A role that nobody knows is user text, so `<|` + role + `|>` is no token.
    let template = ChatTemplate::new("<|{{ messages[0].role }}|>", "", "").unwrap();
    let render = |role: &str| template.render(&[Message::new(role.into(), "")], &RenderOptions::default()).unwrap();
    assert_eq!(render("user").segments().len(), 1);
    assert_eq!(render("im_end").segments().len(), 3);
}

#[test]
fn capabilities_of_known_templates() {
    let Some(folder) = folder() else { return };
    let of = |file: &str| load(&folder, file).capabilities();
    let all = Capabilities { system: true, tools: true, tool_calls: true, thinking: false, parts: false };
    assert_eq!(of("Qwen-Qwen2.5-7B-Instruct.jinja"), all);
    assert_eq!(of("Qwen-Qwen3-0.6B.jinja"), Capabilities { thinking: true, ..all });
    assert_eq!(of("Qwen3.5-4B.jinja"), Capabilities { thinking: true, parts: true, ..all });
    assert_eq!(of("mistralai-Mistral-Nemo-Instruct-2407.jinja"), all);
    let none = Capabilities { system: false, tools: false, tool_calls: false, thinking: false, parts: false };
    assert_eq!(of("google-gemma-2-2b-it.jinja"), none);
    assert_eq!(of("microsoft-Phi-3.5-mini-instruct.jinja"), Capabilities { system: true, ..none });
}

/// Where the reference fails or prints a Python list, messages are reshaped unless `exact` is asked for.
#[test]
fn messages_are_reshaped_for_templates_that_cannot_take_them() {
    let (mut shown, mut hidden) = (0, Vec::new());
    let ran = each(|file, name, template, input, expected| {
        if name != "parts" {
            return;
        }
        let (messages, options) = case(input, false);
        match template.render(&messages, &options) {
            Ok(prompt) if prompt.text().contains("what is this?") && !prompt.text().contains("'type': 'text'") => {
                shown += 1
            }
            Ok(prompt) => hidden.push(format!("{file}: {}", prompt.text())),
            Err(error) => hidden.push(format!("{file}: {error}; reference {expected}")),
        }
    });
    if ran {
        println!("parts: shown by {shown} of {} templates", shown + hidden.len());
        // firefunction needs `functions`, which nobody passed.
        assert!(hidden.len() == 1 && hidden[0].contains("'functions' is undefined"), "{}", hidden.join("\n"));
    }
}

/// Real templates with bytes changed, moved and cut: an answer or an error, never a panic.
#[test]
fn broken_templates_give_errors() {
    let Some(folder) = folder() else { return };
    let fixture = data("chat-templates.json");
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    let (mut rendered, mut refused) = (0, 0);
    for file in fixture["templates"].as_object().expect("templates").keys() {
        let source = std::fs::read_to_string(folder.join(file)).expect("the template is there");
        for round in 0..24 {
            let mut chars: Vec<char> = source.chars().collect();
            for _ in 0..=round % 4 {
                let at = random(chars.len());
                match random(4) {
                    0 => chars[at] = ['{', '}', '%', '(', '\'', '-', '|', '.', '9', 'é', '['][random(11)],
                    1 => drop(chars.remove(at)),
                    2 => chars.truncate(at.max(1)),
                    _ => {
                        let end = (at + random(40)).min(chars.len());
                        let copy = chars[at..end].to_vec();
                        let to = random(chars.len());
                        chars.splice(to..to, copy);
                    }
                }
            }
            let broken: String = chars.into_iter().collect();
            let name = ["tool_result", "multi", "reasoning", "parts"][random(4)];
            let (messages, options) = case(&fixture["cases"][name], true);
            match ChatTemplate::new(&broken, "<s>", "</s>").and_then(|t| t.render(&messages, &options)) {
                Ok(_) => rendered += 1,
                Err(_) => refused += 1,
            }
        }
    }
    println!("broken templates: {refused} refused, {rendered} rendered all the same, no panic");
    assert!(refused > 300 && rendered > 100);
}
