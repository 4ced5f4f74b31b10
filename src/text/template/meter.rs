//! What a template may cost. It comes with a model file, from strangers: it must not hang, exhaust memory or overflow the
//! stack, whatever it says.
//!
//! minijinja counts instructions (its fuel) and calls, but not bytes: forty doublings of a string are a hundred
//! instructions and a terabyte. So everything that makes text or lists pays for it here by size, out of one allowance for
//! a rendering. Filters and methods are wrapped; operators cannot be, so `tame` exchanges their instructions, one for
//! one, for calls of filters of ours. That also gives `+`, `~` and `%` what Python and Jinja's `Markup` make of them.

use super::python;
use minijinja::formatting::{FormatStyle, format};
use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Enumerator, Object, Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Bytes of text and lists that a rendering may make, and more for each byte that came with the request.
const ALLOWANCE: usize = 64 << 20;
const ALLOWANCE_PER_BYTE: usize = 64;
/// The longest single text, likewise.
const TEXT: usize = 1 << 20;
const TEXT_PER_BYTE: usize = 4;
/// The most values in one list or dict, those within its elements included, and more for each byte of the request.
const VALUES: usize = 100_000;
/// The deepest nesting of lists and dicts.
pub const MAX_DEPTH: usize = 64;
/// What a value costs in a list.
const VALUE_BYTES: usize = 32;
/// Text between tags that is longer is paid for whenever it is written.
const FREE_TEXT: usize = 64;
/// The largest width or count that a template may ask for.
const MAX_COUNT: i64 = 1000;

/// The allowance of one rendering.
#[derive(Clone, Debug)]
pub struct Meter {
    left: Arc<AtomicUsize>,
    longest: usize,
    most: usize,
}

fn refuse(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::OutOfFuel, what.into())
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

impl Meter {
    /// For a request of `input` bytes.
    pub fn new(input: usize) -> Meter {
        let more = |base: usize, each: usize| base.saturating_add(input.saturating_mul(each));
        let left = Arc::new(AtomicUsize::new(more(ALLOWANCE, ALLOWANCE_PER_BYTE)));
        Meter { left, longest: more(TEXT, TEXT_PER_BYTE), most: more(VALUES, 1) }
    }

    /// Pays for a text before it is made.
    pub fn text(&self, bytes: usize) -> Result<(), Error> {
        self.fits(bytes)?;
        self.pay(bytes)
    }

    fn fits(&self, bytes: usize) -> Result<(), Error> {
        match bytes > self.longest {
            true => Err(refuse(format!("the template makes a text of {bytes} bytes, more than {}", self.longest))),
            false => Ok(()),
        }
    }

    fn pay(&self, bytes: usize) -> Result<(), Error> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes);
        self.left.store(left.ok_or_else(|| refuse("the template does too much work"))?, Ordering::Relaxed);
        Ok(())
    }

    /// Pays for a value's text or elements.
    fn value(&self, value: &Value) -> Result<(), Error> {
        match (value.as_str(), value.kind()) {
            (Some(text), _) => self.text(text.len()),
            (None, ValueKind::Seq | ValueKind::Map) => self.pay(value.len().unwrap_or(0).saturating_mul(VALUE_BYTES)),
            _ => self.pay(1),
        }
    }

    /// Pays for a new list or dict with all that is in it.
    pub fn list(&self, elements: &[Value]) -> Result<(), Error> {
        let mut left = self.most;
        elements.iter().try_for_each(|element| weigh(element, 1, &mut left))?;
        self.pay((self.most - left) * VALUE_BYTES)
    }

    /// A filter or method between payments for what goes in and what comes out. Lazy results are worked out: of those
    /// that read from each other without end, minijinja would run out of stack.
    fn around(&self, args: &[Value], call: impl FnOnce() -> Result<Value, Error>) -> Result<Value, Error> {
        args.iter().try_for_each(|arg| self.value(arg))?;
        let result = call()?;
        if !matches!(result.kind(), ValueKind::Iterable | ValueKind::Seq | ValueKind::Map) {
            self.value(&result)?;
            return Ok(result);
        }
        let items = result.try_iter()?.checked().take(self.most + 1).collect::<Result<Vec<_>, _>>()?;
        self.list(&items)?;
        Ok(if result.kind() == ValueKind::Iterable { Value::from(items) } else { result })
    }
}

