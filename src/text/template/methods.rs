//! Methods of lists and dicts, and which methods there are.
//!
//! transformers' sandbox forbids methods that change a list or dict, so templates that use them (Kimi K2 appends to a
//! list) cannot show tool results there. Here `x.append(y)` on a name or a namespace's attribute puts a new list in its
//! place: the usual uses work, and values still never change.

use super::ast::{Expr, ExprKind, Post};
use super::fault::{Fault, Result};
use super::functions::CallArgs;
use super::interp::{Interp, set_attr};
use super::methods_str::STR_METHODS;
use super::value::{Dict, List, ListKind, Value};
use std::rc::Rc;
use std::sync::Arc;

const LIST_METHODS: [&str; 6] = ["append", "extend", "insert", "pop", "count", "index"];
const DICT_METHODS: [&str; 8] = ["get", "items", "keys", "values", "copy", "update", "pop", "setdefault"];
const LOOP_METHODS: [&str; 2] = ["cycle", "changed"];

/// Whether values of this type have the method.
pub fn has_method(value: &Value, name: &str) -> bool {
    match value {
        Value::Str(_) => STR_METHODS.contains(&name),
        Value::List(list) => match list.kind {
            ListKind::List => LIST_METHODS.contains(&name),
            ListKind::Tuple => matches!(name, "count" | "index"),
            ListKind::Generator | ListKind::View => false,
        },
        Value::Dict(_) => DICT_METHODS.contains(&name),
        Value::Loop(_) => LOOP_METHODS.contains(&name),
        _ => false,
    }
}

/// Where a method's receiver stands, if a new value can be put there.
#[derive(Debug, Clone)]
pub enum Place {
    None,
    Name(Arc<str>),
    /// An attribute of a namespace.
    Attr(Arc<str>, Arc<str>),
}

impl Place {
    /// The place of an expression with what follows it.
    pub fn of(base: Option<&Expr>, posts: &[(u32, Post)]) -> Place {
        let Some(ExprKind::Name(name)) = base.map(|expr| &expr.kind) else { return Place::None };
        match posts {
            [] => Place::Name(name.clone()),
            [(_, Post::Attr(attr))] => Place::Attr(name.clone(), attr.clone()),
            _ => Place::None,
        }
    }
}

