//! minijinja set up as transformers sets up Jinja2: `trim_blocks`, `lstrip_blocks`, loop controls, `{% generation %}`,
//! `raise_exception`, `strftime_now`, its `tojson`, Python's methods and Python's texts of values.

use super::clock::Clock;
use super::meter::{self, Meter, Raised};
use super::python;
use crate::base;
use minijinja::machinery::{CodeGenerator, Instructions, Token, eval, make_string_output, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, Value, filters};
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The longest source of a template, in bytes.
pub const MAX_SOURCE: usize = 1 << 20;
/// The most words of a tag.
const MAX_TOKENS: usize = 2000;
/// The most `elif`s of a template.
const MAX_ELIFS: usize = 400;
/// The largest number in a tag that multiplies, which it may do once.
const MAX_FACTOR: u64 = 100;
/// Instructions for any rendering, and more for each byte that came with the request.
const FUEL: u64 = 2_000_000;
const FUEL_PER_BYTE: u64 = 64;
/// Nested calls and blocks.
const RECURSION: usize = 200;

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
    assignments: Vec<meter::Assignment<'s>>,
}

/// Compiles a source that [`rewrite`] went over. Fails with the line where it is no template.
pub fn compile(source: &str) -> base::Result<Program<'_>> {
    if source.len() > MAX_SOURCE {
        let what = format!("a chat template of {} bytes; at most {MAX_SOURCE} are allowed", source.len());
        return Err(base::Error::format(what));
    }
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(error)?;
    inspect(source, &syntax)?;
    let tree = parse(source, "chat template", syntax).map_err(error)?;
    let mut generator = CodeGenerator::new("chat template", source);
    generator.compile_stmt(&tree);
    let (mut instructions, mut blocks) = generator.finish();
    let mut assignments = Vec::new();
    let own: Vec<&str> = blocks.keys().copied().collect();
    for name in own {
        if let Some(mut block) = blocks.remove(name) {
            meter::tame(&mut block, &mut blocks, &mut assignments).map_err(refusal)?;
            blocks.insert(name, block);
        }
    }
    meter::tame(&mut instructions, &mut blocks, &mut assignments).map_err(refusal)?;
    assignments.sort_unstable();
    assignments.dedup();
    Ok(Program { instructions, blocks, assignments })
}

fn refusal(what: &'static str) -> base::Error {
    base::Error::unsupported(what).at("chat template")
}

/// Refuses sources that parsing alone would make too much of: chains of operators take a level of the stack for each
/// link, and products of constants are worked out at once.
fn inspect(source: &str, syntax: &SyntaxConfig) -> base::Result<()> {
    let (mut tokens, mut products, mut largest, mut elifs, mut numbers_only) = (0, 0, 0, 0, true);
    for token in tokenize(source, false, syntax.clone()) {
        let (token, span) = token.map_err(error)?;
        tokens += 1;
        match token {
            Token::BlockStart | Token::VariableStart => {
                (tokens, products, largest, numbers_only) = (0, 0, 0, true);
            }
            Token::Str(_) | Token::String(_) | Token::Comma => numbers_only = false,
            Token::Mul | Token::Pow => products += 1,
            Token::Int(n) => largest = largest.max(n),
            Token::Int128(_) => largest = u64::MAX,
            Token::Ident("elif") => elifs += 1,
            _ => {}
        }
        let is_large = products > 1 || (products == 1 && largest > MAX_FACTOR);
        let what = match () {
            () if tokens > MAX_TOKENS => "a tag of too many words",
            () if elifs > MAX_ELIFS => "too many elifs",
            () if is_large && !numbers_only => "a product of constants too large",
            () => continue,
        };
        return Err(refusal(what).at(format!("line {}", span.start_line)));
    }
    Ok(())
}

impl Program<'_> {
    /// Renders with `names` defined, for a request of `input` bytes; JSON shows `unescaped` characters as they are.
    pub fn render(&self, names: Value, clock: Clock, input: usize, unescaped: Unescaped) -> base::Result<String> {
        let mut text = String::new();
        let meter = Meter::new(input);
        let mut env = environment(&meter, clock, input, unescaped);
        meter::assign(&mut env, &meter, &self.assignments);
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
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String)
    });
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    env.add_function("strftime_now", move |format: &str| clock.format(format));
    env
}

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
