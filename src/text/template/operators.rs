//! Arithmetic, membership, attributes, subscripts and slices, as Python has them.

use super::ast::Operator;
use super::fault::{Fault, Result};
use super::format::percent_format;
use super::limits::Budget;
use super::methods::has_method;
use super::taint::TextBuilder;
use super::value::{ListKind, Value};
use std::rc::Rc;
use std::sync::Arc;

/// `-x`
pub fn negate(value: &Value) -> Result<Value> {
    match (value, value.as_int()) {
        (Value::Float(f), _) => Ok(Value::Float(-f)),
        (_, Some(int)) => int.checked_neg().map(Value::Int).ok_or_else(overflow),
        (Value::Undefined(what), _) => Err(Fault::undefined(&**what)),
        _ => Err(Fault::ty(format!("bad operand type for unary -: '{}'", value.type_name()))),
    }
}

/// `a op b`
pub fn arithmetic(op: Operator, a: &Value, b: &Value, budget: &Budget) -> Result<Value> {
    if let (Value::Undefined(what), _) | (_, Value::Undefined(what)) = (a, b) {
        return Err(Fault::undefined(&**what));
    }
    match (op, a, b) {
        (Operator::Add, Value::Str(a), Value::Str(b)) => {
            let markup = a.is_markup() || b.is_markup();
            budget.append(0, (a.weight() + b.weight()) * if markup { 6 } else { 1 })?;
            let mut out = TextBuilder::default();
            for operand in [a, b] {
                out.push(&if markup { operand.escape() } else { operand.clone() });
            }
            let sum = out.finish();
            return Ok(Value::Str(if markup { sum.into_markup() } else { sum }));
        }
        (Operator::Add, Value::List(x), Value::List(y)) if x.kind == y.kind && is_plain(x.kind) => {
            budget.elements(x.items.len() + y.items.len())?;
            return Value::list(x.items.iter().chain(&y.items).cloned().collect(), x.kind, budget);
        }
        (Operator::Add, Value::Str(_) | Value::List(_), _) if !matches!(a, Value::List(x) if !is_plain(x.kind)) => {
            let (a, b) = (a.type_name(), b.type_name());
            return Err(Fault::ty(format!("can only concatenate {a} (not \"{b}\") to {a}")));
        }
        (Operator::Mod, Value::Str(format), _) => return percent_format(format, b, budget).map(Value::Str),
        (Operator::Mul, sequence @ (Value::Str(_) | Value::List(_)), count)
        | (Operator::Mul, count, sequence @ (Value::Str(_) | Value::List(_))) => {
            if let Some(count) = count.as_int() {
                return repeat(sequence, count, budget);
            }
        }
        _ => {}
    }
    match (a.as_int(), b.as_int()) {
        (Some(a), Some(b)) => int_arithmetic(op, a, b),
        _ => match (a.as_float(), b.as_float()) {
            (Some(a), Some(b)) => float_arithmetic(op, a, b),
            _ => {
                let (a, b) = (a.type_name(), b.type_name());
                Err(Fault::ty(format!("unsupported operand type(s) for {}: '{a}' and '{b}'", symbol(op))))
            }
        },
    }
}

fn is_plain(kind: ListKind) -> bool {
    matches!(kind, ListKind::List | ListKind::Tuple)
}

fn symbol(op: Operator) -> &'static str {
    match op {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mul => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Mod => "%",
        Operator::Pow => "**",
    }
}

fn overflow() -> Fault {
    Fault::value("an integer grows past 127 bits")
}

