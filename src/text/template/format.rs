//! Python's two ways to format strings: `'%s' % x` and `'{}'.format(x)`, as far as templates go: strings, whole numbers,
//! fixed and general floats, width, alignment and zeros.

use super::fault::{Fault, Result};
use super::functions::CallArgs;
use super::json::{JsonStyle, to_json};
use super::limits::Budget;
use super::operators;
use super::taint::{Text, TextBuilder};
use super::value::{ListKind, Value};

/// How one value is laid out.
#[derive(Debug, Default)]
struct Spec {
    fill: Option<char>,
    /// `<`, `>` or `^`
    align: Option<char>,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
    kind: Option<char>,
}

const MAX_WIDTH: usize = 1000;

/// `format % value`: a tuple gives several values, a dict named ones.
pub fn percent_format(format: &Text, value: &Value, budget: &Budget) -> Result<Text> {
    let values: &[Value] = match value {
        Value::List(list) if list.kind == ListKind::Tuple => &list.items,
        other => std::slice::from_ref(other),
    };
    let mut next = values.iter();
    let mut out = TextBuilder::default();
    let chars = format.as_str();
    let mut at = 0;
    while let Some(percent) = chars[at..].find('%').map(|i| at + i) {
        out.push_slice(format, at..percent);
        at = percent + 1;
        let mut named = None;
        if chars[at..].starts_with('(') {
            let end = chars[at..].find(')').ok_or_else(|| Fault::value("incomplete format key"))?;
            named = Some(&chars[at + 1..at + end]);
            at += end + 1;
        }
        let kind_at = chars[at..].find(|c: char| c.is_alphabetic() || c == '%').map(|i| at + i);
        let kind_at = kind_at.ok_or_else(|| Fault::value("incomplete format"))?;
        let kind = chars[kind_at..].chars().next().unwrap_or('%');
        let mut spec = parse_spec(&chars[at..kind_at])?;
        if spec.align.is_none() {
            spec.align = Some(if chars[at..kind_at].starts_with('-') { '<' } else { '>' });
        }
        at = kind_at + kind.len_utf8();
        if kind == '%' {
            out.push_str("%", false);
            continue;
        }
        let value = match (named, value) {
            (Some(name), Value::Dict(dict)) => {
                dict.get(name).ok_or_else(|| Fault::value(format!("no key {name:?}")))?
            }
            (Some(_), _) => return Err(Fault::ty("format requires a mapping")),
            (None, _) => next.next().ok_or_else(|| Fault::ty("not enough arguments for format string"))?,
        };
        spec.kind = Some(kind);
        layout(value, &spec, &mut out, budget)?;
    }
    out.push_slice(format, at..chars.len());
    if next.next().is_some() && !matches!(value, Value::Dict(_)) {
        return Err(Fault::ty("not all arguments converted during string formatting"));
    }
    Ok(out.finish())
}

/// `format.format(…)`
pub fn brace_format(format: &Text, args: &CallArgs, budget: &Budget) -> Result<Text> {
    let mut out = TextBuilder::default();
    let chars = format.as_str();
    let (mut at, mut automatic) = (0, 0);
    while let Some(brace) = chars[at..].find(['{', '}']).map(|i| at + i) {
        out.push_slice(format, at..brace);
        let doubled = chars.as_bytes().get(brace + 1) == Some(&chars.as_bytes()[brace]);
        if doubled {
            out.push_slice(format, brace..brace + 1);
            at = brace + 2;
            continue;
        }
        if chars.as_bytes()[brace] == b'}' {
            return Err(Fault::value("single '}' encountered in format string"));
        }
        let end = chars[brace..].find('}').map(|i| brace + i);
        let end = end.ok_or_else(|| Fault::value("single '{' encountered in format string"))?;
        let field = &chars[brace + 1..end];
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (field, conversion) = field.split_once('!').unwrap_or((field, ""));
        let mut value = field_value(field, args, &mut automatic, budget)?;
        if conversion == "r" {
            let mut repr = TextBuilder::default();
            value.write_repr(&mut repr, budget)?;
            value = Value::Str(repr.finish());
        }
        layout(&value, &parse_spec(spec)?, &mut out, budget)?;
        at = end + 1;
    }
    out.push_slice(format, at..chars.len());
    Ok(out.finish())
}

