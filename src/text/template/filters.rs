//! Jinja2's filters: the ones on single values here, those on sequences in `filters_seq`.

use super::fault::{Fault, Result};
use super::functions::CallArgs;
use super::interp::Interp;
use super::json::{JsonStyle, to_json};
use super::lexer::is_space;
use super::methods_str::{capitalize, strip, title};
use super::taint::{Text, TextBuilder};
use super::value::{ListKind, Value};

impl Interp<'_> {
    /// Applies a filter.
    pub fn filter(&mut self, name: &str, value: Value, args: CallArgs) -> Result<Value> {
        self.budget.work(1)?;
        match name {
            "tojson" => self.tojson(&value, &args),
            "default" | "d" => {
                let replace = match &value {
                    Value::Undefined(_) => true,
                    other => args.flag(1, "boolean", false) && !other.is_true(),
                };
                let default = || args.get(0, "default_value").cloned().unwrap_or_else(|| Value::str(""));
                Ok(if replace { default() } else { value })
            }
            "length" | "count" => self.length(&value),
            "string" => value.to_text(self.budget).map(Value::Str),
            "safe" => Ok(Value::Str(value.to_text(self.budget)?.into_markup())),
            "int" => Ok(Value::Int(to_int(&value, &args))),
            "float" => Ok(Value::Float(to_float(&value, &args))),
            "abs" => match (&value, value.as_int()) {
                (Value::Float(f), _) => Ok(Value::Float(f.abs())),
                (_, Some(int)) => Ok(Value::Int(int.saturating_abs())),
                _ => Err(Fault::ty(format!("bad operand type for abs(): '{}'", value.type_name()))),
            },
            "round" => self.round(&value, &args),
            "attr" => {
                let name = args.text(0, "name")?.ok_or_else(|| Fault::ty("attr needs a name"))?;
                super::operators::attribute(&value, &name.as_str().into())
            }
            "upper" | "lower" | "trim" | "title" | "capitalize" | "replace" | "indent" | "e" | "escape"
            | "wordcount" | "truncate" | "format" | "center" | "urlencode" => {
                let text = value.to_text(self.budget)?;
                self.budget.text(text.weight())?;
                self.text_filter(name, &text, args)
            }
            _ => self.sequence_filter(name, value, args),
        }
    }

    fn text_filter(&mut self, name: &str, text: &Text, args: CallArgs) -> Result<Value> {
        let text = match name {
            "upper" => text.map(str::to_uppercase),
            "lower" => text.map(str::to_lowercase),
            "trim" => strip(text, args.text(0, "chars")?, true, true),
            "title" => title(text),
            "capitalize" => capitalize(text),
            "replace" => {
                let from = args.need(0, "old")?.to_text(self.budget)?;
                let to = args.need(1, "new")?.to_text(self.budget)?;
                let count = args.int(2, "count")?.unwrap_or(-1);
                self.replace_text(text, &from, &to, usize::try_from(count).unwrap_or(usize::MAX))?
            }
            "indent" => self.indent(text, &args)?,
            "e" | "escape" => {
                self.budget.append(0, 6 * text.weight())?;
                text.escape()
            }
            "wordcount" => {
                return Ok(Value::Int(text.as_str().split(is_space).filter(|w| !w.is_empty()).count() as i128));
            }
            "truncate" => truncate(text, &args)?,
            "center" => return self.str_method(text, "center", args),
            "urlencode" => {
                self.budget.append(0, 3 * text.weight())?;
                text.map(url_encode)
            }
            _ => {
                let named = args.named.into_iter().map(|(name, value)| (Value::str(name), value)).collect::<Vec<_>>();
                let values = if named.is_empty() {
                    Value::list(args.positional, ListKind::Tuple, self.budget)?
                } else {
                    Value::dict(named, self.budget)?
                };
                super::format::percent_format(text, &values, self.budget)?
            }
        };
        Ok(Value::Str(text))
    }

    fn tojson(&self, value: &Value, args: &CallArgs) -> Result<Value> {
        // transformers' order of arguments: ensure_ascii, indent, separators, sort_keys.
        let indent = match args.some(1, "indent") {
            None => None,
            Some(Value::Str(text)) => Some(text.as_str().to_string()),
            Some(_) => Some(" ".repeat(args.int(1, "indent")?.unwrap_or(0).clamp(0, 64) as usize)),
        };
        let mut style = JsonStyle::new(indent);
        style.ensure_ascii = args.flag(0, "ensure_ascii", false);
        style.sort_keys = args.flag(3, "sort_keys", false);
        if let Some(separators) = args.some(2, "separators") {
            let pair = self.iterate(separators)?;
            let [Value::Str(item), Value::Str(key)] = &pair[..] else {
                return Err(Fault::ty("separators must be two strings"));
            };
            style.item_separator = item.as_str().into();
            style.key_separator = key.as_str().into();
        }
        to_json(value, &style, self.budget).map(Value::Str)
    }

    fn length(&self, value: &Value) -> Result<Value> {
        let len = match value {
            Value::Undefined(_) => 0,
            Value::Str(text) => {
                self.budget.work(text.len() as u64 / 64)?;
                text.as_str().chars().count()
            }
            Value::List(list) if list.kind != ListKind::Generator => list.items.len(),
            Value::Dict(dict) => dict.entries.len(),
            other => return Err(Fault::ty(format!("object of type '{}' has no len()", other.type_name()))),
        };
        Ok(Value::Int(len as i128))
    }

    fn round(&self, value: &Value, args: &CallArgs) -> Result<Value> {
        let number = value.as_float().ok_or_else(|| Fault::ty("round wants a number"))?;
        let precision = args.int(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
        let scale = 10f64.powi(precision);
        let rounded = match args.text(1, "method")?.map(|method| method.as_str()) {
            Some("ceil") => (number * scale).ceil() / scale,
            Some("floor") => (number * scale).floor() / scale,
            // Like Python's: by the decimal digits, not by a product that itself rounds.
            _ => match usize::try_from(precision) {
                Ok(precision) => format!("{number:.precision$}").parse().unwrap_or(number),
                Err(_) => (number * scale).round_ties_even() / scale,
            },
        };
        Ok(Value::Float(rounded))
    }

    fn indent(&self, text: &Text, args: &CallArgs) -> Result<Text> {
        let margin = match args.some(0, "width") {
            Some(Value::Str(margin)) => margin.clone(),
            _ => Text::template(" ".repeat(args.int(0, "width")?.unwrap_or(4).clamp(0, 1000) as usize)),
        };
        let (first, blank) = (args.flag(1, "first", false), args.flag(2, "blank", false));
        let lines = text.as_str().matches('\n').count() + 1;
        self.budget.append(text.weight(), lines.saturating_mul(margin.weight()))?;
        let mut out = TextBuilder::default();
        for (i, line) in text.as_str().split('\n').enumerate() {
            if i > 0 {
                out.push_str("\n", false);
            }
            if (i > 0 || first) && (blank || !line.is_empty() || (i == 0 && first)) {
                out.push(&margin);
            }
            out.push(&text.part(line));
        }
        Ok(out.finish())
    }
}

