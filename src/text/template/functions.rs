//! Calls: the functions a template finds defined, macros, and recursive loops.

use super::fault::{Fault, FaultKind, Result};
use super::interp::{Interp, set_attr};
use super::limits::MAX_RANGE;
use super::methods::Place;
use super::value::{BoundMacro, ListKind, Value};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// The functions defined from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `raise_exception(message)`
    RaiseException,
    /// `strftime_now(format)`
    StrftimeNow,
    Range,
    Namespace,
    Dict,
}

impl Function {
    /// Name and function of each.
    pub const ALL: [(&str, Function); 5] = [
        ("raise_exception", Function::RaiseException),
        ("strftime_now", Function::StrftimeNow),
        ("range", Function::Range),
        ("namespace", Function::Namespace),
        ("dict", Function::Dict),
    ];
}

/// The arguments of a call.
#[derive(Debug, Default)]
pub struct CallArgs {
    pub positional: Vec<Value>,
    pub named: Vec<(Arc<str>, Value)>,
}

impl CallArgs {
    /// The argument at a position, or of a name.
    pub fn get(&self, at: usize, name: &str) -> Option<&Value> {
        self.positional.get(at).or_else(|| self.named.iter().find(|(n, _)| **n == *name).map(|(_, v)| v))
    }

    /// Like [`CallArgs::get`]; none if it is `None`.
    pub fn some(&self, at: usize, name: &str) -> Option<&Value> {
        self.get(at, name).filter(|value| !matches!(value, Value::None))
    }

    /// A string argument; `None` counts as missing.
    pub fn text(&self, at: usize, name: &str) -> Result<Option<&super::taint::Text>> {
        match self.some(at, name) {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text)),
            Some(Value::Undefined(what)) => Err(Fault::undefined(&**what)),
            Some(other) => Err(Fault::ty(format!("{name} must be str, not {}", other.type_name()))),
        }
    }

    /// An integer argument; `None` counts as missing.
    pub fn int(&self, at: usize, name: &str) -> Result<Option<i128>> {
        match self.some(at, name) {
            None => Ok(None),
            Some(value) => match value.as_int() {
                Some(int) => Ok(Some(int)),
                None => Err(Fault::ty(format!("{name} must be int, not {}", value.type_name()))),
            },
        }
    }

    /// Whether an argument is there and true.
    pub fn flag(&self, at: usize, name: &str, default: bool) -> bool {
        self.get(at, name).map_or(default, Value::is_true)
    }

    /// The argument that must be there.
    pub fn need(&self, at: usize, name: &str) -> Result<&Value> {
        self.get(at, name).ok_or_else(|| Fault::ty(format!("missing argument: {name}")))
    }
}