impl Interp<'_> {
    /// Calls a method that [`has_method`] knows.
    pub fn method(&mut self, value: &Value, name: &str, args: CallArgs, place: Place) -> Result<Value> {
        match value {
            Value::Str(text) => self.str_method(text, name, args),
            Value::List(list) => self.list_method(list, name, args, place),
            Value::Dict(dict) => self.dict_method(dict, name, args, place),
            Value::Loop(state) if name == "cycle" => {
                let turn = state.index.checked_rem(args.positional.len());
                turn.map(|turn| args.positional[turn].clone()).ok_or_else(|| Fault::ty("cycle needs values"))
            }
            Value::Loop(state) => {
                // A list refuses loops and namespaces, which could make a cycle.
                let Value::List(now) = Value::list(args.positional, ListKind::Tuple, self.budget)? else {
                    return Ok(Value::None);
                };
                let before = state.changed.take();
                let mut same = before.as_ref().is_some_and(|before| before.len() == now.items.len());
                for (a, b) in before.iter().flatten().zip(&now.items) {
                    same = same && a.equals(b, self.budget)?;
                }
                state.changed.replace(Some(now.items.clone()));
                Ok(Value::Bool(!same))
            }
            other => Err(Fault::ty(format!("'{}' object has no method {name}", other.type_name()))),
        }
    }

    /// Puts a changed list or dict where the old one stood.
    fn replace(&self, place: &Place, method: &str, value: Value) -> Result<()> {
        let done = match place {
            Place::None => false,
            Place::Name(name) => self.scope.reset(name, value),
            Place::Attr(name, attr) => match self.scope.get(name) {
                Some(Value::Namespace(entries)) => set_attr(&entries, attr, value).map(|()| true)?,
                _ => false,
            },
        };
        if done { Ok(()) } else { Err(Fault::ty(format!("{method} works on a name or a namespace's attribute only"))) }
    }

    fn list_method(&mut self, list: &Rc<List>, name: &str, args: CallArgs, place: Place) -> Result<Value> {
        match name {
            "count" | "index" => {
                let wanted = args.need(0, "value")?;
                let mut count = 0;
                for (at, item) in list.items.iter().enumerate() {
                    if item.equals(wanted, self.budget)? {
                        if name == "index" {
                            return Ok(Value::Int(at as i128));
                        }
                        count += 1;
                    }
                }
                return if name == "count" { Ok(Value::Int(count)) } else { Err(Fault::value("value is not in list")) };
            }
            _ => {}
        }
        self.budget.elements(list.items.len())?;
        let mut items = list.items.clone();
        let mut result = Value::None;
        match name {
            "append" => items.push(args.need(0, "value")?.clone()),
            "extend" => items.extend(self.iterate(args.need(0, "iterable")?)?),
            "insert" => {
                let len = items.len() as i128;
                let at = args.int(0, "index")?.unwrap_or(0);
                let at = if at < 0 { (at + len).max(0) } else { at.min(len) };
                items.insert(at as usize, args.need(1, "value")?.clone());
            }
            _ => {
                let len = items.len() as i128;
                let at = args.int(0, "index")?.unwrap_or(-1);
                let at = if at < 0 { at + len } else { at };
                if !(0..len).contains(&at) {
                    return Err(Fault::value("pop from an empty list or past its end"));
                }
                result = items.remove(at as usize);
            }
        }
        let changed = Value::list(items, ListKind::List, self.budget)?;
        self.replace(&place, name, changed)?;
        Ok(result)
    }

    fn dict_method(&mut self, dict: &Rc<Dict>, name: &str, args: CallArgs, place: Place) -> Result<Value> {
        self.budget.work(1 + dict.entries.len() as u64 / 8)?;
        let entries = &dict.entries;
        let view = |items: Vec<Value>| Value::list(items, ListKind::View, self.budget);
        match name {
            "get" => {
                let default = || args.get(1, "default").cloned().unwrap_or(Value::None);
                Ok(dict.get_value(args.need(0, "key")?).cloned().unwrap_or_else(default))
            }
            "keys" => view(entries.iter().map(|(key, _)| key.clone()).collect()),
            "values" => view(entries.iter().map(|(_, value)| value.clone()).collect()),
            "items" => view(self.pairs(entries)?),
            "copy" => Ok(Value::Dict(dict.clone())),
            "update" => {
                let mut changed = entries.clone();
                if let Some(more) = args.positional.first() {
                    let Value::Dict(more) = more else { return Err(Fault::ty("update wants a dict")) };
                    changed.extend(more.entries.iter().cloned());
                }
                changed.extend(args.named.into_iter().map(|(name, value)| (Value::str(name), value)));
                let changed = Value::dict(changed, self.budget)?;
                self.replace(&place, name, changed)?;
                Ok(Value::None)
            }
            _ => {
                let key = args.need(0, "key")?;
                match (dict.get_value(key), name, args.get(1, "default")) {
                    (Some(found), "pop", _) => {
                        let kept = entries.iter().filter(|(_, value)| !std::ptr::eq(value, found)).cloned().collect();
                        let changed = Value::dict(kept, self.budget)?;
                        self.replace(&place, name, changed)?;
                        Ok(found.clone())
                    }
                    (Some(found), ..) => Ok(found.clone()),
                    (None, "pop", Some(default)) => Ok(default.clone()),
                    (None, "pop", None) => Err(Fault::value("pop: no such key")),
                    (None, _, default) => {
                        let default = default.cloned().unwrap_or(Value::None);
                        let mut changed = entries.clone();
                        changed.push((key.clone(), default.clone()));
                        let changed = Value::dict(changed, self.budget)?;
                        self.replace(&place, name, changed)?;
                        Ok(default)
                    }
                }
            }
        }
    }

    /// Each entry of a dict as a tuple.
    pub fn pairs(&self, entries: &[(Value, Value)]) -> Result<Vec<Value>> {
        let pair =
            |(key, value): &(Value, Value)| Value::list(vec![key.clone(), value.clone()], ListKind::Tuple, self.budget);
        entries.iter().map(pair).collect()
    }
}
