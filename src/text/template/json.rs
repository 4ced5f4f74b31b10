//! `tojson` as transformers sets it: Python's `json.dumps` without HTML escapes, `ensure_ascii` off unless asked for.

use super::fault::{Fault, Result};
use super::limits::Budget;
use super::repr::float_repr;
use super::taint::{Text, TextBuilder};
use super::value::Value;

/// `json.dumps`'s arguments.
pub struct JsonStyle {
    pub ensure_ascii: bool,
    /// Text of one level of indentation; none puts everything on one line.
    pub indent: Option<String>,
    pub item_separator: String,
    pub key_separator: String,
    pub sort_keys: bool,
}

impl JsonStyle {
    /// Python's separators for an indentation.
    pub fn new(indent: Option<String>) -> JsonStyle {
        let item_separator = if indent.is_some() { "," } else { ", " };
        JsonStyle {
            ensure_ascii: false,
            indent,
            item_separator: item_separator.into(),
            key_separator: ": ".into(),
            sort_keys: false,
        }
    }
}

/// The JSON of a value. Strings keep their origin, character by character.
pub fn to_json(value: &Value, style: &JsonStyle, budget: &Budget) -> Result<Text> {
    let mut writer = Writer { style, budget, out: TextBuilder::default() };
    writer.value(value, 0)?;
    Ok(writer.out.finish())
}

struct Writer<'a> {
    style: &'a JsonStyle,
    budget: &'a Budget,
    out: TextBuilder,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, level: usize) -> Result<()> {
        self.budget.append(self.out.len(), 32)?;
        match value {
            Value::None => self.out.push_str("null", false),
            Value::Bool(b) => self.out.push_str(if *b { "true" } else { "false" }, false),
            Value::Int(i) => self.out.push_str(&i.to_string(), false),
            Value::Float(f) => self.out.push_str(&json_float(*f), false),
            Value::Str(text) => self.string(text)?,
            Value::List(list) => {
                self.container("[", "]", list.items.len(), level, |w, i| w.value(&list.items[i], level + 1))?
            }
            Value::Dict(dict) => {
                let mut entries: Vec<&(Value, Value)> = dict.entries.iter().collect();
                if self.style.sort_keys {
                    entries.sort_by(|a, b| a.0.compare(&b.0, "<", self.budget).unwrap_or(std::cmp::Ordering::Equal));
                }
                self.container("{", "}", entries.len(), level, |w, i| {
                    let (key, value) = entries[i];
                    w.key(key)?;
                    w.out.push_str(&w.style.key_separator, false);
                    w.value(value, level + 1)
                })?
            }
            other => return Err(Fault::ty(format!("Object of type {} is not JSON serializable", other.type_name()))),
        }
        Ok(())
    }

    fn container(
        &mut self,
        open: &str,
        close: &str,
        count: usize,
        level: usize,
        mut item: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        self.out.push_str(open, false);
        for i in 0..count {
            if i > 0 {
                self.out.push_str(&self.style.item_separator, false);
            }
            self.line(level + 1)?;
            item(self, i)?;
        }
        if count > 0 {
            self.line(level)?;
        }
        self.out.push_str(close, false);
        Ok(())
    }

    fn line(&mut self, level: usize) -> Result<()> {
        if let Some(indent) = &self.style.indent {
            self.budget.append(self.out.len(), level * indent.len())?;
            self.out.push_str("\n", false);
            for _ in 0..level {
                self.out.push_str(indent, false);
            }
        }
        Ok(())
    }

    fn key(&mut self, key: &Value) -> Result<()> {
        let text = match key {
            Value::Str(text) => return self.string(text),
            Value::None => "null".to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Int(i) => i.to_string(),
            Value::Float(f) => json_float(*f),
            other => {
                let name = other.type_name();
                return Err(Fault::ty(format!("keys must be str, int, float, bool or None, not {name}")));
            }
        };
        self.string(&Text::template(text))
    }

    fn string(&mut self, text: &Text) -> Result<()> {
        self.budget.append(self.out.len(), 2 * text.weight())?;
        self.out.push_str("\"", false);
        for (c, user) in text.chars() {
            match c {
                '"' => self.out.push_str("\\\"", user),
                '\\' => self.out.push_str("\\\\", user),
                '\n' => self.out.push_str("\\n", user),
                '\r' => self.out.push_str("\\r", user),
                '\t' => self.out.push_str("\\t", user),
                '\x08' => self.out.push_str("\\b", user),
                '\x0c' => self.out.push_str("\\f", user),
                c if (c as u32) < 0x20 || (self.style.ensure_ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"), user);
                    }
                }
                c => self.out.push_char(c, user),
            }
        }
        self.out.push_str("\"", false);
        Ok(())
    }
}

fn json_float(f: f64) -> String {
    match float_repr(f).as_str() {
        "nan" => "NaN".into(),
        "inf" => "Infinity".into(),
        "-inf" => "-Infinity".into(),
        other => other.into(),
    }
}