impl Interp<'_> {
    /// Calls a value.
    pub fn call(&mut self, callee: &Value, args: CallArgs) -> Result<Value> {
        match callee {
            Value::Macro(bound) => self.deeper(|i| i.call_macro(bound, args)),
            Value::Function(function) => self.call_function(*function, args),
            Value::Method(method) => self.method(&method.0, &method.1, args, Place::None),
            Value::Loop(state) => {
                let Some((stmt, outer)) = &state.recursion else {
                    return Err(Fault::ty("the loop is not recursive"));
                };
                let outer = outer.upgrade().ok_or_else(|| Fault::ty("the loop has ended"))?;
                let items = args.need(0, "iterable")?;
                let text = self.deeper(|i| i.capture(|i| i.run_loop(stmt, items, &outer, state.depth + 1)))?;
                Ok(Value::Str(text))
            }
            Value::Undefined(what) => Err(Fault::undefined(&**what)),
            other => Err(Fault::ty(format!("'{}' object is not callable", other.type_name()))),
        }
    }

    fn call_macro(&mut self, bound: &Rc<BoundMacro>, mut args: CallArgs) -> Result<Value> {
        let def = &bound.def;
        let outer = bound.scope.upgrade().ok_or_else(|| Fault::ty(format!("the macro {} is gone", def.name)))?;
        let text = self.scoped(&outer, |i| {
            let mut positional = std::mem::take(&mut args.positional).into_iter();
            for (name, default) in &def.params {
                let named = args.named.iter().position(|(n, _)| n == name).map(|at| args.named.remove(at).1);
                let value = match (positional.next().or(named), default) {
                    (Some(value), _) => value,
                    (None, Some(default)) => i.eval(default)?,
                    (None, None) => Value::Undefined(format!("parameter '{name}' was not provided").into()),
                };
                i.scope.set(name.clone(), value);
            }
            let varargs = Value::list(positional.collect(), ListKind::Tuple, i.budget)?;
            i.scope.set("varargs".into(), varargs);
            if let Some(at) = args.named.iter().position(|(n, _)| **n == *"caller") {
                let caller = args.named.remove(at).1;
                i.scope.set("caller".into(), caller);
            }
            let kwargs = args.named.drain(..).map(|(name, value)| (Value::str(name), value)).collect();
            let kwargs = Value::dict(kwargs, i.budget)?;
            i.scope.set("kwargs".into(), kwargs);
            i.capture(|i| i.block(&def.body).map(|_| ()))
        })?;
        Ok(Value::Str(text))
    }

    fn call_function(&mut self, function: Function, args: CallArgs) -> Result<Value> {
        match function {
            Function::RaiseException => {
                let message = args.need(0, "message")?.to_text(self.budget)?;
                Err(Fault::new(FaultKind::Raised, message.as_str()))
            }
            Function::StrftimeNow => {
                let format = args.text(0, "format")?.ok_or_else(|| Fault::ty("strftime_now needs a format"))?;
                self.budget.text(16 * format.len())?;
                Ok(Value::str(self.clock.format(format.as_str())))
            }
            Function::Range => self.range(&args),
            Function::Namespace => {
                let entries = RefCell::default();
                if let Some(Value::Dict(dict)) = args.positional.first() {
                    for (key, value) in &dict.entries {
                        let name = key.as_text().ok_or_else(|| Fault::ty("a namespace's names must be strings"))?;
                        set_attr(&entries, &name.as_str().into(), value.clone())?;
                    }
                }
                for (name, value) in args.named {
                    set_attr(&entries, &name, value)?;
                }
                Ok(Value::Namespace(Rc::new(entries)))
            }
            Function::Dict => {
                let mut entries = match args.positional.first() {
                    Some(Value::Dict(dict)) => dict.entries.clone(),
                    None => Vec::new(),
                    Some(pairs) => {
                        let mut entries = Vec::new();
                        for pair in self.iterate(pairs)? {
                            let pair = self.iterate(&pair)?;
                            let [key, value] = <[Value; 2]>::try_from(pair)
                                .map_err(|_| Fault::value("dict wants pairs of a key and a value"))?;
                            entries.push((key, value));
                        }
                        entries
                    }
                };
                entries.extend(args.named.into_iter().map(|(name, value)| (Value::str(name), value)));
                Value::dict(entries, self.budget)
            }
        }
    }

    fn range(&mut self, args: &CallArgs) -> Result<Value> {
        let mut numbers = Vec::new();
        for value in &args.positional {
            match (value, value.as_int()) {
                (_, Some(number)) => numbers.push(number),
                (Value::Undefined(what), _) => return Err(Fault::undefined(&**what)),
                _ => {
                    let name = value.type_name();
                    return Err(Fault::ty(format!("'{name}' object cannot be interpreted as an integer")));
                }
            }
        }
        let (start, stop, step) = match numbers[..] {
            [stop] => (0, stop, 1),
            [start, stop] => (start, stop, 1),
            [start, stop, step] => (start, stop, step),
            _ => return Err(Fault::ty("range wants one to three numbers")),
        };
        if step == 0 {
            return Err(Fault::value("range() arg 3 must not be zero"));
        }
        let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
        if span.max(0) / step.saturating_abs() > MAX_RANGE {
            return Err(Fault::limit(format!("range too big; at most {MAX_RANGE} numbers")));
        }
        let mut items = Vec::new();
        let mut at = start;
        while (step > 0 && at < stop) || (step < 0 && at > stop) {
            items.push(Value::Int(at));
            at = at.saturating_add(step);
        }
        Value::list(items, ListKind::List, self.budget)
    }
}