/// Counts the values in a value down. Lists that were made before cannot hold themselves, but each other many times over.
fn weigh(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
    *left = left.checked_sub(1).filter(|_| depth <= MAX_DEPTH).ok_or_else(|| {
        refuse(format!("the template makes a list of too many values or more than {MAX_DEPTH} levels"))
    })?;
    if let Some(object) = value.as_object()
        && (object.downcast_ref::<Namespace>().is_some() || object.type_name().ends_with("::Loop"))
    {
        return Err(invalid("a namespace or loop cannot be put into another value"));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| weigh(&item, depth + 1, left)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| weigh(&value.get_item(&key)?, depth + 1, left)),
        _ => Ok(()),
    }
}

/// Operators as expressions of minijinja's own, for what is neither text nor list.
static PLAIN: LazyLock<Environment> = LazyLock::new(Environment::new);

fn plain(expression: &'static str, args: &[Value]) -> Result<Value, Error> {
    let names = [("a", 0), ("b", 1), ("c", 2), ("d", 3)];
    let names = names.into_iter().filter_map(|(name, i)| Some((name, args.get(i)?.clone())));
    PLAIN.compile_expression(expression)?.eval(Value::from_pairs(names))
}

/// No slot in the interpreter's cache of filters.
const UNCACHED: u8 = !0;
const NOT_A_NAME: &str = "`set` takes names and attributes of names";

/// A `{% set namespace.attribute = … %}` of a template: the filter that does it, the namespace's name, the attribute.
pub type Assignment<'s> = (&'s str, &'s str, &'s str);

/// Exchanges the instructions that make text or lists, or fill namespaces, for calls of the filters that [`equip`] adds.
/// Adds the assignments to namespaces. Fails if one is to more than a name's attribute.
pub fn tame<'s>(
    instructions: &mut Instructions<'s>,
    blocks: &mut BTreeMap<&'s str, Instructions<'s>>,
    assignments: &mut Vec<Assignment<'s>>,
) -> Result<(), &'static str> {
    let mut at = 0;
    let (name, source) = (instructions.name(), instructions.source());
    while let Some(instruction) = instructions.get_mut(at) {
        at += 1;
        let (filter, count) = match instruction {
            Instruction::Add => ("+", 2),
            Instruction::StringConcat => ("~", 2),
            Instruction::Mul => ("*", 2),
            Instruction::Rem => ("%", 2),
            Instruction::Slice => ("[:]", 4),
            Instruction::BuildList(Some(n)) => ("[]", *n),
            Instruction::BuildTuple(Some(n)) => ("()", *n),
            Instruction::BuildMap(n) => ("{}", 2 * *n),
            // A block of its own writes it through the formatter, which pays.
            Instruction::EmitRaw(text) if text.len() > FREE_TEXT => {
                let text = *text;
                let mut block = Instructions::new(name, source);
                block.add(Instruction::LoadConst(Value::from(text)));
                block.add(Instruction::Emit);
                blocks.entry(text).or_insert(block);
                *instruction = Instruction::CallBlock(text);
                continue;
            }
            Instruction::SetAttr(attribute) => {
                let attribute = *attribute;
                *instruction = Instruction::DiscardTop;
                let target = at.checked_sub(2).and_then(|before| instructions.get(before));
                let Some(Instruction::Lookup(name)) = target else { return Err(NOT_A_NAME) };
                let path = format!("{name}.{attribute}");
                let Some(found) = source.find(&path) else { return Err(NOT_A_NAME) };
                let path = &source[found..found + path.len()];
                assignments.push((path, name, attribute));
                (path, 1)
            }
            _ => continue,
        };
        let Ok(count) = u16::try_from(count) else { return Err("a list of too many elements") };
        let place = if filter.contains('.') { at - 2 } else { at - 1 };
        if let Some(instruction) = instructions.get_mut(place) {
            *instruction = Instruction::ApplyFilter(filter, Some(count), UNCACHED);
        }
    }
    Ok(())
}

/// What `namespace()` makes. It never gets into lists, dicts or namespaces: one that held itself would have no end.
#[derive(Debug, Default)]
struct Namespace(Mutex<Vec<(String, Value)>>);

impl Namespace {
    fn set(&self, name: &str, value: Value) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => entries.push((name.to_string(), value)),
        }
    }
}

impl Object for Namespace {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|(name, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Enumerator::Values(entries.iter().map(|(name, _)| Value::from(name.as_str())).collect())
    }
}

