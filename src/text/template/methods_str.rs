//! Python's string methods. Positions count characters; every part of a string keeps its origin.

use super::fault::{Fault, Result};
use super::format::brace_format;
use super::functions::CallArgs;
use super::interp::Interp;
use super::lexer::is_space;
use super::taint::{Text, TextBuilder};
use super::value::{ListKind, Value};

/// The methods there are.
pub const STR_METHODS: [&str; 38] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "islower",
    "isnumeric",
    "isspace",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
];

impl Interp<'_> {
    /// Calls a string method.
    pub fn str_method(&mut self, text: &Text, name: &str, args: CallArgs) -> Result<Value> {
        self.budget.text(text.weight())?;
        let chars = text.as_str();
        let string = |text: Text| Ok(Value::Str(text));
        match name {
            "lower" | "casefold" => string(text.map(str::to_lowercase)),
            "upper" => string(text.map(str::to_uppercase)),
            "capitalize" => string(capitalize(text)),
            "title" => string(title(text)),
            "swapcase" => string(text.map(swap_case)),
            "strip" | "lstrip" | "rstrip" => {
                string(strip(text, args.text(0, "chars")?, name != "rstrip", name != "lstrip"))
            }
            "removeprefix" => string(text.part(chars.strip_prefix(need(&args, "prefix")?.as_str()).unwrap_or(chars))),
            "removesuffix" => string(text.part(chars.strip_suffix(need(&args, "suffix")?.as_str()).unwrap_or(chars))),
            "startswith" => self.affix(&args, |affix| chars.starts_with(affix)),
            "endswith" => self.affix(&args, |affix| chars.ends_with(affix)),
            "split" | "rsplit" => self.split(text, &args, name == "rsplit"),
            "splitlines" => self.split_lines(text, args.flag(0, "keepends", false)),
            "partition" | "rpartition" => self.partition(text, need(&args, "sep")?, name == "rpartition"),
            "replace" => {
                let (Some(from), Some(to)) = (args.text(0, "old")?, args.text(1, "new")?) else {
                    return Err(Fault::ty("replace wants two strings"));
                };
                let count = args.int(2, "count")?.unwrap_or(-1);
                self.replace_text(text, from, to, usize::try_from(count).unwrap_or(usize::MAX)).map(Value::Str)
            }
            "join" => self.join_text(text, args.need(0, "iterable")?),
            "format" => brace_format(text, &args, self.budget).map(Value::Str),
            "count" => Ok(Value::Int(chars.matches(need(&args, "sub")?.as_str()).count() as i128)),
            "find" | "index" | "rfind" | "rindex" => {
                let sub = need(&args, "sub")?.as_str();
                let at = if name.starts_with('r') { chars.rfind(sub) } else { chars.find(sub) };
                match at {
                    Some(at) => Ok(Value::Int(chars[..at].chars().count() as i128)),
                    None if name.ends_with("index") => Err(Fault::value("substring not found")),
                    None => Ok(Value::Int(-1)),
                }
            }
            "ljust" | "rjust" | "center" => self.justify(text, name, &args),
            _ => Ok(Value::Bool(is_class(chars, name))),
        }
    }

    fn affix(&self, args: &CallArgs, has: impl Fn(&str) -> bool) -> Result<Value> {
        let any = match args.need(0, "prefix")? {
            Value::Str(affix) => has(affix.as_str()),
            Value::List(list) if list.kind == ListKind::Tuple => {
                list.items.iter().any(|item| item.as_text().is_some_and(|affix| has(affix.as_str())))
            }
            Value::Undefined(what) => return Err(Fault::undefined(&**what)),
            other => {
                let name = other.type_name();
                return Err(Fault::ty(format!("first arg must be str or a tuple of str, not {name}")));
            }
        };
        Ok(Value::Bool(any))
    }

    /// A list of parts of `text`.
    fn parts(&self, text: &Text, parts: Vec<&str>) -> Result<Value> {
        self.budget.elements(2 * parts.len())?;
        Value::list(parts.into_iter().map(|part| Value::Str(text.part(part))).collect(), ListKind::List, self.budget)
    }

    fn split(&self, text: &Text, args: &CallArgs, from_end: bool) -> Result<Value> {
        let chars = text.as_str();
        let limit = args.int(1, "maxsplit")?.unwrap_or(-1);
        let limit = usize::try_from(limit).map_or(usize::MAX, |n| n.saturating_add(1));
        let mut parts: Vec<&str> = match args.text(0, "sep")? {
            Some(sep) if sep.len() == 0 => return Err(Fault::value("empty separator")),
            Some(sep) if from_end => chars.rsplitn(limit, sep.as_str()).collect(),
            Some(sep) => chars.splitn(limit, sep.as_str()).collect(),
            None => split_space(chars, limit, from_end),
        };
        if from_end {
            parts.reverse();
        }
        self.parts(text, parts)
    }

    fn split_lines(&self, text: &Text, keep_ends: bool) -> Result<Value> {
        let ends = ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
        let mut rest = text.as_str();
        let mut lines = Vec::new();
        while !rest.is_empty() {
            let (line, end) = match rest.find(ends) {
                None => (rest.len(), rest.len()),
                Some(at) if rest[at..].starts_with("\r\n") => (at, at + 2),
                Some(at) => (at, at + rest[at..].chars().next().map_or(0, char::len_utf8)),
            };
            lines.push(&rest[..if keep_ends { end } else { line }]);
            rest = &rest[end..];
        }
        self.parts(text, lines)
    }

    fn partition(&self, text: &Text, sep: &Text, from_end: bool) -> Result<Value> {
        let chars = text.as_str();
        if sep.len() == 0 {
            return Err(Fault::value("empty separator"));
        }
        let found = if from_end { chars.rfind(sep.as_str()) } else { chars.find(sep.as_str()) };
        let parts = match found {
            Some(at) => [text.slice(0..at), text.slice(at..at + sep.len()), text.slice(at + sep.len()..text.len())],
            None if from_end => [Text::default(), Text::default(), text.clone()],
            None => [text.clone(), Text::default(), Text::default()],
        };
        Value::list(parts.map(Value::Str).into(), ListKind::Tuple, self.budget)
    }

    /// Replaces after paying for what it makes.
    pub fn replace_text(&self, text: &Text, from: &Text, to: &Text, count: usize) -> Result<Text> {
        let hits = text.as_str().matches(from.as_str()).take(count).count();
        let ranges = 16 * hits;
        self.budget.append(text.weight(), hits.saturating_mul(to.weight()).saturating_add(ranges))?;
        Ok(text.replace(from.as_str(), to, count))
    }

    fn join_text(&self, separator: &Text, items: &Value) -> Result<Value> {
        let mut out = TextBuilder::default();
        for (i, item) in self.iterate(items)?.iter().enumerate() {
            let Value::Str(item) = item else {
                let name = item.type_name();
                return Err(Fault::ty(format!("sequence item {i}: expected str instance, {name} found")));
            };
            self.budget.append(out.len(), separator.weight() + item.weight())?;
            if i > 0 {
                out.push(separator);
            }
            out.push(item);
        }
        Ok(Value::Str(out.finish()))
    }

    fn justify(&self, text: &Text, name: &str, args: &CallArgs) -> Result<Value> {
        let width = usize::try_from(args.int(0, "width")?.unwrap_or(0).max(0)).unwrap_or(usize::MAX);
        let fill = args.text(1, "fillchar")?.map_or(" ", |fill| fill.as_str());
        let pad = width.saturating_sub(text.as_str().chars().count());
        self.budget.append(text.weight(), pad.saturating_mul(fill.len()))?;
        let before = match name {
            "ljust" => 0,
            "rjust" => pad,
            // Python puts the odd blank before the text where the width is odd.
            _ => pad / 2 + (pad & width & 1),
        };
        let mut out = TextBuilder::default();
        out.push_str(&fill.repeat(before), false);
        out.push(text);
        out.push_str(&fill.repeat(pad - before), false);
        Ok(Value::Str(out.finish()))
    }
}

