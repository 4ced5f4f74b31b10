//! The values of a template, which behave as Python's do: truth, equality, order, `str()` and `repr()`.
//!
//! Lists and dicts cannot change once made, so there are no cycles, a value's depth is known when it is made, and
//! dropping or printing one cannot exhaust the stack.

use super::ast::{Const, Macro};
use super::fault::{Fault, Result};
use super::functions::Function;
use super::limits::{Budget, MAX_DATA_DEPTH};
use super::scope::{LoopState, Scope};
use super::taint::Text;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::rc::{Rc, Weak};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub enum Value {
    /// What is not there; printing it is allowed, using it gives the message, as in Jinja2.
    Undefined(Arc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Text),
    List(Rc<List>),
    Dict(Rc<Dict>),
    Namespace(Rc<Namespace>),
    Loop(Rc<LoopState>),
    Macro(Rc<BoundMacro>),
    Function(Function),
    /// A method without its call, which templates meet by asking for `schema.items`.
    Method(Rc<(Value, Arc<str>)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListKind {
    List,
    Tuple,
    /// What `map`, `select` and their like return: always true, not comparable, but may be run over.
    Generator,
    /// What `dict.items()` and its like return.
    View,
}

#[derive(Debug)]
pub struct List {
    pub items: Vec<Value>,
    pub kind: ListKind,
    depth: usize,
}

/// A dict in the order of insertion.
#[derive(Debug, Default)]
pub struct Dict {
    pub entries: Vec<(Value, Value)>,
    depth: usize,
}

/// The attributes of a `namespace()`, the one value that can change.
pub type Namespace = RefCell<Vec<(Arc<str>, Value)>>;

/// A macro with the scope it was defined in. The scope owns the macro, not the other way round.
#[derive(Debug)]
pub struct BoundMacro {
    pub def: Arc<Macro>,
    pub scope: Weak<Scope>,
}

impl Dict {
    /// The value under a string key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| matches!(k, Value::Str(k) if k.as_str() == key)).map(|(_, v)| v)
    }

    /// The value under any key.
    pub fn get_value(&self, key: &Value) -> Option<&Value> {
        match key {
            Value::Str(key) => self.get(key.as_str()),
            _ => self.entries.iter().find(|(k, _)| k.same_scalar(key)).map(|(_, v)| v),
        }
    }
}

impl From<&Const> for Value {
    fn from(constant: &Const) -> Value {
        match constant {
            Const::None => Value::None,
            Const::Bool(b) => Value::Bool(*b),
            Const::Int(i) => Value::Int(*i),
            Const::Float(f) => Value::Float(*f),
            Const::Str(s) => Value::Str(Text::template(s.clone())),
        }
    }
}

impl Value {
    /// A string of the template's own.
    pub fn str(chars: impl Into<Arc<str>>) -> Value {
        Value::Str(Text::template(chars))
    }

    /// A list, tuple or generator. Fails if it would be too deep or too dear.
    pub fn list(items: Vec<Value>, kind: ListKind, budget: &Budget) -> Result<Value> {
        budget.elements(items.len())?;
        let depth = deeper(items.iter())?;
        Ok(Value::List(Rc::new(List { items, kind, depth })))
    }

    /// A dict; a later entry replaces an earlier one of the same key. Fails if it would be too deep or too dear.
    pub fn dict(entries: Vec<(Value, Value)>, budget: &Budget) -> Result<Value> {
        budget.elements(2 * entries.len())?;
        let depth = deeper(entries.iter().flat_map(|(k, v)| [k, v]))?;
        let mut unique: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if matches!(key, Value::List(_) | Value::Dict(_)) {
                return Err(Fault::ty(format!("unhashable type: '{}'", key.type_name())));
            }
            budget.work(unique.len() as u64 / 8)?;
            match unique.iter_mut().find(|(k, _)| k.same_scalar(&key)) {
                Some(entry) => entry.1 = value,
                None => unique.push((key, value)),
            }
        }
        Ok(Value::Dict(Rc::new(Dict { entries: unique, depth })))
    }

    /// JSON from a request; its strings are user text, its dicts keep their order.
    pub fn from_json(json: &serde_json::Value, budget: &Budget) -> Result<Value> {
        Self::from_json_at(json, budget, 0)
    }

    fn from_json_at(json: &serde_json::Value, budget: &Budget, depth: usize) -> Result<Value> {
        if depth > MAX_DATA_DEPTH {
            return Err(too_deep());
        }
        Ok(match json {
            serde_json::Value::Null => Value::None,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => match n.as_i128() {
                Some(int) => Value::Int(int),
                None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            serde_json::Value::String(s) => {
                budget.text(s.len())?;
                Value::Str(Text::user(s.as_str()))
            }
            serde_json::Value::Array(items) => {
                let items = items.iter().map(|v| Self::from_json_at(v, budget, depth + 1)).collect::<Result<_>>()?;
                Value::list(items, ListKind::List, budget)?
            }
            serde_json::Value::Object(map) => {
                budget.elements(2 * map.len())?;
                let entry = |(k, v): (&String, &serde_json::Value)| {
                    Ok((Value::Str(Text::user(k.as_str())), Self::from_json_at(v, budget, depth + 1)?))
                };
                let entries: Vec<_> = map.iter().map(entry).collect::<Result<_>>()?;
                // Keys of a JSON map are unique already.
                let depth = deeper(entries.iter().map(|(_, v)| v))?;
                Value::Dict(Rc::new(Dict { entries, depth }))
            }
        })
    }

    /// The name of Python's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "Undefined",
            Value::None => "NoneType",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float",
            Value::Str(_) => "str",
            Value::List(list) => match list.kind {
                ListKind::List => "list",
                ListKind::Tuple => "tuple",
                ListKind::Generator => "generator",
                ListKind::View => "dict_items",
            },
            Value::Dict(_) => "dict",
            Value::Namespace(_) => "Namespace",
            Value::Loop(_) => "LoopContext",
            Value::Macro(_) => "Macro",
            Value::Function(_) => "function",
            Value::Method(_) => "builtin_function_or_method",
        }
    }

    /// How Jinja2 names a value whose attribute is missing.
    pub fn object_name(&self) -> String {
        match self {
            Value::None => "None".into(),
            _ => format!("{} object", self.type_name()),
        }
    }

    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(b) => *b,
            Value::Int(i) => *i != 0,
            Value::Float(f) => *f != 0.0,
            Value::Str(s) => !s.as_str().is_empty(),
            Value::List(list) => list.kind == ListKind::Generator || !list.items.is_empty(),
            Value::Dict(dict) => !dict.entries.is_empty(),
            Value::Namespace(_) | Value::Loop(_) | Value::Macro(_) | Value::Function(_) | Value::Method(_) => true,
        }
    }

    /// Python's `==`. Costs work: shared lists can be exponentially larger than what they hold in memory.
    pub fn equals(&self, other: &Value, budget: &Budget) -> Result<bool> {
        budget.work(1)?;
        match (self, other) {
            (Value::Str(a), Value::Str(b)) => {
                budget.work(a.len().min(b.len()) as u64 / 16)?;
                Ok(a == b)
            }
            (Value::List(a), Value::List(b)) => {
                if a.kind != b.kind || a.items.len() != b.items.len() {
                    return Ok(false);
                }
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Dict(a), Value::Dict(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &a.entries {
                    budget.work(b.entries.len() as u64 / 8)?;
                    match b.get_value(key) {
                        Some(other) if value.equals(other, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            _ => Ok(self.same_scalar(other)),
        }
    }

    /// Equality of anything but lists and dicts.
    fn same_scalar(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
            (Value::Str(a), Value::Str(b)) => a == b,
            (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
            (Value::Function(a), Value::Function(b)) => a == b,
            (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
            _ => match (self.as_int(), other.as_int()) {
                (Some(a), Some(b)) => a == b,
                _ => matches!((self.as_float(), other.as_float()), (Some(a), Some(b)) if a == b),
            },
        }
    }

    /// Python's `<` and its like; `op` is for the message.
    pub fn compare(&self, other: &Value, op: &str, budget: &Budget) -> Result<Ordering> {
        budget.work(1)?;
        match (self, other) {
            (Value::Undefined(what), _) | (_, Value::Undefined(what)) => return Err(Fault::undefined(&**what)),
            (Value::Str(a), Value::Str(b)) => {
                budget.work(a.len().min(b.len()) as u64 / 16)?;
                return Ok(a.as_str().cmp(b.as_str()));
            }
            (Value::List(a), Value::List(b)) if a.kind == b.kind => {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !a.equals(b, budget)? {
                        return a.compare(b, op, budget);
                    }
                }
                return Ok(a.items.len().cmp(&b.items.len()));
            }
            _ => {}
        }
        match (self.as_int(), other.as_int()) {
            (Some(a), Some(b)) => Ok(a.cmp(&b)),
            _ => match (self.as_float(), other.as_float()) {
                (Some(a), Some(b)) => Ok(a.partial_cmp(&b).unwrap_or(Ordering::Equal)),
                _ => {
                    let (a, b) = (self.type_name(), other.type_name());
                    Err(Fault::ty(format!("'{op}' not supported between instances of '{a}' and '{b}'")))
                }
            },
        }
    }

    /// An int or bool as a number.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(i) => Some(*i),
            Value::Bool(b) => Some(*b as i128),
            _ => None,
        }
    }

    /// Any number as a float.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(f) => Some(*f),
            _ => self.as_int().map(|i| i as f64),
        }
    }

    pub fn as_text(&self) -> Option<&Text> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Value::List(list) => list.depth,
            Value::Dict(dict) => dict.depth,
            _ => 0,
        }
    }
}

fn too_deep() -> Fault {
    Fault::limit(format!("lists and dicts nested more than {MAX_DATA_DEPTH} deep"))
}

/// The depth of a container of these.
fn deeper<'a>(items: impl Iterator<Item = &'a Value>) -> Result<usize> {
    let mut depth = 1;
    for item in items {
        if matches!(item, Value::Namespace(_) | Value::Loop(_)) {
            // They can change, so a list that holds one could come to hold itself.
            return Err(Fault::ty(format!("a {} cannot be put into a list or dict", item.type_name())));
        }
        depth = depth.max(1 + item.depth());
    }
    if depth > MAX_DATA_DEPTH { Err(too_deep()) } else { Ok(depth) }
}
