//! Runs the statements of a template.

use super::ast::{Block, Expr, For, Post, Stmt, StmtKind, Target};
use super::clock::Clock;
use super::fault::{Fault, Result};
use super::limits::{Budget, MAX_DEPTH};
use super::scope::{LoopState, Scope};
use super::taint::{Text, TextBuilder};
use super::value::{BoundMacro, Namespace, Value};
use std::rc::Rc;
use std::sync::Arc;

/// How a block ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Flow {
    Next,
    Break,
    Continue,
}

/// One rendering.
pub struct Interp<'a> {
    pub budget: &'a Budget,
    pub clock: Clock,
    pub scope: Rc<Scope>,
    /// What is being written: the output, and captures inside it.
    out: Vec<TextBuilder>,
    depth: usize,
}

impl<'a> Interp<'a> {
    /// A rendering with these names defined.
    pub fn new(names: Vec<(Arc<str>, Value)>, clock: Clock, budget: &'a Budget) -> Interp<'a> {
        let globals = Rc::new(Scope::default());
        for (name, value) in names {
            globals.set(name, value);
        }
        let scope = Scope::inside(&globals);
        Interp { budget, clock, scope, out: Vec::new(), depth: 0 }
    }

    /// The text of a whole template.
    pub fn render(&mut self, block: &Block) -> Result<Text> {
        self.capture(|i| i.block(block).map(|_| ()))
    }

    /// Runs `run` one level deeper.
    pub fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(Fault::limit(format!("the template nests calls more than {MAX_DEPTH} levels deep")));
        }
        self.depth += 1;
        let result = run(self);
        self.depth -= 1;
        result
    }

    /// Runs `run` with names of its own, inside `outer`.
    pub fn scoped<T>(&mut self, outer: &Rc<Scope>, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let saved = std::mem::replace(&mut self.scope, Scope::inside(outer));
        let result = run(self);
        self.scope = saved;
        result
    }

    /// What `run` writes.
    pub fn capture(&mut self, run: impl FnOnce(&mut Self) -> Result<()>) -> Result<Text> {
        self.out.push(TextBuilder::default());
        let result = run(self);
        let text = self.out.pop().unwrap_or_default().finish();
        result.map(|()| text)
    }

    fn write(&mut self, value: &Value) -> Result<()> {
        match self.out.last_mut() {
            Some(out) => value.write(out, self.budget),
            None => Ok(()),
        }
    }

    /// Runs statements until the end, a `break` or a `continue`.
    pub fn block(&mut self, block: &Block) -> Result<Flow> {
        for stmt in block {
            self.budget.work(1).map_err(|fault| fault.on(stmt.line))?;
            let flow = self.deeper(|i| i.statement(stmt)).map_err(|fault| fault.on(stmt.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, stmt: &Stmt) -> Result<Flow> {
        match &stmt.kind {
            StmtKind::Text(text) => {
                let out = self.out.last_mut();
                if let Some(out) = out {
                    self.budget.append(out.len(), text.len())?;
                    out.push_str(text, false);
                }
            }
            StmtKind::Output(expr) => {
                let value = self.eval(expr)?;
                self.write(&value)?;
            }
            StmtKind::If { branches, otherwise } => {
                for (test, block) in branches {
                    if self.eval(test)?.is_true() {
                        return self.block(block);
                    }
                }
                return self.block(otherwise);
            }
            StmtKind::For(stmt) => {
                let items = self.eval(&stmt.iter)?;
                let outer = self.scope.clone();
                self.run_loop(stmt, &items, &outer, 0)?;
            }
            StmtKind::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value)?;
            }
            StmtKind::SetBlock(target, filters, body) => {
                let value = self.captured(filters, body)?;
                self.assign(target, value)?;
            }
            StmtKind::Filter(filters, body) => {
                let value = self.captured(filters, body)?;
                self.write(&value)?;
            }
            StmtKind::With(assignments, body) => return self.with(assignments, body),
            StmtKind::Macro(def) => {
                let bound = BoundMacro { def: def.clone(), scope: Rc::downgrade(&self.scope) };
                self.scope.set(def.name.clone(), Value::Macro(Rc::new(bound)));
            }
            StmtKind::CallBlock(call, def) => {
                let caller = BoundMacro { def: def.clone(), scope: Rc::downgrade(&self.scope) };
                let value = self.eval_with_caller(call, Value::Macro(Rc::new(caller)))?;
                self.write(&value)?;
            }
            StmtKind::Generation(body) => return self.block(body),
            StmtKind::Do(expr) => drop(self.eval(expr)?),
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// Runs a block with names of its own. Their values see the names outside, not each other.
    fn with(&mut self, assignments: &[(Target, Expr)], body: &Block) -> Result<Flow> {
        let mut values = Vec::with_capacity(assignments.len());
        for (_, expr) in assignments {
            values.push(self.eval(expr)?);
        }
        let outer = self.scope.clone();
        self.scoped(&outer, |i| {
            for ((target, _), value) in assignments.iter().zip(values) {
                i.assign(target, value)?;
            }
            i.block(body)
        })
    }

    /// What a block writes, put through filters. The block has names of its own.
    fn captured(&mut self, filters: &[(u32, Post)], body: &Block) -> Result<Value> {
        let outer = self.scope.clone();
        let text = self.scoped(&outer, |i| i.capture(|i| i.block(body).map(|_| ())))?;
        self.postfix(Value::Str(text), None, filters)
    }

    /// Runs a loop over `items`; each turn has names of its own.
    pub fn run_loop(&mut self, stmt: &Arc<For>, items: &Value, outer: &Rc<Scope>, depth: usize) -> Result<()> {
        let mut items = self.iterate(items)?;
        if let Some(filter) = &stmt.filter {
            let mut kept = Vec::new();
            for item in items {
                let keep = self.scoped(outer, |i| {
                    i.assign(&stmt.target, item.clone())?;
                    Ok(i.eval(filter)?.is_true())
                })?;
                if keep {
                    kept.push(item);
                }
            }
            items = kept;
        }
        if items.is_empty() {
            return self.scoped(outer, |i| i.block(&stmt.otherwise).map(|_| ()));
        }
        let items = Rc::new(items);
        let mut changed = None;
        for index in 0..items.len() {
            let recursion = stmt.recursive.then(|| (stmt.clone(), Rc::downgrade(outer)));
            let state =
                Rc::new(LoopState { index, items: items.clone(), depth, changed: changed.take().into(), recursion });
            let flow = self.scoped(outer, |i| {
                i.scope.set("loop".into(), Value::Loop(state.clone()));
                i.assign(&stmt.target, items[index].clone())?;
                i.block(&stmt.body)
            })?;
            changed = state.changed.take();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// The elements of a value, as `for` sees them.
    pub fn iterate(&self, value: &Value) -> Result<Vec<Value>> {
        match value {
            Value::Undefined(_) => Ok(Vec::new()),
            Value::List(list) => {
                self.budget.elements(list.items.len())?;
                Ok(list.items.clone())
            }
            Value::Dict(dict) => {
                self.budget.elements(dict.entries.len())?;
                Ok(dict.entries.iter().map(|(key, _)| key.clone()).collect())
            }
            Value::Str(text) => {
                self.budget.elements(text.len())?;
                let char = |(at, c): (usize, char)| Value::Str(text.slice(at..at + c.len_utf8()));
                Ok(text.as_str().char_indices().map(char).collect())
            }
            other => Err(Fault::ty(format!("'{}' object is not iterable", other.type_name()))),
        }
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.scope.set(name.clone(), value),
            Target::Attr(name, attr) => match self.scope.get(name) {
                Some(Value::Namespace(entries)) => set_attr(&entries, attr, value)?,
                _ => return Err(Fault::ty(format!("cannot assign to {name}.{attr}: {name} is no namespace"))),
            },
            Target::Tuple(targets) => {
                let items = self.iterate(&value)?;
                if items.len() != targets.len() {
                    let (want, have) = (targets.len(), items.len());
                    return Err(Fault::value(format!("cannot unpack {have} values into {want} names")));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item)?;
                }
            }
        }
        Ok(())
    }
}

/// Sets an attribute of a namespace. A namespace may not hold one: it could come to hold itself.
pub fn set_attr(entries: &Namespace, attr: &Arc<str>, value: Value) -> Result<()> {
    if matches!(value, Value::Namespace(_)) {
        return Err(Fault::ty("a namespace cannot hold a namespace"));
    }
    let mut entries = entries.borrow_mut();
    match entries.iter_mut().find(|(name, _)| name == attr) {
        Some(entry) => entry.1 = value,
        None => entries.push((attr.clone(), value)),
    }
    Ok(())
}