/// The value of `0`, `name`, `name.attr`, `0[key]` or nothing, which counts up.
fn field_value(field: &str, args: &CallArgs, automatic: &mut usize, budget: &Budget) -> Result<Value> {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let (name, mut path) = field.split_at(end);
    let missing = || Fault::value(format!("nothing to put at {{{name}}}"));
    let mut value = if let Ok(index) = name.parse::<usize>() {
        args.positional.get(index).ok_or_else(missing)?.clone()
    } else if name.is_empty() {
        *automatic += 1;
        args.positional.get(*automatic - 1).ok_or_else(missing)?.clone()
    } else {
        args.named.iter().find(|(n, _)| **n == *name).map(|(_, v)| v.clone()).ok_or_else(missing)?
    };
    while !path.is_empty() {
        if let Some(rest) = path.strip_prefix('.') {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            value = operators::attribute(&value, &rest[..end].into())?;
            path = &rest[end..];
        } else {
            let (key, rest) = path[1..].split_once(']').ok_or_else(|| Fault::value("missing ']' in format string"))?;
            let index = key.parse().map_or_else(|_| Value::str(key), Value::Int);
            value = operators::item(&value, &index, budget)?;
            path = rest;
        }
    }
    Ok(value)
}

fn parse_spec(text: &str) -> Result<Spec> {
    let mut spec = Spec::default();
    let mut chars = text.chars().peekable();
    let second = text.chars().nth(1);
    if matches!(second, Some('<' | '>' | '^')) {
        spec.fill = chars.next();
    }
    spec.align = chars.next_if(|c| matches!(c, '<' | '>' | '^'));
    while let Some(flag) = chars.next_if(|c| matches!(c, '+' | '-' | ' ' | '#')) {
        spec.plus |= flag == '+';
    }
    spec.zero = chars.next_if_eq(&'0').is_some();
    let number = |chars: &mut std::iter::Peekable<std::str::Chars>| -> Result<Option<usize>> {
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        match digits.parse() {
            _ if digits.is_empty() => Ok(None),
            Ok(n) if n <= MAX_WIDTH => Ok(Some(n)),
            _ => Err(Fault::limit(format!("a width or precision over {MAX_WIDTH}"))),
        }
    };
    spec.width = number(&mut chars)?.unwrap_or(0);
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = number(&mut chars)?;
    }
    spec.kind = chars.next();
    match chars.next() {
        None => Ok(spec),
        Some(_) => Err(Fault::value(format!("format {text:?} is not supported"))),
    }
}

/// The text of a value by its spec's kind, before padding.
fn converted(value: &Value, spec: &Spec, numeric: bool, budget: &Budget) -> Result<Text> {
    Ok(match spec.kind {
        Some('d' | 'i') => match (value.as_int(), value) {
            (Some(int), _) => Text::template(int.to_string()),
            (None, Value::Float(f)) => Text::template(format!("{}", f.trunc())),
            _ => return Err(Fault::ty(format!("a number is required, not {}", value.type_name()))),
        },
        Some(kind @ ('x' | 'X' | 'o' | 'b')) => {
            let int = value.as_int().ok_or_else(|| Fault::ty("an integer is required"))?;
            Text::template(match kind {
                'x' => format!("{int:x}"),
                'X' => format!("{int:X}"),
                'o' => format!("{int:o}"),
                _ => format!("{int:b}"),
            })
        }
        Some('f' | 'F') => {
            let float = value.as_float().ok_or_else(|| Fault::ty("a number is required"))?;
            Text::template(format!("{float:.*}", spec.precision.unwrap_or(6)))
        }
        Some('r') => {
            let mut repr = TextBuilder::default();
            value.write_repr(&mut repr, budget)?;
            repr.finish()
        }
        Some('j') => to_json(value, &JsonStyle::new(None), budget)?,
        None | Some('s' | 'g' | 'G') => {
            let text = value.to_text(budget)?;
            match spec.precision {
                Some(precision) if !numeric => {
                    let end = text.as_str().char_indices().nth(precision).map_or(text.len(), |(at, _)| at);
                    text.slice(0..end)
                }
                _ => text,
            }
        }
        Some(kind) => return Err(Fault::value(format!("unsupported format character {kind:?}"))),
    })
}

/// Appends a value laid out by its spec.
fn layout(value: &Value, spec: &Spec, out: &mut TextBuilder, budget: &Budget) -> Result<()> {
    let numeric = value.as_float().is_some() && !matches!(spec.kind, Some('s' | 'r'));
    let body = converted(value, spec, numeric, budget)?;
    budget.append(out.len(), body.weight() + 4 * spec.width)?;
    let body = if spec.plus && numeric && !body.as_str().starts_with('-') {
        Text::template(format!("+{}", body.as_str()))
    } else {
        body
    };
    let pad = spec.width.saturating_sub(body.as_str().chars().count());
    let align = spec.align.unwrap_or(if numeric { '>' } else { '<' });
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    if spec.zero && numeric && spec.fill.is_none() {
        let sign = body.as_str().starts_with(['-', '+']) as usize;
        out.push_slice(&body, 0..sign);
        out.push_str(&"0".repeat(pad), false);
        out.push_slice(&body, sign..body.len());
        return Ok(());
    }
    let before = match align {
        '<' => 0,
        '^' => pad / 2,
        _ => pad,
    };
    out.push_str(&fill.to_string().repeat(before), false);
    out.push(&body);
    out.push_str(&fill.to_string().repeat(pad - before), false);
    Ok(())
}