/// Adds what assigns to namespaces.
pub fn assign(env: &mut Environment, meter: &Meter, assignments: &[Assignment]) {
    for (filter, name, attribute) in assignments {
        let (meter, name, attribute) = (meter.clone(), name.to_string(), attribute.to_string());
        env.add_filter(filter.to_string(), move |state: &State, value: Value| {
            meter.list(std::slice::from_ref(&value))?;
            let target = state.lookup(&name).unwrap_or_default();
            let Some(namespace) = target.downcast_object_ref::<Namespace>() else {
                return Err(invalid(format!("'{name}' is no namespace")));
            };
            namespace.set(&attribute, value);
            Ok(Value::UNDEFINED)
        });
    }
    let meter = meter.clone();
    env.add_function("namespace", move |args: Rest<ValueOrKwargs>| {
        let namespace = Namespace::default();
        if let Some(entries) = args.into_values().first() {
            for name in entries.try_iter()? {
                let value = entries.get_item(&name)?;
                meter.list(std::slice::from_ref(&value))?;
                namespace.set(&python::text(&name)?, value);
            }
        }
        Ok::<_, Error>(Value::from_object(namespace))
    });
}

/// Adds the metered operators, filters and methods. JSON shows `unescaped` characters as they are, always.
pub fn equip(env: &mut Environment, meter: &Meter, unescaped: fn(char) -> bool) {
    let with = |f: fn(&Meter, &[Value]) -> Result<Value, Error>| {
        let meter = meter.clone();
        move |args: Rest<ValueOrKwargs>| f(&meter, &args.into_values())
    };
    env.add_filter("+", with(add));
    env.add_filter("~", with(concat));
    env.add_filter("*", with(multiply));
    env.add_filter("%", with(remainder));
    env.add_filter("[:]", with(slice));
    env.add_filter("[]", with(|meter, args| meter.list(args).map(|()| Value::from(args))));
    env.add_filter("()", with(|meter, args| meter.list(args).map(|()| Value::from(Tuple::new(args.to_vec())))));
    env.add_filter(
        "{}",
        with(|meter, args| {
            meter.list(args)?;
            Ok(Value::from_pairs(args.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()))))
        }),
    );
    for name in ["upper", "lower", "title", "capitalize", "trim", "reverse", "list", "split", "lines"] {
        let meter = meter.clone();
        env.add_filter(name, move |args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            meter.around(&args, || PLAIN.empty_state().apply_filter(name, &args))
        });
    }
    for name in [
        "batch", "slice", "indent", "replace", "format", "unique", "sort", "items", "dictsort", "groupby", "zip",
        "chain",
    ] {
        let meter = meter.clone();
        env.add_filter(name, move |args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            bounded(&meter, name, &args)?;
            meter.around(&args, || PLAIN.empty_state().apply_filter(name, &args))
        });
    }
    // These call filters and tests by name, so they need the state.
    env.add_filter("@map", filters::map);
    env.add_filter("@select", filters::select);
    env.add_filter("@reject", filters::reject);
    env.add_filter("@selectattr", filters::selectattr);
    env.add_filter("@rejectattr", filters::rejectattr);
    for name in ["@map", "@select", "@reject", "@selectattr", "@rejectattr"] {
        let meter = meter.clone();
        env.add_filter(&name[1..], move |state: &mut State, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            meter.around(&args, || state.apply_filter(name, &args))
        });
    }
    // What is no number is nought, as in Jinja2.
    for (name, nought) in [("int", Value::from(0)), ("float", Value::from(0.0))] {
        env.add_filter(name, move |args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
            let args = args.into_values();
            match PLAIN.empty_state().apply_filter(name, &args) {
                Err(_) if args.len() == 1 => Ok(nought.clone()),
                result => result,
            }
        });
    }
    env.add_filter("join", with(join));
    env.add_filter("e", with(|meter, args| escape(meter, first(args)?)));
    env.add_filter("escape", with(|meter, args| escape(meter, first(args)?)));
    env.add_filter("string", with(|meter, args| meter.around(args, || python::text(first(args)?).map(Value::from))));
    let for_json = meter.clone();
    env.add_filter("tojson", move |value: &Value, kwargs| {
        for_json.around(&[], || python::to_json(value, kwargs, unescaped))
    });
    let for_methods = meter.clone();
    env.set_unknown_method_callback(move |state, value, name, args| {
        bounded(&for_methods, name, &[std::slice::from_ref(value), args].concat())?;
        for_methods.value(value)?;
        for_methods.around(args, || method(state, value, name, args))
    });
    env.add_function("dict", with(dict));
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        Err(invalid(python::text(message)?).with_source(Raised))
    });
    // They would write values without end, or show what is not the template's.
    env.remove_filter("pprint");
    env.remove_global("debug");
}

