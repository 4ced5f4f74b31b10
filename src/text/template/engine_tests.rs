//! The engine against Jinja2 itself: one feature a template, expected texts and errors made by
//! `tools/golden/chat_templates.py`.

use super::{ChatTemplate, Clock, RenderOptions};
use crate::base::Result;
use serde_json::{Map, Value};

const NOW: Clock = Clock { year: 2026, month: 11, day: 20, hour: 12, minute: 0, second: 0 };

fn render(source: &str, names: &Map<String, Value>) -> Result<String> {
    let options = RenderOptions { extra: names.clone(), now: Some(NOW), exact: true, ..RenderOptions::default() };
    Ok(ChatTemplate::new(source, "<s>", "</s>")?.render(&[], &options)?.text().to_string())
}

/// Where minijinja answers and Python does not: ordering and searching across types.
const MILDER: [&str; 2] = ["{{ 'a' < 1 }}", "{{ 1 in 'abc' }}"];

/// What minijinja has not, and no template we met needs.
const LACKING: [&str; 4] = ["wordcount", "d.items is callable", "dictsort(true)", "d.items() is sequence"];

#[test]
fn small_templates_equal_jinja2() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/jinja.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).expect("tests/data")).expect("valid JSON");
    let names = fixture["names"].as_object().expect("names");
    let (mut wrong, mut left_out) = (Vec::new(), 0);
    let rows = fixture["rows"].as_array().expect("rows");
    for row in rows {
        let source = row["source"].as_str().expect("source");
        match (render(source, names), row["text"].as_str(), row["error"].as_str()) {
            (Ok(text), Some(expected), _) if text == expected => {}
            // minijinja has words of its own for what is wrong; what a template says stays.
            (Err(error), None, Some(expected)) => {
                let words = expected.strip_prefix("TemplateError: ").unwrap_or_default();
                assert!(error.to_string().contains(words), "{source}: {error}, wanted {expected}");
            }
            _ if MILDER.contains(&source) || LACKING.iter().any(|lacking| source.contains(lacking)) => left_out += 1,
            (ours, text, error) => wrong.push(format!("{source}\n  ours  {ours:?}\n  jinja {:?}", text.or(error))),
        }
    }
    let equal = rows.len() - wrong.len() - left_out;
    println!("jinja: {equal} of {} small templates equal, {left_out} with what minijinja lacks", rows.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let cases = [
        ("a\n{{ raise_exception('Only user roles!') }}", "chat template, line 2: Only user roles!; the model's"),
        ("{{ x }}\n\n{{ x.y }}", "chat template, line 3: 'x' is undefined"),
        ("{% if a %}", "chat template, line 1: unexpected end of input, expected end of block"),
        ("{% for a in %}", "line 1: unexpected end of block"),
        ("{{ 'abc }}", "line 1: unexpected end of string"),
        ("\n{{ a b }}", "line 2: unexpected identifier, expected end of variable block"),
        ("{% include 'x' %}", "non-existing template 'x'"),
        ("{% import 'x' as y %}", "non-existing template 'x'"),
        ("{% break %}", "'break' must be placed inside a loop"),
        ("{% nope %}", "unknown statement nope"),
        ("{{ 1|nope }}", "filter nope is unknown"),
        ("{{ 1 is nope }}", "test nope is unknown"),
        ("{# open", "unexpected end of comment"),
        ("{% raw %} open", "unexpected end of raw block"),
        ("{{ ( }}", "unexpected `}`"),
        ("{{ ) }}", "unexpected `)`"),
        ("{% endif %}", "unknown statement endif"),
        ("{{ 1", "unexpected end of input, expected end of variable block"),
    ];
    for (source, expected) in cases {
        let error = render(source, &Map::new()).expect_err(source).to_string();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn white_space_goes_as_trim_and_lstrip_blocks_say() {
    let cases = [
        ("a\r\nb\n", "a\nb"),
        ("{% if true %}\n  x\n  {% endif %}\ny", "  x\ny"),
        ("x {% if true %} y {% endif %}\n z", "x  y  z"),
        ("{{ 1 }}\n{{ 2 }}", "1\n2"),
        ("  {{ 1 }}", "  1"),
        ("{% set x = {'a': {'b': 1}} %}{{ x['a']['b'] }}{{ {'a': {}} }}", "1{'a': {}}"),
        ("{% generation %}\nx{% endgeneration %}\ny", "xy"),
    ];
    for (source, expected) in cases {
        assert_eq!(render(source, &Map::new()).unwrap(), expected, "{source:?}");
    }
}
