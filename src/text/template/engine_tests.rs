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

/// Where this engine answers on purpose, and Jinja2 does not.
const BETTER: [(&str, &str); 5] = [
    ("{% set l = [1] %}{% set _ = l.append(2) %}{{ l }}", "[1, 2]"),
    ("{% set ns = namespace(l=[1, 2, 3]) %}{% for i in [1] %}{{ ns.l.pop(0) }}{% endfor %}{{ ns.l }}", "1[2, 3]"),
    ("{% set d = {'a': 1} %}{% set _ = d.update({'b': 2}) %}{% set _ = d.pop('a') %}{{ d }}", "{'b': 2}"),
    ("{{ [1, 2]|map('string')|tojson }}", r#"["1", "2"]"#),
    ("{% do 1 %}{% set l = [] %}{% do l.extend([1, 2]) %}{% do l.insert(0, 0) %}{{ l }}", "[0, 1, 2]"),
];

#[test]
fn small_templates_equal_jinja2() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/jinja.json");
    let fixture: Value = serde_json::from_slice(&std::fs::read(path).expect("tests/data")).expect("valid JSON");
    let names = fixture["names"].as_object().expect("names");
    let mut wrong = Vec::new();
    let rows = fixture["rows"].as_array().expect("rows");
    for row in rows {
        let source = row["source"].as_str().expect("source");
        match (render(source, names), row["text"].as_str(), row["error"].as_str()) {
            (Ok(text), Some(expected), _) if text == expected => {}
            (Err(error), None, Some(expected)) => {
                let words = expected.split_once(": ").map_or(expected, |(_, words)| words);
                if !error.to_string().contains(words) {
                    wrong.push(format!("{source}\n  ours {error}\n  jinja {expected}"));
                }
            }
            (ours, text, error) => wrong.push(format!("{source}\n  ours  {ours:?}\n  jinja {:?}", text.or(error))),
        }
    }
    println!("jinja: {} of {} small templates equal", rows.len() - wrong.len(), rows.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lists_and_dicts_can_be_changed_by_name() {
    for (source, expected) in BETTER {
        assert_eq!(render(source, &Map::new()).unwrap(), expected, "{source}");
    }
    let error = render("{% set l = [[1]] %}{% set _ = l[0].append(2) %}", &Map::new()).unwrap_err();
    assert!(error.to_string().contains("append works on a name"), "{error}");
}

#[test]
fn errors_say_what_where_and_what_to_do() {
    let cases = [
        ("a\n{{ raise_exception('Only user roles!') }}", "chat template, line 2: Only user roles!; the model's"),
        ("{{ x }}\n\n{{ x.y }}", "chat template, line 3: 'x' is undefined"),
        ("{% if a %}", "chat template, line 1: expected {% elif %} or {% else %} or {% endif %}, found the end"),
        ("{% for a in %}", "chat template, line 1: expected an expression, found %}"),
        ("{{ 'abc }}", "chat template, line 1: a string without its closing quote"),
        ("\n{{ a b }}", "chat template, line 2: expected }}, found b"),
        ("{% include 'x' %}", "chat template, line 1: include: a chat template cannot reach other templates"),
        ("{% import 'x' as y %}", "cannot reach other templates"),
        ("{% break %}", "break outside a loop"),
        ("{% nope %}", "unknown tag nope"),
        ("{{ 1|nope }}", "no filter named 'nope'"),
        ("{{ 1 is nope }}", "no test named 'nope'"),
        ("{# open", "a comment without its end"),
        ("{% raw %} open", "a raw block without its endraw"),
        ("{{ ( }}", "unexpected }"),
        ("{{ ) }}", "unexpected )"),
        ("{% endif %}", "unknown tag endif"),
        ("{{ 1", "a tag without its end, }}"),
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
