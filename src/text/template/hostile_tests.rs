//! Templates that mean harm: each must end soon, within bounded memory and stack, with an error that says why.

use super::environment::MAX_SOURCE;
use super::meter::MAX_DEPTH;
use super::{ChatTemplate, RenderOptions};
use std::time::{Duration, Instant};

/// Renders on a thread with little stack; the error it gave.
fn refused(source: String) -> String {
    let run = move || {
        let start = Instant::now();
        let result = ChatTemplate::new(&source, "", "").and_then(|t| t.render(&[], &RenderOptions::default()));
        let error = result.map(|p| p.text().len()).expect_err(&source[..source.len().min(80)]).to_string();
        (error, start.elapsed())
    };
    // The main thread has 8 MiB, others 2.
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread");
    let (error, took) = thread.join().expect("no panic");
    assert!(took < Duration::from_secs(20), "took {took:?}: {error}");
    error
}

fn is_limit(error: &str) -> bool {
    ["too much work", "makes a text of", "makes a list of", "ran out of fuel", "too large", "recursion limit"]
        .iter()
        .any(|l| error.contains(l))
}

#[test]
fn endless_work_is_cut_short() {
    let nested = "{% for a in range(100000) %}".repeat(6) + &"{% endfor %}".repeat(6);
    let long = "{% set x = 'ab' * 99 %}{% set x = x * 99 %}{% set x = x * 40 %}{% for i in range(100000) %}";
    let shared = "{% set x = [1] %}".to_string() + &"{% set x = [x, x] %}".repeat(90);
    let raw = "{% set y %}{% for i in range(100000) %}{% for j in range(100000) %}".to_string() + &"z".repeat(9999);
    for source in [
        nested,
        "{% for i in range(100000) %}{% for j in range(100000) %}{{ i }}{% endfor %}{% endfor %}".into(),
        format!("{long}{{% set y = x.upper() %}}{{% endfor %}}"),
        format!("{long}{{% set y = x[1:] %}}{{% endfor %}}"),
        format!("{long}{{{{ x|trim|length }}}}{{% endfor %}}"),
        format!("{long}{{% if x.find('c') %}}{{% endif %}}{{% endfor %}}"),
        format!("{raw}{{% endfor %}}{{% endfor %}}{{% endset %}}"),
        // A list of 2^90 elements in 90 lists.
        shared.clone() + "{{ x|tojson|length }}",
        shared + "{% set y = [x, x] %}{{ y[0] == y[1] }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + ['a' * 99] %}{% endfor %}"
            .into(),
    ] {
        let error = refused(source.clone());
        assert!(is_limit(&error), "{source:.80}: {error}");
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
        doubling("{% set x = x|replace('', x) %}"),
        doubling("{% set x = '%s%s' % (x, x) %}"),
        doubling("{% set x = '%s%s'|format(x, x) %}"),
        doubling("{% set x = '{0}{0}'.format(x) %}"),
        doubling("{% set x = [x, x]|tojson %}"),
        doubling("{% set x = [x, x]|string %}"),
        doubling("{% set x = x|escape|string ~ '&&&&' ~ x %}"),
        "{% for a in ['aaaa' * 99] %}".to_string() + &"{% for a in [a ~ a] %}".repeat(40) + &"{% endfor %}".repeat(41),
        "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaaaaaa') }}".into(),
        "{% set x = ['a'] %}".to_string() + &"{% set x = x + x %}".repeat(60),
        "{% set n = 100000000 %}{% set x = [1] * n %}".into(),
        "{% set n = 99999999 %}{{ 'a' * n }}".into(),
    ] {
        let error = refused(source.clone());
        assert!(is_limit(&error), "{source:.80}: {error}");
    }
    for source in [
        "{{ range(10000000) }}",
        "{{ '%1000000d' % 1 }}",
        "{{ '{:1000000}'.format(1) }}",
        "{{ 'a'.ljust(100000000000) }}",
        "{{ 'a'|indent(1000000000) }}",
        "{{ [1]|batch(1000000000, 0)|list }}",
        "{{ 9 ** 99999 }}",
        "{{ 170141183460469231731687303715884105727 * 9 }}",
    ] {
        refused(source.into());
    }
}