/// Marks the template's own errors.
#[derive(Debug)]
pub struct Raised;

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for Raised {}

/// `dict(a=1)`, `dict(pairs)`, `dict(other)`
fn dict(meter: &Meter, args: &[Value]) -> Result<Value, Error> {
    let Some(entries) = args.first() else { return Ok(Value::from_pairs([(); 0].map(|()| ("", 0)))) };
    let entry = |item: Value| match entries.kind() {
        ValueKind::Map => Ok((item.clone(), entries.get_item(&item)?)),
        _ => Ok((item.get_item_by_index(0)?, item.get_item_by_index(1)?)),
    };
    let entries = entries.try_iter()?.map(entry).collect::<Result<Vec<_>, Error>>()?;
    meter.around(&[], || Ok(Value::from_pairs(entries)))
}

fn first(args: &[Value]) -> Result<&Value, Error> {
    args.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument))
}

/// Refuses calls that make much from little.
fn bounded(meter: &Meter, name: &str, args: &[Value]) -> Result<(), Error> {
    let text = |i: usize| args.get(i).and_then(Value::as_str).unwrap_or_default();
    match name {
        "replace" => {
            let hits = if text(1).is_empty() { text(0).len() + 1 } else { text(0).matches(text(1)).count() };
            meter.text(text(0).len().saturating_add(hits.saturating_mul(text(2).len())))
        }
        "format" => {
            // `{0}` may write the same text again and again.
            let longest = args.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0);
            let fields = text(0).matches(['{', '%']).count();
            meter.text(text(0).len().saturating_add(fields.saturating_mul(longest)))?;
            let digits = text(0).split(|c: char| !c.is_ascii_digit());
            match digits.map(str::len).max().unwrap_or(0) > 3 || text(0).contains('*') {
                true => Err(invalid("the width in a format is too large")),
                false => Ok(()),
            }
        }
        "join" => match args.get(1).filter(|items| !items.is_undefined()) {
            Some(items) => joined(meter, items.try_iter()?.checked(), text(0)).map(drop),
            None => Ok(()),
        },
        "batch" | "slice" | "indent" | "ljust" | "rjust" | "center" => {
            match args.iter().skip(1).filter_map(Value::as_i64).any(|n| n > MAX_COUNT) {
                true => Err(invalid(format!("{name}: a count above {MAX_COUNT}"))),
                false if name == "indent" => {
                    meter.text(text(0).len() + text(0).matches('\n').count() * MAX_COUNT as usize)
                }
                false => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// `+`: texts, `Markup` (which escapes what is added to it), lists, tuples, numbers.
fn add(meter: &Meter, args: &[Value]) -> Result<Value, Error> {
    let [a, b] = args else { return Err(Error::from(ErrorKind::MissingArgument)) };
    let list = |v: &Value| matches!(v.kind(), ValueKind::Seq | ValueKind::Iterable) && !v.is_tuple();
    match (a.as_str(), b.as_str()) {
        (Some(_), Some(_)) if a.is_safe() || b.is_safe() => {
            let both = concat(meter, &[escape(meter, a)?, escape(meter, b)?])?;
            Ok(Value::from_safe_string(both.to_string()))
        }
        (Some(_), Some(_)) => concat(meter, args),
        (None, None) if list(a) && list(b) => {
            let items = a.try_iter()?.checked().chain(b.try_iter()?.checked());
            let items = items.take(meter.most + 1).collect::<Result<Vec<_>, _>>()?;
            meter.list(&items)?;
            Ok(Value::from(items))
        }
        _ if a.is_undefined() || b.is_undefined() => {
            // minijinja's own error knows the name.
            filters::length(if a.is_undefined() { a } else { b }).map(Value::from)
        }
        (Some(_), None) => Err(invalid(format!("can only concatenate str (not \"{}\") to str", python::kind(b)))),
        _ => plain("a + b", args),
    }
}

/// `~`: the texts of any two values.
fn concat(meter: &Meter, args: &[Value]) -> Result<Value, Error> {
    let [a, b] = args else { return Err(Error::from(ErrorKind::MissingArgument)) };
    joined(meter, [Ok(a), Ok(b)].into_iter(), "").map(Value::from)
}

/// `Markup`'s escapes, of what is none.
fn escape(meter: &Meter, value: &Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value.clone());
    }
    let text = python::text(value)?;
    meter.text(text.len() + 4 * text.matches(['&', '<', '>', '"', '\'']).count())?;
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    Ok(Value::from_safe_string(text.replace('"', "&#34;").replace('\'', "&#39;")))
}

/// `a[b:c:d]`
fn slice(meter: &Meter, args: &[Value]) -> Result<Value, Error> {
    meter.value(first(args)?)?;
    let part = plain("a[b:c:d]", args)?;
    match part.kind() {
        ValueKind::Iterable => {
            let items = part.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
            meter.pay(items.len() * VALUE_BYTES)?;
            Ok(Value::from(items))
        }
        _ => Ok(part),
    }
}

fn multiply(meter: &Meter, args: &[Value]) -> Result<Value, Error> {
    let size = |v: &Value| v.as_str().map(str::len).or_else(|| v.len().map(|n| n.saturating_mul(VALUE_BYTES)));
    if let Some(size) = args.iter().find_map(size) {
        let times = args.iter().find_map(Value::as_usize).unwrap_or(0);
        meter.text(size.saturating_mul(times))?;
    }
    plain("a * b", args)
}

/// `%`: what is left of a division, or a text formatted.
fn remainder(meter: &Meter, args: &[Value]) -> Result<Value, Error> {
    let [a, b] = args else { return Err(Error::from(ErrorKind::MissingArgument)) };
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64())
        && b > 0
    {
        return Ok(Value::from(a.rem_euclid(b)));
    }
    let Some(pattern) = a.as_str() else { return plain("a % b", args) };
    let mut all = vec![a.clone()];
    match b.is_tuple() {
        true => all.extend(b.try_iter()?),
        false => all.push(b.clone()),
    }
    bounded(meter, "format", &all)?;
    meter.around(&[], || format(FormatStyle::Printf, pattern, &all[1..]).map(Value::from))
}

