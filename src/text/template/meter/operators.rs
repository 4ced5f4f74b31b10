//! The operators, filters and methods that templates get, each metered before it does its work.

use super::*;

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
    pass_on(env, meter);
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

/// Filters that call others by name, and numbers.
fn pass_on(env: &mut Environment, meter: &Meter) {
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
