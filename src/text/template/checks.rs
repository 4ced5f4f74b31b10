//! Jinja2's tests: what may stand after `is`, and in `select` and its like.

use super::fault::{Fault, Result};
use super::functions::CallArgs;
use super::interp::Interp;
use super::operators;
use super::value::{ListKind, Value};
use std::cmp::Ordering;

impl Interp<'_> {
    /// Whether a value passes a test.
    pub fn test(&mut self, name: &str, value: &Value, args: CallArgs) -> Result<bool> {
        let budget = self.budget;
        budget.work(1)?;
        let other = || args.need(0, "other");
        let ordered = |op, wanted: fn(Ordering) -> bool| value.compare(other()?, op, budget).map(wanted);
        Ok(match name {
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "none" => matches!(value, Value::None),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "boolean" => matches!(value, Value::Bool(_)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => value.as_float().is_some(),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            // What has a length and can be subscripted.
            "sequence" => match value {
                Value::Str(_) | Value::Dict(_) | Value::Undefined(_) => true,
                Value::List(list) => matches!(list.kind, ListKind::List | ListKind::Tuple),
                _ => false,
            },
            "iterable" => {
                matches!(value, Value::Str(_) | Value::Dict(_) | Value::List(_) | Value::Undefined(_) | Value::Loop(_))
            }
            "callable" => {
                matches!(value, Value::Macro(_) | Value::Function(_) | Value::Method(_) | Value::Undefined(_))
            }
            "odd" => remainder(value, 2)? == 1,
            "even" => remainder(value, 2)? == 0,
            "divisibleby" => {
                let by = args.int(0, "num")?.filter(|by| *by != 0).ok_or_else(|| Fault::value("division by zero"))?;
                remainder(value, by)? == 0
            }
            "eq" | "equalto" | "==" => value.equals(other()?, budget)?,
            "ne" | "!=" => !value.equals(other()?, budget)?,
            "lt" | "lessthan" | "<" => ordered("<", Ordering::is_lt)?,
            "le" | "<=" => ordered("<=", Ordering::is_le)?,
            "gt" | "greaterthan" | ">" => ordered(">", Ordering::is_gt)?,
            "ge" | ">=" => ordered(">=", Ordering::is_ge)?,
            "in" => operators::contains(other()?, value, budget)?,
            "sameas" => same(value, other()?),
            "lower" | "upper" => {
                let text = value.to_text(budget)?;
                let wanted = if name == "lower" { "islower" } else { "isupper" };
                self.str_method(&text, wanted, CallArgs::default())?.is_true()
            }
            "escaped" => false,
            "filter" | "test" => return Err(Fault::ty(format!("the test '{name}' is not supported"))),
            _ => return Err(Fault::syntax(format!("no test named '{name}'"), 0)),
        })
    }
}

/// Identity, which templates use for `true`, `false` and `none`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        (Value::List(a), Value::List(b)) => std::rc::Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => std::rc::Rc::ptr_eq(a, b),
        _ => false,
    }
}

fn remainder(value: &Value, by: i128) -> Result<i128> {
    match (value.as_int(), value) {
        (Some(int), _) => Ok(int.checked_rem_euclid(by).unwrap_or(0)),
        (None, Value::Undefined(what)) => Err(Fault::undefined(&**what)),
        _ => Err(Fault::ty(format!("a {} is no whole number", value.type_name()))),
    }
}
