//! Computes the expressions of a template.

use super::ast::{Args, Comparison, Expr, ExprKind, Post};
use super::fault::{Fault, Result};
use super::functions::CallArgs;
use super::interp::Interp;
use super::methods::{Place, has_method};
use super::operators;
use super::taint::TextBuilder;
use super::value::{ListKind, Value};
use std::cmp::Ordering;

impl Interp<'_> {
    /// The value of an expression.
    pub fn eval(&mut self, expr: &Expr) -> Result<Value> {
        self.budget.work(1).map_err(|fault| fault.on(expr.line))?;
        self.deeper(|i| i.expression(expr)).map_err(|fault| fault.on(expr.line))
    }

    fn expression(&mut self, expr: &Expr) -> Result<Value> {
        match &expr.kind {
            ExprKind::Const(constant) => Ok(Value::from(constant)),
            ExprKind::Name(name) => {
                Ok(self.scope.get(name).unwrap_or_else(|| Value::Undefined(format!("'{name}' is undefined").into())))
            }
            ExprKind::List(items) => {
                let items = self.eval_all(items)?;
                Value::list(items, ListKind::List, self.budget)
            }
            ExprKind::Tuple(items) => {
                let items = self.eval_all(items)?;
                Value::list(items, ListKind::Tuple, self.budget)
            }
            ExprKind::Dict(entries) => {
                let mut values = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    values.push((self.eval(key)?, self.eval(value)?));
                }
                Value::dict(values, self.budget)
            }
            ExprKind::If { test, then, otherwise } => match (self.eval(test)?.is_true(), otherwise) {
                (true, _) => self.eval(then),
                (false, Some(otherwise)) => self.eval(otherwise),
                (false, None) => {
                    let what = "the inline if-expression evaluated to false and no else section was defined";
                    Ok(Value::Undefined(what.into()))
                }
            },
            ExprKind::Or(operands) => self.first_where(operands, true),
            ExprKind::And(operands) => self.first_where(operands, false),
            ExprKind::Not(inner) => Ok(Value::Bool(!self.eval(inner)?.is_true())),
            ExprKind::Neg(inner) => operators::negate(&self.eval(inner)?),
            ExprKind::Compare(first, links) => self.compare(first, links),
            ExprKind::Arithmetic(first, links) => {
                let mut value = self.eval(first)?;
                for (operator, operand) in links {
                    let operand = self.eval(operand)?;
                    value = operators::arithmetic(*operator, &value, &operand, self.budget)?;
                }
                Ok(value)
            }
            ExprKind::Concat(operands) => {
                let mut out = TextBuilder::default();
                for operand in operands {
                    self.eval(operand)?.write(&mut out, self.budget)?;
                }
                Ok(Value::Str(out.finish()))
            }
            ExprKind::Postfix(base, posts) => {
                let value = self.eval(base)?;
                self.postfix(value, Some(base), posts)
            }
        }
    }

    fn eval_all(&mut self, exprs: &[Expr]) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    /// The first operand whose truth is `truth`, else the last: `or` and `and`.
    fn first_where(&mut self, operands: &[Expr], truth: bool) -> Result<Value> {
        let mut value = Value::None;
        for operand in operands {
            value = self.eval(operand)?;
            if value.is_true() == truth {
                break;
            }
        }
        Ok(value)
    }

    fn compare(&mut self, first: &Expr, links: &[(Comparison, Expr)]) -> Result<Value> {
        let mut left = self.eval(first)?;
        for (comparison, operand) in links {
            let right = self.eval(operand)?;
            let budget = self.budget;
            let ordered = |op, wanted: fn(Ordering) -> bool| left.compare(&right, op, budget).map(wanted);
            let holds = match comparison {
                Comparison::Eq => left.equals(&right, budget)?,
                Comparison::Ne => !left.equals(&right, budget)?,
                Comparison::Lt => ordered("<", Ordering::is_lt)?,
                Comparison::Le => ordered("<=", Ordering::is_le)?,
                Comparison::Gt => ordered(">", Ordering::is_gt)?,
                Comparison::Ge => ordered(">=", Ordering::is_ge)?,
                Comparison::In => operators::contains(&right, &left, budget)?,
                Comparison::NotIn => !operators::contains(&right, &left, budget)?,
            };
            if !holds {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    /// A value with attributes, subscripts, calls, filters and tests applied in order. `base` is its expression, if any.
    pub fn postfix(&mut self, mut value: Value, base: Option<&Expr>, posts: &[(u32, Post)]) -> Result<Value> {
        let mut at = 0;
        while let Some((line, post)) = posts.get(at) {
            self.budget.work(1)?;
            let step = match (post, posts.get(at + 1)) {
                (Post::Attr(name), Some((_, Post::Call(args)))) if has_method(&value, name) => {
                    let place = Place::of(base, &posts[..at]);
                    at += 1;
                    self.args(args).and_then(|args| self.method(&value, name, args, place))
                }
                _ => self.post(value, post),
            };
            value = step.map_err(|fault| fault.on(*line))?;
            at += 1;
        }
        Ok(value)
    }

    fn post(&mut self, value: Value, post: &Post) -> Result<Value> {
        match post {
            Post::Attr(name) => operators::attribute(&value, name),
            Post::Item(index) => {
                let index = self.eval(index)?;
                operators::item(&value, &index, self.budget)
            }
            Post::Slice(start, stop, step) => {
                let mut bound = |e: &Option<Expr>| e.as_ref().map_or(Ok(Value::None), |e| self.eval(e));
                let bounds = [bound(start)?, bound(stop)?, bound(step)?];
                operators::slice(&value, &bounds, self.budget)
            }
            Post::Call(args) => {
                let args = self.args(args)?;
                self.call(&value, args)
            }
            Post::Filter(name, args) => {
                let args = self.args(args)?;
                self.filter(name, value, args)
            }
            Post::Test { name, args, negated } => {
                let args = self.args(args)?;
                Ok(Value::Bool(self.test(name, &value, args)? != *negated))
            }
        }
    }

    /// A call statement's call, with `caller` passed along. Only a call can be the statement's expression.
    pub fn eval_with_caller(&mut self, expr: &Expr, caller: Value) -> Result<Value> {
        let ExprKind::Postfix(base, posts) = &expr.kind else {
            return Err(Fault::ty("a call block needs a call"));
        };
        let Some(((_, Post::Call(args)), before)) = posts.split_last() else {
            return Err(Fault::ty("a call block needs a call"));
        };
        let value = self.eval(base)?;
        let callee = self.postfix(value, Some(base), before)?;
        let mut args = self.args(args)?;
        args.named.push(("caller".into(), caller));
        self.call(&callee, args)
    }

    fn args(&mut self, args: &Args) -> Result<CallArgs> {
        let mut positional = self.eval_all(&args.positional)?;
        if let Some(splat) = &args.splat {
            let more = self.eval(splat)?;
            positional.extend(self.iterate(&more)?);
        }
        let mut named = Vec::with_capacity(args.named.len());
        for (name, expr) in &args.named {
            named.push((name.clone(), self.eval(expr)?));
        }
        if let Some(splat) = &args.named_splat {
            let more = self.eval(splat)?;
            let Value::Dict(dict) = &more else {
                return Err(Fault::ty("the argument after ** must be a dict"));
            };
            for (key, value) in &dict.entries {
                let Some(key) = key.as_text() else { return Err(Fault::ty("keywords must be strings")) };
                named.push((key.as_str().into(), value.clone()));
            }
        }
        Ok(CallArgs { positional, named })
    }
}
