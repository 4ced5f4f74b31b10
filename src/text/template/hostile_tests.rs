//! Templates that mean harm: each must end soon, within bounded memory and stack, with an error that says why.

use super::environment::MAX_DEPTH;
use super::{ChatTemplate, RenderOptions};
use std::time::{Duration, Instant};

/// Renders on a thread with little stack; the time it took and the error it gave.
fn refused(source: String) -> String {
    let run = move || {
        let start = Instant::now();
        let result = ChatTemplate::new(&source, "", "").and_then(|t| t.render(&[], &RenderOptions::default()));
        let error = result.map(|p| p.text().len()).expect_err("must be refused").to_string();
        (error, start.elapsed())
    };
    // The main thread has 8 MiB, others 2; half of that must do.
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).expect("a thread");
    let (error, took) = thread.join().expect("no panic");
    assert!(took < Duration::from_secs(10), "took {took:?}: {error}");
    error
}

#[test]
fn endless_work_is_cut_short() {
    let nested = "{% for a in range(100000) %}".repeat(6) + &"{% endfor %}".repeat(6);
    let strings =
        "{% set x = 'ab' * 8000000 %}{% for i in range(100000) %}{% if x.upper() == x %}{% endif %}{% endfor %}";
    let shared = "{% set x = [1] %}".to_string() + &"{% set x = [x, x] %}".repeat(90);
    for source in [
        nested,
        strings.to_string(),
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ i }}{% endfor %}{% endfor %}".into(),
        // A list of 2^90 elements in 90 lists.
        shared.clone() + "{{ x|tojson|length }}",
        shared.clone() + "{{ x|string|length }}",
        shared + "{% set y = [x, x] %}{{ y[0] == y[1] and [y] == [[x, x]] }}",
        "{% set d = namespace(x={}) %}{% for i in range(100000) %}{% set _ = d.x.update({i: i}) %}{% endfor %}".into(),
    ] {
        let error = refused(source.clone());
        assert!(error.contains("too much work") || error.contains("makes a text of"), "{source:.80}: {error}");
    }
}

#[test]
fn growth_is_cut_short() {
    let doubling = |step: &str| format!("{{% set x = 'aaaaaaaa' %}}{}{{{{ x|length }}}}", step.repeat(60));
    for source in [
        doubling("{% set x = x ~ x %}"),
        doubling("{% set x = x + x %}"),
        doubling("{% set x = x * 8 %}"),
        doubling("{% set x %}{{ x }}{{ x }}{% endset %}"),
        doubling("{% set x = [x, x]|join %}"),
        doubling("{% set x = x.join([x, x]) %}"),
        doubling("{% set x = x.replace('a', 'aaaa') %}"),
        doubling("{% set x = '%s%s' % (x, x) %}"),
        doubling("{% set x = '{0}{0}'.format(x) %}"),
        doubling("{% set x = [x, x]|tojson %}"),
        doubling("{% set x = x|escape|string ~ '&&&&' ~ x %}"),
        doubling("{% set x = x|indent(width=x) ~ '\n' ~ x %}"),
        doubling("{% set x = x.ljust(100000000000) %}"),
    ] {
        let error = refused(source.clone());
        assert!(error.contains("makes a text of") || error.contains("too much work"), "{source:.80}: {error}");
    }
    let lists = "{% set x = [1, 2] %}".to_string() + &"{% set x = x + x %}".repeat(60);
    assert!(refused(lists).contains("too much work"));
    assert!(refused("{% set x = [1] * 100000000000 %}".into()).contains("too much work"));
    assert!(refused("{{ range(10000000) }}".into()).contains("range too big"));
    assert!(
        refused(
            "{% set x = range(-170141183460469231731687303715884105727, 170141183460469231731687303715884105727) %}"
                .into()
        )
        .contains("range too big")
    );
    assert!(refused("{{ '%1000000d' % 1 }}".into()).contains("width"));
    assert!(refused("{{ 9 ** 99999 }}".into()).contains("127 bits"));
}

#[test]
fn deep_nesting_is_cut_short() {
    let calls = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
    assert!(refused(calls.into()).contains(&MAX_DEPTH.to_string()));
    let pair = "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}";
    assert!(refused(pair.into()).contains(&MAX_DEPTH.to_string()));
    let recursive = "{% set x = [1] %}{% for i in x recursive %}{{ loop(x) }}{% endfor %}";
    assert!(refused(recursive.into()).contains(&MAX_DEPTH.to_string()));
    let caller = "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}";
    assert!(refused(caller.into()).contains(&MAX_DEPTH.to_string()));
    let data = "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    assert!(refused(data.into()).contains(&MAX_DATA_DEPTH.to_string()));
    let itself = "{% set ns = namespace() %}{% set ns.x = ns %}";
    assert!(refused(itself.into()).contains("cannot hold a namespace"));
    let through_a_list = "{% set ns = namespace() %}{% set ns.x = [ns] %}";
    assert!(refused(through_a_list.into()).contains("cannot be put into a list"));
    for (open, close) in [("(", ")"), ("[", "]"), ("{'a':", "}"), ("not ", ""), ("-", ""), ("1 if 0 else ", "")] {
        let source = format!("{{{{ {}1{} }}}}", open.repeat(50_000), close.repeat(50_000));
        assert!(refused(source).contains(&MAX_NESTING.to_string()), "{open}");
    }
    assert!(refused(format!("{{{{ 1{} }}}}", " if 1".repeat(50_000))).contains("too many ifs"));
    let source = "{% if 1 %}".repeat(20_000) + &"{% endif %}".repeat(20_000);
    assert!(refused(source).contains(&MAX_NESTING.to_string()));
    assert!(refused("x".repeat(MAX_SOURCE + 1)).contains("bytes"));
}

#[test]
fn deep_input_is_refused() {
    let mut deep = serde_json::json!(1);
    for _ in 0..MAX_DATA_DEPTH + 1 {
        deep = serde_json::json!([deep]);
    }
    let options = RenderOptions { tools: vec![deep], ..RenderOptions::default() };
    let error = ChatTemplate::new("{{ tools }}", "", "").unwrap().render(&[], &options).unwrap_err();
    assert!(error.to_string().contains(&MAX_DATA_DEPTH.to_string()), "{error}");
}

#[test]
fn long_chains_are_no_nesting() {
    let links = 50_000;
    for (first, link) in
        [("1", " + 1"), ("''", " ~ ''"), ("1", " and 1"), ("0", " or 0"), ("1", " < 2 > 1"), ("''", "|trim")]
    {
        let source = format!("{{{{ ({first}{})|string|length }}}}", link.repeat(links));
        ChatTemplate::new(&source, "", "").unwrap().render(&[], &RenderOptions::default()).unwrap();
    }
}

#[test]
fn a_long_conversation_fits() {
    use crate::text::Message;
    let template = ChatTemplate::new(
        "{% for m in messages %}{% if m.role == 'user' %}<u>{{ m['content']|trim }}</u>\n{% else %}<a>{{ m.content }}</a>\n{% endif %}{% endfor %}",
        "",
        "",
    )
    .unwrap();
    let messages: Vec<Message> = (0..20_000)
        .map(|i| if i % 2 == 0 { Message::user(format!("{i} ").repeat(50)) } else { Message::assistant("yes") })
        .collect();
    assert!(template.render(&messages, &RenderOptions::default()).unwrap().text().len() > 2_000_000);
    let long = [Message::user("word ".repeat(8_000_000))];
    assert_eq!(template.render(&long, &RenderOptions::default()).unwrap().text().len(), 39_999_999 + 8);
}