fn join(meter: &Meter, args: &[Value]) -> Result<Value, Error> {
    let joiner = args.get(1).map(python::text).transpose()?.unwrap_or_default();
    match first(args)? {
        items if items.is_undefined() => Ok(Value::from("")),
        items => joined(meter, items.try_iter()?.checked(), &joiner).map(Value::from),
    }
}

fn joined<V: std::borrow::Borrow<Value>>(
    meter: &Meter,
    items: impl Iterator<Item = Result<V, Error>>,
    joiner: &str,
) -> Result<String, Error> {
    let mut out = String::new();
    for (i, item) in items.enumerate() {
        let item = python::text(item?.borrow())?;
        meter.fits(out.len() + joiner.len() + item.len())?;
        if i > 0 {
            out.push_str(joiner);
        }
        out.push_str(&item);
    }
    meter.text(out.len())?;
    Ok(out)
}

/// Python's methods: minijinja's collection and what it lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let text = |i: usize| args.get(i).and_then(Value::as_str);
    let Some(own) = value.as_str() else { return pycompat::unknown_method_callback(state, value, name, args) };
    let width = args.first().and_then(Value::as_usize).unwrap_or(0).saturating_sub(own.chars().count());
    let pad = |n: usize| text(1).unwrap_or(" ").repeat(n);
    let parts = |parts: Option<(&str, &str)>, whole: [&str; 3]| {
        let separator = text(0).unwrap_or_default();
        let three = parts.map_or(whole, |(before, after)| [before, separator, after]);
        Ok(Value::from(Tuple::from(three.map(Value::from))))
    };
    match (name, text(0)) {
        ("removeprefix", Some(prefix)) => Ok(Value::from(own.strip_prefix(prefix).unwrap_or(own))),
        ("removesuffix", Some(suffix)) => Ok(Value::from(own.strip_suffix(suffix).unwrap_or(own))),
        ("partition", Some(separator)) => parts(own.split_once(separator), [own, "", ""]),
        ("rpartition", Some(separator)) => parts(own.rsplit_once(separator), ["", "", own]),
        ("rsplit", Some(separator)) => {
            let most = args.get(1).and_then(Value::as_usize).map_or(usize::MAX, |n| n.saturating_add(1));
            let mut parts: Vec<Value> = own.rsplitn(most, separator).map(Value::from).collect();
            parts.reverse();
            Ok(Value::from(parts))
        }
        ("ljust", _) => Ok(Value::from(own.to_string() + &pad(width))),
        ("rjust", _) => Ok(Value::from(pad(width) + own)),
        ("center", _) => Ok(Value::from(pad(width.div_ceil(2)) + own + &pad(width / 2))),
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}
