//! Values as Python shows them: `str`, `repr` and `json.dumps`. Templates were written against these texts.
//!
//! Lists that hold each other make texts exponential in their source, so every writer has a depth and a length it stops at.

use super::meter::MAX_DEPTH;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use std::fmt::Write;

/// A JSON value as a template's value; objects keep their order.
pub fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(*b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (_, Some(n)) => Value::from(n),
            _ => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => Value::from(s.as_str()),
        serde_json::Value::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        serde_json::Value::Object(map) => Value::from_pairs(map.iter().map(|(k, v)| (k.as_str(), from_json(v)))),
    }
}

/// The longest text of a value that is none, in bytes.
const MAX_TEXT: usize = 16 << 20;

/// What `json.dumps` takes besides the value.
struct Layout {
    item: String,
    key: String,
    indent: Option<usize>,
    ascii: bool,
    unescaped: fn(char) -> bool,
    sort: bool,
}

/// How a value is written.
enum Style {
    Python,
    Json(Layout),
}

/// The name of a value's type.
pub fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        ValueKind::Bytes => "bytes",
        ValueKind::Seq if value.is_tuple() => "tuple",
        ValueKind::Seq => "list",
        ValueKind::Map => "dict",
        ValueKind::Iterable => "generator",
        _ => "object",
    }
}

struct Writer {
    out: String,
    style: Style,
}

/// `str(value)`.
pub fn text(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_string()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut writer = Writer { out: String::new(), style: Style::Python };
            writer.value(value, 0)?;
            Ok(writer.out)
        }
    }
}

/// The filter `tojson` as transformers has it: `json.dumps(x, ensure_ascii=False, …)`, without HTML escapes. Characters
/// that are `unescaped` stay so even if ASCII is asked for.
pub fn to_json(value: &Value, kwargs: Kwargs, unescaped: fn(char) -> bool) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let indent: Option<usize> = kwargs.get("indent")?;
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let [item, key] = separators
        .unwrap_or_else(|| [if indent.is_some() { "," } else { ", " }, ": "].map(String::from).to_vec())
        .try_into()
        .map_err(|_| Error::new(ErrorKind::InvalidOperation, "tojson: separators must be two"))?;
    let ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut writer = Writer {
        out: String::new(),
        style: Style::Json(Layout { item, key, indent: indent.map(|n| n.min(80)), ascii, unescaped, sort }),
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH || self.out.len() > MAX_TEXT {
            return Err(Error::new(ErrorKind::InvalidOperation, "the value is too large or too deep to be written"));
        }
        let json = matches!(self.style, Style::Json(_));
        match value.kind() {
            ValueKind::Undefined if json => return Err(Error::from(ErrorKind::UndefinedError)),
            ValueKind::Undefined => self.out.push_str("Undefined"),
            ValueKind::None => self.out.push_str(if json { "null" } else { "None" }),
            ValueKind::Bool => {
                let names = if json { ["false", "true"] } else { ["False", "True"] };
                self.out.push_str(names[usize::from(value.is_true())]);
            }
            ValueKind::Number if value.is_integer() => self.out.push_str(&value.to_string()),
            ValueKind::Number => self.out.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let tuple = value.is_tuple() && !json;
                let items = value.try_iter()?.checked().map(|item| item.map(|item| (None, item)));
                let items = items.collect::<Result<Vec<_>, _>>()?;
                let close = match (tuple, items.len()) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    _ => "]",
                };
                self.container(if tuple { "(" } else { "[" }, close, items, depth)?;
            }
            ValueKind::Map => {
                let mut items = Vec::new();
                for key in value.try_iter()?.checked() {
                    let key = key?;
                    items.push((Some(key.clone()), value.get_item(&key)?));
                }
                if matches!(&self.style, Style::Json(layout) if layout.sort) {
                    items.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.container("{", "}", items, depth)?;
            }
            _ if json => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("object of type {} is not JSON serializable", value.kind()),
                ));
            }
            _ => self.out.push_str(&value.to_string()),
        }
        Ok(())
    }

    fn container(
        &mut self,
        open: &str,
        close: &str,
        items: Vec<(Option<Value>, Value)>,
        depth: usize,
    ) -> Result<(), Error> {
        let (item, colon, indent) = match &self.style {
            Style::Python => (", ".to_string(), ": ".to_string(), None),
            Style::Json(layout) => (layout.item.clone(), layout.key.clone(), layout.indent),
        };
        let filled = !items.is_empty();
        self.out.push_str(open);
        for (i, (key, value)) in items.into_iter().enumerate() {
            if i > 0 {
                self.out.push_str(&item);
            }
            self.line(indent, depth + 1);
            match key {
                // Keys of JSON are strings whatever they were.
                Some(key) if key.kind() != ValueKind::String && matches!(self.style, Style::Json(_)) => {
                    self.out.push('"');
                    self.value(&key, depth + 1)?;
                    self.out.push('"');
                    self.out.push_str(&colon);
                }
                Some(key) => {
                    self.value(&key, depth + 1)?;
                    self.out.push_str(&colon);
                }
                None => {}
            }
            self.value(&value, depth + 1)?;
        }
        if filled {
            self.line(indent, depth);
        }
        self.out.push_str(close);
        Ok(())
    }

    fn line(&mut self, indent: Option<usize>, depth: usize) {
        if let Some(indent) = indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, text: &str) {
        let quote = match self.style {
            Style::Python if !text.contains('\'') || text.contains('"') => '\'',
            _ => '"',
        };
        let (json, ascii) = match &self.style {
            Style::Python => (false, None),
            Style::Json(layout) => (true, layout.ascii.then_some(layout.unescaped)),
        };
        self.out.push(quote);
        for c in text.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' if json => self.out.push_str("\\b"),
                '\u{c}' if json => self.out.push_str("\\f"),
                c if c == quote => self.out.extend(['\\', c]),
                c if json && (c < ' ' || ascii.is_some_and(|unescaped| c > '~' && !unescaped(c))) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c if !json && c.is_control() => {
                    let _ = write!(self.out, "\\x{:02x}", u32::from(c));
                }
                c => self.out.push(c),
            }
        }
        self.out.push(quote);
    }
}

/// A float as Python's `repr` has it: scientific below 1e-4 and from 1e16, always with a point or an exponent.
fn float(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        return "nan".to_string();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_string();
    }
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{value:?}");
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}