#[test]
fn deep_nesting_is_cut_short() {
    let recursion = [
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% set x = [1] %}{% for i in x recursive %}{{ loop(x) }}{% endfor %}",
        "{% macro m() %}{{ caller() }}{% call m() %}x{% endcall %}{% endmacro %}{% call m() %}y{% endcall %}",
    ];
    for source in recursion {
        let error = refused(source.into());
        assert!(error.contains("recursion limit"), "{source}: {error}");
    }
    let data = "{% set ns = namespace(x=[]) %}{% for i in range(1000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    assert!(refused(data.into()).contains(&MAX_DEPTH.to_string()));
    let chains = [
        "{% set ns.x = ns.x|batch(1) %}",
        "{% set ns.x = dict(a=ns.x) %}",
        "{% set ns.x = {'a': ns.x.values()} %}",
        "{% set ns.x = [ns.x|map('upper')] %}",
    ];
    for step in chains {
        let start = "{% set ns = namespace(x={'a': 1}) %}{% for i in range(100000) %}";
        let error = refused(format!("{start}{step}{{% endfor %}}"));
        assert!(is_limit(&error) || error.contains("method"), "{step}: {error}");
    }
    // No end of slices, each of the last: legal, and no chain.
    let slices = "{% set ns = namespace(x=[1, 2]) %}{% for i in range(100000) %}{% set ns.x = ns.x[0:2]|reverse|select|list %}{% endfor %}{{ ns.x }}";
    assert_eq!(
        ChatTemplate::new(slices, "", "").unwrap().render(&[], &RenderOptions::default()).unwrap().text(),
        "[1, 2]"
    );
    let itself = "{% set ns = namespace(a=1) %}{% set ns.x = ";
    for value in ["ns", "[ns]", "namespace()", "ns or 1", "dict(a=ns)", "{1: ns}", "(ns, 1)", "ns|default(1)"] {
        let error = refused(format!("{itself}{value} %}}"));
        assert!(error.contains("cannot be put into another value"), "{value}: {error}");
    }
    let keeps = "{% set ns = namespace() %}{% for i in [1] %}{% set ns.x = loop %}{% endfor %}";
    assert!(refused(keeps.into()).contains("cannot be put into another value"));
    for source in ["{{ 'a' * 99999999 }}", "{{ 'a' * 99 * 99 }}", "{{ (1,) * 10 ** 8 }}"] {
        assert!(refused(source.into()).contains("product"));
    }
    for (first, link) in [("1", " + 1"), ("''", " ~ ''"), ("1", " and 1"), ("''", "|trim"), ("x", ".x"), ("x", "[1]")] {
        assert!(refused(format!("{{{{ {first}{} }}}}", link.repeat(20_000))).contains("too many words"));
    }
    assert!(
        refused("{% if 1 %}".to_string() + &"{% elif 1 %}".repeat(9999) + "{% endif %}").contains("too many elifs")
    );
    for (open, close) in [("(", ")"), ("[", "]"), ("{'a':", "}"), ("not ", ""), ("-", ""), ("1 if 0 else ", "")] {
        refused(format!("{{{{ {}1{} }}}}", open.repeat(50_000), close.repeat(50_000)));
    }
    refused("{% if 1 %}".repeat(20_000) + &"{% endif %}".repeat(20_000));
    assert!(refused("x".repeat(MAX_SOURCE + 1)).contains("bytes"));
}

#[test]
fn deep_input_is_refused() {
    let mut deep = serde_json::json!(1);
    for _ in 0..MAX_DEPTH + 2 {
        deep = serde_json::json!([deep]);
    }
    let options = RenderOptions { tools: vec![deep], ..RenderOptions::default() };
    let error = ChatTemplate::new("{{ tools }}", "", "").unwrap().render(&[], &options).unwrap_err();
    assert!(error.to_string().contains("too deep"), "{error}");
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
