//! Values as text: Python's `str()` and `repr()`. Strings keep their origin, character by character.

use super::fault::Result;
use super::limits::Budget;
use super::taint::{Text, TextBuilder};
use super::value::{ListKind, Value};

impl Value {
    /// Python's `str()`.
    pub fn to_text(&self, budget: &Budget) -> Result<Text> {
        if let Value::Str(text) = self {
            return Ok(text.clone());
        }
        let mut out = TextBuilder::default();
        self.write_repr(&mut out, budget)?;
        Ok(out.finish())
    }

    /// Appends Python's `str()`.
    pub fn write(&self, out: &mut TextBuilder, budget: &Budget) -> Result<()> {
        match self {
            Value::Str(text) => {
                budget.append(out.len(), text.weight())?;
                out.push(text);
                Ok(())
            }
            Value::Undefined(_) => Ok(()),
            _ => self.write_repr(out, budget),
        }
    }

    /// Appends Python's `repr()`.
    pub fn write_repr(&self, out: &mut TextBuilder, budget: &Budget) -> Result<()> {
        budget.append(out.len(), 32)?;
        match self {
            Value::Undefined(_) => {}
            Value::None => out.push_str("None", false),
            Value::Bool(b) => out.push_str(if *b { "True" } else { "False" }, false),
            Value::Int(i) => out.push_str(&i.to_string(), false),
            Value::Float(f) => out.push_str(&float_repr(*f), false),
            Value::Str(text) => {
                budget.append(out.len(), 4 * text.weight())?;
                write_str_repr(text, out);
            }
            Value::List(list) => {
                let (open, close) = if list.kind == ListKind::Tuple { ("(", ")") } else { ("[", "]") };
                out.push_str(open, false);
                for (i, item) in list.items.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" }, false);
                    item.write_repr(out, budget)?;
                }
                let lone = list.kind == ListKind::Tuple && list.items.len() == 1;
                out.push_str(if lone { "," } else { "" }, false);
                out.push_str(close, false);
            }
            Value::Dict(dict) => {
                out.push_str("{", false);
                for (i, (key, value)) in dict.entries.iter().enumerate() {
                    out.push_str(if i > 0 { ", " } else { "" }, false);
                    key.write_repr(out, budget)?;
                    out.push_str(": ", false);
                    value.write_repr(out, budget)?;
                }
                out.push_str("}", false);
            }
            other => out.push_str(&format!("<{}>", other.type_name()), false),
        }
        Ok(())
    }
}

/// A float as Python prints it: the shortest digits that read back the same, with an exponent outside 1e-4 … 1e16.
pub fn float_repr(f: f64) -> String {
    if f.is_nan() {
        return "nan".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let magnitude = f.abs();
    if magnitude == 0.0 || (1e-4..1e16).contains(&magnitude) {
        return format!("{f:?}");
    }
    let text = format!("{f:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn write_str_repr(text: &Text, out: &mut TextBuilder) {
    let chars = text.as_str();
    let quote = if chars.contains('\'') && !chars.contains('"') { '"' } else { '\'' };
    out.push_char(quote, false);
    for (c, user) in text.chars() {
        match c {
            '\n' => out.push_str("\\n", user),
            '\r' => out.push_str("\\r", user),
            '\t' => out.push_str("\\t", user),
            '\\' => out.push_str("\\\\", user),
            c if c == quote => out.push_str(&format!("\\{c}"), user),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32), user),
            c => out.push_char(c, user),
        }
    }
    out.push_char(quote, false);
}
