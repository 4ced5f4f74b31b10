//! minijinja set up as transformers sets up Jinja2: `trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`,
//! `raise_exception`, `strftime_now`, its `tojson`, Python's methods and Python's texts of values.

use super::clock::Clock;
use super::meter::{self, Meter};
use super::python;
use crate::base;
use minijinja::machinery::{CodeGenerator, Instructions, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, filters};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The longest source of a template, in bytes.
pub const MAX_SOURCE: usize = 1 << 20;
/// Instructions for any rendering, and more for each byte that came with the request.
const FUEL: u64 = 2_000_000;
const FUEL_PER_BYTE: u64 = 64;
/// Nested calls and blocks.
const RECURSION: usize = 100;

/// What minijinja cannot parse, said so that it can, on the same lines.
pub fn rewrite(source: &str) -> String {
    // transformers' own tag marks what the assistant wrote, for training; it renders as its body.
    static GENERATION: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})").expect("a valid pattern"));
    let source = GENERATION.replace_all(source, |found: &regex::Captures| {
        let tag = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{}{tag}{}", &found[1], &found[3])
    });
    source.replace("\r\n", "\n")
}

/// Characters that JSON shows as they are.
pub type Unescaped = fn(char) -> bool;

/// A compiled template.
pub struct Program<'s> {
    instructions: Instructions<'s>,
    blocks: BTreeMap<&'s str, Instructions<'s>>,
}

/// Compiles a source that [`rewrite`] went over. Fails with the line where it is no template.
pub fn compile(source: &str) -> base::Result<Program<'_>> {
    if source.len() > MAX_SOURCE {
        let what = format!("a chat template of {} bytes; at most {MAX_SOURCE} are allowed", source.len());
        return Err(base::Error::format(what));
    }
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(error)?;
    let tree = parse(source, "chat template", syntax).map_err(error)?;
    let mut generator = CodeGenerator::new("chat template", source);
    generator.compile_stmt(&tree);
    let (mut instructions, mut blocks) = generator.finish();
    let own: Vec<&str> = blocks.keys().copied().collect();
    for name in own {
        if let Some(mut block) = blocks.remove(name) {
            meter::tame(&mut block, &mut blocks);
            blocks.insert(name, block);
        }
    }
    meter::tame(&mut instructions, &mut blocks);
    Ok(Program { instructions, blocks })
}

impl Program<'_> {
    /// Renders with `names` defined, for a request of `input` bytes; JSON shows `unescaped` characters as they are.
    pub fn render(&self, names: Value, clock: Clock, input: usize, unescaped: Unescaped) -> base::Result<String> {
        let mut text = String::new();
        let meter = Meter::new(input);
        let env = environment(&meter, clock, input, unescaped);
        let mut output = make_string_output(&mut text);
        eval(&env, &self.instructions, names, &self.blocks, &mut output, AutoEscape::None).map_err(error)?;
        Ok(text)
    }
}

fn environment(meter: &Meter, clock: Clock, input: usize, unescaped: Unescaped) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_debug(true);
    env.set_fuel(Some(FUEL.saturating_add(FUEL_PER_BYTE.saturating_mul(input as u64))));
    env.set_recursion_limit(RECURSION);
    minijinja_contrib::add_to_environment(&mut env);
    meter::equip(&mut env, meter, unescaped);
    let meter = meter.clone();
    env.set_formatter(move |out, _, value| {
        let text = python::text(value)?;
        meter.text(text.len())?;
        Ok(out.write_str(&text)?)
    });
    env.add_filter("length", |value: &Value| if value.is_undefined() { Ok(0) } else { filters::length(value) });
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
    });
    env.add_function("dict", |pairs: Option<Value>, names: Kwargs| -> Result<Value, Error> {
        let pairs = pairs.map(|pairs| pairs.try_iter()).transpose()?.into_iter().flatten();
        let pairs = pairs.map(|pair| Ok((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?)));
        let names = names.args().map(|name| Ok((Value::from(name), names.peek(name)?)));
        Ok(Value::from_pairs(pairs.chain(names).collect::<Result<Vec<(Value, Value)>, Error>>()?))
    });
    env.add_function("strftime_now", move |format: &str| clock.format(format));
    env
}

/// Marks the template's own errors.
#[derive(Debug)]
struct Raised;

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for Raised {}

/// A failure in our words: where, and what the template or minijinja said.
fn error(error: Error) -> base::Error {
    static UNDEFINED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"`([^`]+)` is undefined\)?$").expect("a valid pattern"));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    let what = match UNDEFINED.captures(&detail) {
        Some(found) => format!("'{}' is undefined", &found[1]),
        None => detail,
    };
    let raised = std::error::Error::source(&error).is_some_and(|source| source.is::<Raised>());
    let error = base::Error::format(what).at(format!("chat template, line {}", error.line().unwrap_or(0)));
    if raised { error.help("the model's template refuses such a conversation") } else { error }
}
