//! minijinja set up as transformers sets up Jinja2: `trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`,
//! `raise_exception`, its `tojson`, Python's methods and Python's texts of values; and what a template may cost.

use super::python;
use crate::base;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;
use regex::Regex;
use std::fmt::Write;
use std::sync::LazyLock;

/// The longest text a template may make, in bytes.
pub const MAX_TEXT: usize = 16 << 20;
/// The deepest nesting of data that is written.
pub const MAX_DEPTH: usize = 100;
/// Instructions for any rendering.
const FUEL: u64 = 5_000_000;
/// Nested calls and blocks.
const RECURSION: usize = 100;
/// The name the template has in its environment.
const NAME: &str = "chat";

/// Compiles a template. Fails with the line where it is none.
pub fn compile(source: &str) -> base::Result<Environment<'static>> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(error)?;
    env.set_syntax(syntax);
    env.set_debug(true);
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION);
    env.set_formatter(|out, _, value| {
        let written = match value.as_str() {
            Some(text) => out.write_str(text),
            None => out.write_str(&python::text(value)?),
        };
        written.map_err(|_| Error::new(ErrorKind::InvalidOperation, "the template's output is too long"))
    });
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", python::to_json);
    env.add_filter("string", |value: &Value| python::text(value));
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    env.add_template_owned(NAME, rewrite(source)).map_err(error)?;
    Ok(env)
}

/// Renders with `names` defined.
pub fn render(env: &Environment, names: Value) -> base::Result<String> {
    env.get_template(NAME).and_then(|template| template.render(names)).map_err(error)
}

/// What minijinja cannot parse, said so that it can, on the same lines.
fn rewrite(source: &str) -> String {
    // transformers' own tag marks what the assistant wrote, for training; it renders as its body.
    static GENERATION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})").expect("a valid pattern"));
    let source = GENERATION.replace_all(source, |found: &regex::Captures| {
        let tag = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{}{tag}{}", &found[1], &found[3])
    });
    source.into_owned()
}

/// Python's methods: minijinja's collection and what it lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return pycompat::unknown_method_callback(state, value, name, args) };
    let arg = |i: usize| args.get(i).and_then(Value::as_str);
    match (name, arg(0)) {
        ("removeprefix", Some(prefix)) => Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text))),
        ("removesuffix", Some(suffix)) => Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text))),
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// The template's failure in our words: where, and what it or minijinja said.
fn error(error: Error) -> base::Error {
    let line = error.line().unwrap_or(0);
    let what = match error.detail() {
        Some(detail) => detail.to_string(),
        None => error.kind().to_string(),
    };
    base::Error::format(what).at(format!("chat template, line {line}"))
}
