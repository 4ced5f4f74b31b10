//! Names in scope: a chain of frames, innermost first, and what `loop` knows.

use super::ast::For;
use super::value::Value;
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

/// One frame of names.
#[derive(Debug, Default)]
pub struct Scope {
    names: RefCell<Vec<(Arc<str>, Value)>>,
    parent: Option<Rc<Scope>>,
}

impl Scope {
    /// A frame inside `parent`.
    pub fn inside(parent: &Rc<Scope>) -> Rc<Scope> {
        Rc::new(Scope { names: RefCell::default(), parent: Some(parent.clone()) })
    }

    /// The value of a name, here or further out.
    pub fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            if let Some((_, value)) = scope.names.borrow().iter().find(|(n, _)| **n == *name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_deref()?;
        }
    }

    /// Sets a name in this frame.
    pub fn set(&self, name: Arc<str>, value: Value) {
        let mut names = self.names.borrow_mut();
        match names.iter_mut().find(|(n, _)| *n == name) {
            Some(entry) => entry.1 = value,
            None => names.push((name, value)),
        }
    }

    /// Sets a name in the frame that has it; false if none has.
    pub fn reset(&self, name: &str, value: Value) -> bool {
        let mut scope = self;
        loop {
            if let Some(entry) = scope.names.borrow_mut().iter_mut().find(|(n, _)| **n == *name) {
                entry.1 = value;
                return true;
            }
            match scope.parent.as_deref() {
                Some(parent) => scope = parent,
                None => return false,
            }
        }
    }
}

/// The state behind the name `loop`.
#[derive(Debug)]
pub struct LoopState {
    pub index: usize,
    pub items: Rc<Vec<Value>>,
    /// 0 for the outermost of a recursive loop.
    pub depth: usize,
    /// What `loop.changed` saw last.
    pub changed: RefCell<Option<Vec<Value>>>,
    /// The loop itself and the scope around it, if it may call itself.
    pub recursion: Option<(Arc<For>, Weak<Scope>)>,
}

impl LoopState {
    /// The attribute of `loop`, if there is one of this name.
    pub fn get(&self, name: &str) -> Option<Value> {
        let len = self.items.len();
        let int = |n: usize| Some(Value::Int(n as i128));
        let neighbour = |i: Option<usize>, what: &str| {
            Some(i.and_then(|i| self.items.get(i)).cloned().unwrap_or_else(|| Value::Undefined(what.into())))
        };
        match name {
            "index" => int(self.index + 1),
            "index0" => int(self.index),
            "revindex" => int(len - self.index),
            "revindex0" => int(len - self.index - 1),
            "first" => Some(Value::Bool(self.index == 0)),
            "last" => Some(Value::Bool(self.index + 1 == len)),
            "length" => int(len),
            "depth" => int(self.depth + 1),
            "depth0" => int(self.depth),
            "previtem" => neighbour(self.index.checked_sub(1), "there is no previous item"),
            "nextitem" => neighbour(Some(self.index + 1), "there is no next item"),
            _ => None,
        }
    }
}