fn truncate(text: &Text, args: &CallArgs) -> Result<Text> {
    let length = usize::try_from(args.int(0, "length")?.unwrap_or(255).max(0)).unwrap_or(usize::MAX);
    let end = args.text(2, "end")?.cloned().unwrap_or_else(|| Text::template("..."));
    let leeway = usize::try_from(args.int(3, "leeway")?.unwrap_or(5).max(0)).unwrap_or(0);
    let chars = text.as_str();
    if chars.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.clone());
    }
    let keep = length.saturating_sub(end.as_str().chars().count());
    let cut = chars.char_indices().nth(keep).map_or(chars.len(), |(at, _)| at);
    let kept = &chars[..cut];
    let kept =
        if args.flag(1, "killwords", false) { kept } else { kept.rsplit_once(' ').map_or(kept, |(kept, _)| kept) };
    let mut out = TextBuilder::default();
    out.push(&text.part(kept));
    out.push(&end);
    Ok(out.finish())
}

fn url_encode(run: &str) -> String {
    let mut out = String::with_capacity(run.len());
    for byte in run.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `int`: what does not read as a number gives the default.
fn to_int(value: &Value, args: &CallArgs) -> i128 {
    let default = args.get(0, "default").and_then(Value::as_int).unwrap_or(0);
    match value {
        Value::Float(f) if f.is_finite() => *f as i128,
        Value::Str(text) => {
            let digits = text.as_str().trim_matches(is_space).replace('_', "");
            let float = || digits.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| f as i128);
            digits.parse().ok().or_else(float).unwrap_or(default)
        }
        other => other.as_int().unwrap_or(default),
    }
}

fn to_float(value: &Value, args: &CallArgs) -> f64 {
    let default = || args.get(0, "default").and_then(Value::as_float).unwrap_or(0.0);
    match value {
        Value::Str(text) => text.as_str().trim_matches(is_space).parse().unwrap_or_else(|_| default()),
        other => other.as_float().unwrap_or_else(default),
    }
}