fn int_arithmetic(op: Operator, a: i128, b: i128) -> Result<Value> {
    if b == 0 && matches!(op, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        let what = if op == Operator::Div { "division by zero" } else { "integer division or modulo by zero" };
        return Err(Fault::value(what));
    }
    // Python rounds quotients down and gives the remainder the divisor's sign.
    let rounds_down = |a: i128, b: i128| (a % b != 0) && ((a < 0) != (b < 0));
    let result = match op {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::Div => return Ok(Value::Float(a as f64 / b as f64)),
        Operator::FloorDiv => a.checked_div(b).map(|q| q - rounds_down(a, b) as i128),
        Operator::Mod => a.checked_rem(b).map(|r| if rounds_down(a, b) { r + b } else { r }),
        Operator::Pow if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
        Operator::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
    };
    result.map(Value::Int).ok_or_else(overflow)
}

fn float_arithmetic(op: Operator, a: f64, b: f64) -> Result<Value> {
    if b == 0.0 && matches!(op, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        return Err(Fault::value("division by zero"));
    }
    Ok(Value::Float(match op {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::FloorDiv => (a / b).floor(),
        Operator::Mod => a - b * (a / b).floor(),
        Operator::Pow => a.powf(b),
    }))
}

fn repeat(sequence: &Value, count: i128, budget: &Budget) -> Result<Value> {
    let count = usize::try_from(count.max(0)).map_err(|_| overflow())?;
    match sequence {
        Value::Str(text) => {
            budget.append(0, text.weight().saturating_mul(count))?;
            let mut out = TextBuilder::default();
            for _ in 0..if text.len() == 0 { 0 } else { count } {
                out.push(text);
            }
            Ok(Value::Str(out.finish()))
        }
        Value::List(list) => {
            budget.elements(list.items.len().saturating_mul(count))?;
            let count = if list.items.is_empty() { 0 } else { count };
            Value::list((0..count).flat_map(|_| list.items.iter().cloned()).collect(), list.kind, budget)
        }
        other => Err(Fault::ty(format!("cannot repeat a {}", other.type_name()))),
    }
}