fn need<'a>(args: &'a CallArgs, name: &str) -> Result<&'a Text> {
    args.text(0, name)?.ok_or_else(|| Fault::ty(format!("missing argument: {name}")))
}

/// Strips white space, or any of `chars`, from the start, the end or both.
pub fn strip(text: &Text, chars: Option<&Text>, start: bool, end: bool) -> Text {
    let strips = |c: char| chars.map_or_else(|| is_space(c), |set| set.as_str().contains(c));
    let mut kept = text.as_str();
    if start {
        kept = kept.trim_start_matches(strips);
    }
    if end {
        kept = kept.trim_end_matches(strips);
    }
    text.part(kept)
}

/// First letter upper case, the rest lower.
pub fn capitalize(text: &Text) -> Text {
    let mut first = true;
    text.map(|run| {
        let mut chars = run.chars();
        let head = if std::mem::take(&mut first) { chars.next() } else { None };
        head.into_iter().flat_map(char::to_uppercase).collect::<String>() + &chars.as_str().to_lowercase()
    })
}

/// Every word's first letter upper case, the rest lower.
pub fn title(text: &Text) -> Text {
    let mut in_word = false;
    text.map(|run| {
        let mut out = String::with_capacity(run.len());
        for c in run.chars() {
            if in_word {
                out.extend(c.to_lowercase());
            } else {
                out.extend(c.to_uppercase());
            }
            in_word = c.is_alphabetic();
        }
        out
    })
}

fn swap_case(run: &str) -> String {
    let swap =
        |c: char| if c.is_uppercase() { c.to_lowercase().collect::<String>() } else { c.to_uppercase().collect() };
    run.chars().map(swap).collect()
}

/// Parts between runs of white space, at most `limit`; in reverse when taken from the end.
fn split_space(chars: &str, limit: usize, from_end: bool) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = if from_end { chars.trim_end_matches(is_space) } else { chars.trim_start_matches(is_space) };
    while !rest.is_empty() {
        let at = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let at = at.filter(|_| parts.len() + 1 < limit);
        let Some(at) = at else {
            parts.push(rest);
            break;
        };
        let blank = rest[at..].chars().next().map_or(0, char::len_utf8);
        if from_end {
            parts.push(&rest[at + blank..]);
            rest = rest[..at].trim_end_matches(is_space);
        } else {
            parts.push(&rest[..at]);
            rest = rest[at + blank..].trim_start_matches(is_space);
        }
    }
    parts
}

/// `isdigit` and its like.
fn is_class(chars: &str, name: &str) -> bool {
    let all = |is: fn(char) -> bool| !chars.is_empty() && chars.chars().all(is);
    match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => chars.is_ascii(),
        "isdecimal" | "isdigit" | "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "islower" => chars.chars().any(char::is_lowercase) && !chars.chars().any(char::is_uppercase),
        _ => chars.chars().any(char::is_uppercase) && !chars.chars().any(char::is_lowercase),
    }
}
