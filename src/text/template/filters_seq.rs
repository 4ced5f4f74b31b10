//! Jinja2's filters on sequences and dicts.

use super::fault::{Fault, Result};
use super::functions::CallArgs;
use super::interp::Interp;
use super::operators;
use super::taint::TextBuilder;
use super::value::{ListKind, Value};
use std::cmp::Ordering;

impl Interp<'_> {
    /// Applies a filter on sequences, or says that there is none of that name.
    pub fn sequence_filter(&mut self, name: &str, value: Value, args: CallArgs) -> Result<Value> {
        match name {
            "first" | "last" => {
                let items = self.iterate(&value)?;
                let found = if name == "first" { items.first() } else { items.last() };
                let empty = || Value::Undefined(format!("no {name} item, sequence was empty").into());
                Ok(found.cloned().unwrap_or_else(empty))
            }
            "list" => {
                let items = self.iterate(&value)?;
                Value::list(items, ListKind::List, self.budget)
            }
            "items" => match &value {
                Value::Dict(dict) => Value::list(self.pairs(&dict.entries)?, ListKind::Generator, self.budget),
                Value::Undefined(_) => Value::list(Vec::new(), ListKind::Generator, self.budget),
                _ => Err(Fault::ty("Can only get item pairs from a mapping.")),
            },
            "dictsort" => self.dict_sort(&value, &args),
            "join" => self.join(&value, &args),
            "map" => self.map(&value, args),
            "select" | "reject" => self.select(&value, args, false, name == "select"),
            "selectattr" | "rejectattr" => self.select(&value, args, true, name == "selectattr"),
            "sort" => {
                let reverse = args.flag(0, "reverse", false);
                let sensitive = args.flag(1, "case_sensitive", false);
                let by = args.some(2, "attribute").cloned();
                let items = self.iterate(&value)?;
                let sorted = self.sort_by(items, reverse, sensitive, by.as_ref())?;
                Value::list(sorted, ListKind::List, self.budget)
            }
            "unique" => self.unique(&value, &args),
            "reverse" => match &value {
                Value::Str(_) => operators::slice(&value, &[Value::None, Value::None, Value::Int(-1)], self.budget),
                _ => {
                    let mut items = self.iterate(&value)?;
                    items.reverse();
                    Value::list(items, ListKind::Generator, self.budget)
                }
            },
            "min" | "max" => self.extreme(&value, &args, name == "min"),
            "sum" => {
                let mut total = args.get(1, "start").cloned().unwrap_or(Value::Int(0));
                for item in self.iterate(&value)? {
                    let item = self.path(&item, args.some(0, "attribute"))?;
                    total = operators::arithmetic(super::ast::Operator::Add, &total, &item, self.budget)?;
                }
                Ok(total)
            }
            "batch" | "slice" => self.batch(&value, &args, name == "batch"),
            "groupby" => self.group_by(&value, &args),
            _ => Err(Fault::syntax(format!("no filter named '{name}'"), 0)),
        }
    }

    /// `item.a.b` for the path `"a.b"`; a number indexes; the item itself without one.
    fn path(&self, item: &Value, path: Option<&Value>) -> Result<Value> {
        match path {
            None => Ok(item.clone()),
            Some(Value::Str(path)) => {
                let mut value = item.clone();
                for part in path.as_str().split('.') {
                    let index = part.parse().map_or_else(|_| Value::str(part), Value::Int);
                    value = operators::item(&value, &index, self.budget)?;
                }
                Ok(value)
            }
            Some(index) => operators::item(item, index, self.budget),
        }
    }

    fn join(&self, value: &Value, args: &CallArgs) -> Result<Value> {
        let separator = args.some(0, "d").map(|d| d.to_text(self.budget)).transpose()?.unwrap_or_default();
        let mut out = TextBuilder::default();
        for (i, item) in self.iterate(value)?.iter().enumerate() {
            self.budget.append(out.len(), separator.weight())?;
            if i > 0 {
                out.push(&separator);
            }
            self.path(item, args.some(1, "attribute"))?.write(&mut out, self.budget)?;
        }
        Ok(Value::Str(out.finish()))
    }

    /// The elements of a value; none of a false one, so that `none|map(…)` is empty, as in Jinja2.
    fn iterate_true(&self, value: &Value) -> Result<Vec<Value>> {
        if value.is_true() { self.iterate(value) } else { Ok(Vec::new()) }
    }

    /// `map('filter', …)` or `map(attribute='a.b', default=…)`
    fn map(&mut self, value: &Value, mut args: CallArgs) -> Result<Value> {
        let mut mapped = Vec::new();
        let items = self.iterate_true(value)?;
        if args.positional.is_empty() {
            for item in items {
                let found = self.path(&item, args.some(usize::MAX, "attribute"))?;
                mapped.push(match (found, args.get(usize::MAX, "default")) {
                    (Value::Undefined(_), Some(default)) => default.clone(),
                    (found, _) => found,
                });
            }
        } else {
            let name = args.positional.remove(0);
            let name = name.as_text().ok_or_else(|| Fault::ty("map wants a filter's name"))?;
            for item in items {
                let args = CallArgs { positional: args.positional.clone(), named: args.named.clone() };
                mapped.push(self.deeper(|i| i.filter(name.as_str(), item, args))?);
            }
        }
        Value::list(mapped, ListKind::Generator, self.budget)
    }

    /// `select('test', …)`, `selectattr('path', 'test', …)` and their opposites.
    fn select(&mut self, value: &Value, mut args: CallArgs, by_attr: bool, wanted: bool) -> Result<Value> {
        let path = match (by_attr, args.positional.is_empty()) {
            (true, true) => return Err(Fault::ty("selectattr wants an attribute")),
            (true, false) => Some(args.positional.remove(0)),
            (false, _) => None,
        };
        let test = if args.positional.is_empty() { None } else { Some(args.positional.remove(0)) };
        let mut kept = Vec::new();
        for item in self.iterate_true(value)? {
            let subject = self.path(&item, path.as_ref())?;
            let holds = match &test {
                None => subject.is_true(),
                Some(Value::Str(test)) => {
                    let args = CallArgs { positional: args.positional.clone(), named: args.named.clone() };
                    self.test(test.as_str(), &subject, args)?
                }
                Some(other) => return Err(Fault::ty(format!("a test's name must be str, not {}", other.type_name()))),
            };
            if holds == wanted {
                kept.push(item);
            }
        }
        Value::list(kept, ListKind::Generator, self.budget)
    }

    /// Sorted by the value at a path; strings without regard to case unless asked for.
    fn sort_by(&self, items: Vec<Value>, reverse: bool, sensitive: bool, by: Option<&Value>) -> Result<Vec<Value>> {
        let mut keyed = Vec::with_capacity(items.len());
        for item in items {
            keyed.push((self.sort_key(&item, sensitive, by)?, item));
        }
        let mut failed = None;
        keyed.sort_by(|(a, _), (b, _)| {
            if failed.is_some() {
                return Ordering::Equal;
            }
            let (a, b) = if reverse { (b, a) } else { (a, b) };
            a.compare(b, "<", self.budget).unwrap_or_else(|fault| {
                failed = Some(fault);
                Ordering::Equal
            })
        });
        match failed {
            Some(fault) => Err(fault),
            None => Ok(keyed.into_iter().map(|(_, item)| item).collect()),
        }
    }

    fn sort_key(&self, item: &Value, sensitive: bool, by: Option<&Value>) -> Result<Value> {
        let key = self.path(item, by)?;
        match key {
            Value::Str(text) if !sensitive => {
                self.budget.text(text.weight())?;
                Ok(Value::Str(text.map(str::to_lowercase)))
            }
            key => Ok(key),
        }
    }

    fn dict_sort(&self, value: &Value, args: &CallArgs) -> Result<Value> {
        let Value::Dict(dict) = value else {
            return Err(match value {
                Value::Undefined(what) => Fault::undefined(&**what),
                other => Fault::ty(format!("'{}' object has no items to sort", other.type_name())),
            });
        };
        let by = match args.text(1, "by")?.map(|by| by.as_str()) {
            None | Some("key") => Value::Int(0),
            Some("value") => Value::Int(1),
            Some(_) => return Err(Fault::value("You can only sort by either \"key\" or \"value\"")),
        };
        let sensitive = args.flag(0, "case_sensitive", false);
        let reverse = args.flag(2, "reverse", false);
        let sorted = self.sort_by(self.pairs(&dict.entries)?, reverse, sensitive, Some(&by))?;
        Value::list(sorted, ListKind::List, self.budget)
    }

    fn unique(&self, value: &Value, args: &CallArgs) -> Result<Value> {
        let sensitive = args.flag(0, "case_sensitive", false);
        let by = args.some(1, "attribute");
        let mut seen: Vec<Value> = Vec::new();
        let mut kept = Vec::new();
        'items: for item in self.iterate(value)? {
            let key = self.sort_key(&item, sensitive, by)?;
            for earlier in &seen {
                if earlier.equals(&key, self.budget)? {
                    continue 'items;
                }
            }
            seen.push(key);
            kept.push(item);
        }
        Value::list(kept, ListKind::Generator, self.budget)
    }

    fn extreme(&self, value: &Value, args: &CallArgs, least: bool) -> Result<Value> {
        let sensitive = args.flag(0, "case_sensitive", false);
        let by = args.some(1, "attribute");
        let mut best: Option<(Value, Value)> = None;
        for item in self.iterate(value)? {
            let key = self.sort_key(&item, sensitive, by)?;
            let better = match &best {
                None => true,
                Some((held, _)) => {
                    let order = key.compare(held, "<", self.budget)?;
                    if least { order.is_lt() } else { order.is_gt() }
                }
            };
            if better {
                best = Some((key, item));
            }
        }
        let empty = || Value::Undefined("No aggregated item, sequence was empty.".into());
        Ok(best.map_or_else(empty, |(_, item)| item))
    }

    /// `batch(n)`: rows of n. `slice(n)`: n columns.
    fn batch(&self, value: &Value, args: &CallArgs, rows: bool) -> Result<Value> {
        let count = args.int(0, "linecount")?.unwrap_or(1);
        let count = usize::try_from(count).ok().filter(|n| *n > 0).ok_or_else(|| Fault::value("a count below 1"))?;
        let fill = args.some(1, "fill_with");
        let items = self.iterate(value)?;
        self.budget.elements(count.saturating_add(items.len()))?;
        let mut lists = Vec::new();
        let mut add = |mut list: Vec<Value>, full: usize| {
            if let Some(fill) = fill {
                list.resize(full.max(list.len()), fill.clone());
            }
            Value::list(list, ListKind::List, self.budget).map(|list| lists.push(list))
        };
        if rows {
            for row in items.chunks(count) {
                add(row.to_vec(), count)?;
            }
        } else {
            let (each, extra) = (items.len() / count, items.len() % count);
            let mut rest = &items[..];
            for column in 0..count {
                let (taken, left) = rest.split_at(each + (column < extra) as usize);
                add(taken.to_vec(), each + (extra > 0) as usize)?;
                rest = left;
            }
        }
        Value::list(lists, ListKind::Generator, self.budget)
    }

    /// Pairs of a value and the items that have it at a path, sorted by the value.
    fn group_by(&self, value: &Value, args: &CallArgs) -> Result<Value> {
        let by = args.need(0, "attribute")?.clone();
        let sensitive = args.flag(2, "case_sensitive", false);
        let sorted = self.sort_by(self.iterate(value)?, false, sensitive, Some(&by))?;
        let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
        for item in sorted {
            let key = self.path(&item, Some(&by))?;
            match groups.last_mut() {
                Some((held, items)) if held.equals(&key, self.budget)? => items.push(item),
                _ => groups.push((key, vec![item])),
            }
        }
        let mut pairs = Vec::new();
        for (key, items) in groups {
            let items = Value::list(items, ListKind::List, self.budget)?;
            pairs.push(Value::list(vec![key, items], ListKind::Tuple, self.budget)?);
        }
        Value::list(pairs, ListKind::List, self.budget)
    }
}