/// `needle in haystack`
pub fn contains(haystack: &Value, needle: &Value, budget: &Budget) -> Result<bool> {
    match haystack {
        Value::Undefined(_) => Ok(false),
        Value::Str(text) => match needle {
            Value::Str(needle) => {
                budget.work(text.len() as u64 / 16)?;
                Ok(text.as_str().contains(needle.as_str()))
            }
            other => {
                let name = other.type_name();
                Err(Fault::ty(format!("'in <string>' requires string as left operand, not {name}")))
            }
        },
        Value::List(list) => {
            for item in &list.items {
                if item.equals(needle, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Dict(dict) => {
            budget.work(dict.entries.len() as u64 / 8)?;
            Ok(dict.get_value(needle).is_some())
        }
        Value::Namespace(entries) => {
            Ok(needle.as_text().is_some_and(|name| entries.borrow().iter().any(|(n, _)| **n == *name.as_str())))
        }
        other => Err(Fault::ty(format!("argument of type '{}' is not iterable", other.type_name()))),
    }
}

/// `value.name`: a method, else a key of that name.
pub fn attribute(value: &Value, name: &Arc<str>) -> Result<Value> {
    if has_method(value, name) {
        return Ok(Value::Method(Rc::new((value.clone(), name.clone()))));
    }
    let found = match value {
        Value::Undefined(what) => return Err(Fault::undefined(&**what)),
        Value::Dict(dict) => dict.get(name).cloned(),
        Value::Namespace(entries) => entries.borrow().iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()),
        Value::Loop(state) => state.get(name),
        Value::Macro(bound) if **name == *"name" => Some(Value::str(bound.def.name.clone())),
        _ => None,
    };
    Ok(found.unwrap_or_else(|| missing(value, name)))
}

fn missing(value: &Value, name: &str) -> Value {
    Value::Undefined(format!("'{}' has no attribute '{name}'", value.object_name()).into())
}

/// `value[index]`: an element or key, else an attribute.
pub fn item(value: &Value, index: &Value, budget: &Budget) -> Result<Value> {
    match (value, index) {
        (Value::Undefined(what), _) => Err(Fault::undefined(&**what)),
        (Value::Dict(dict), _) => {
            budget.work(dict.entries.len() as u64 / 8)?;
            match (dict.get_value(index), index) {
                (Some(found), _) => Ok(found.clone()),
                (None, Value::Str(name)) => attribute(value, &name.as_str().into()),
                (None, _) => {
                    let mut key = TextBuilder::default();
                    index.write_repr(&mut key, budget)?;
                    Ok(Value::Undefined(format!("dict object has no element {}", key.finish().as_str()).into()))
                }
            }
        }
        (Value::List(_) | Value::Str(_), _) if index.as_int().is_some() => {
            let at = index.as_int().unwrap_or(0);
            let found = match value {
                Value::List(list) if list.kind != ListKind::Generator && list.kind != ListKind::View => {
                    position(at, list.items.len()).map(|at| list.items[at].clone())
                }
                Value::Str(text) => {
                    budget.work(text.len() as u64 / 16)?;
                    let chars = text.as_str();
                    let count = if at < 0 { chars.chars().count() } else { usize::MAX >> 1 };
                    position(at, count)
                        .and_then(|at| chars.char_indices().nth(at))
                        .map(|(at, c)| Value::Str(text.slice(at..at + c.len_utf8())))
                }
                _ => None,
            };
            let what = || format!("{} object has no element {at}", value.type_name()).into();
            Ok(found.unwrap_or_else(|| Value::Undefined(what())))
        }
        (_, Value::Str(name)) => attribute(value, &name.as_str().into()),
        (_, Value::Undefined(what)) => Err(Fault::undefined(&**what)),
        _ => Ok(missing(value, index.type_name())),
    }
}

/// An index, which may count from the end, within a length.
fn position(at: i128, len: usize) -> Option<usize> {
    let at = if at < 0 { at.checked_add(len as i128)? } else { at };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// `value[start:stop:step]`, with Python's rules for what lies outside.
pub fn slice(value: &Value, bounds: &[Value; 3], budget: &Budget) -> Result<Value> {
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(bounds) {
        *number = match (bound, bound.as_int()) {
            (Value::None, _) => None,
            (_, Some(int)) => Some(int.clamp(i64::MIN as i128, i64::MAX as i128)),
            (Value::Undefined(what), _) => return Err(Fault::undefined(&**what)),
            _ => return Err(Fault::ty("slice indices must be integers or None")),
        };
    }
    match value {
        Value::List(list) if is_plain(list.kind) => {
            budget.elements(list.items.len())?;
            let picked = indices(numbers, list.items.len())?.into_iter().map(|at| list.items[at].clone()).collect();
            Value::list(picked, list.kind, budget)
        }
        Value::Str(text) => {
            budget.elements(text.len() / 8)?;
            let mut starts: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).collect();
            starts.push(text.len());
            let picked = indices(numbers, starts.len() - 1)?;
            if numbers[2].unwrap_or(1) == 1 {
                let range = picked.first().map_or(0..0, |first| starts[*first]..starts[first + picked.len()]);
                return Ok(Value::Str(text.slice(range)));
            }
            let mut out = TextBuilder::default();
            for at in picked {
                out.push_slice(text, starts[at]..starts[at + 1]);
            }
            Ok(Value::Str(out.finish()))
        }
        Value::Undefined(what) => Err(Fault::undefined(&**what)),
        other => Err(Fault::ty(format!("'{}' object cannot be sliced", other.type_name()))),
    }
}

fn indices([start, stop, step]: [Option<i128>; 3], len: usize) -> Result<Vec<usize>> {
    let (len, step) = (len as i128, step.unwrap_or(1));
    if step == 0 {
        return Err(Fault::value("slice step cannot be zero"));
    }
    // Where a walk may begin and end: one past the last element on the far side.
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |bound: i128| (if bound < 0 { bound + len } else { bound }).clamp(low, high);
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    let mut picked = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        picked.push(at as usize);
        at += step;
    }
    Ok(picked)
}
