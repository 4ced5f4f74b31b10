//! What a template may cost. It comes with a model file, from strangers: it must not hang, exhaust memory or overflow the
//! stack, whatever it says.
//!
//! minijinja counts instructions (its fuel) and calls, but not bytes: forty doublings of a string are a hundred
//! instructions and a terabyte. So everything that makes text or lists pays for it here by size, out of one allowance for
//! a rendering. Filters and methods are wrapped; operators cannot be, so `tame` exchanges their instructions, one for
//! one, for calls of filters of ours. That also gives `+`, `~` and `%` what Python and Jinja's `Markup` make of them.

mod operators;

pub use operators::equip;

use super::python;
use minijinja::formatting::{FormatStyle, format};
use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Enumerator, Object, Rest, Tuple, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use minijinja_contrib::pycompat;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Bytes of text and lists that a rendering may make, and more for each byte that came with the request.
const ALLOWANCE: usize = 64 << 20;
const ALLOWANCE_PER_BYTE: usize = 64;
/// The longest single text, likewise.
const TEXT: usize = 1 << 20;
const TEXT_PER_BYTE: usize = 4;
/// The most values in one list or dict, those within its elements included, and more for each byte of the request.
const VALUES: usize = 100_000;
/// The deepest nesting of lists and dicts.
pub const MAX_DEPTH: usize = 64;
/// What a value costs in a list.
const VALUE_BYTES: usize = 32;
/// Text between tags that is longer is paid for whenever it is written.
const FREE_TEXT: usize = 64;
/// The largest width or count that a template may ask for.
const MAX_COUNT: i64 = 1000;

/// The allowance of one rendering.
#[derive(Clone, Debug)]
pub struct Meter {
    left: Arc<AtomicUsize>,
    longest: usize,
    most: usize,
}

fn refuse(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::OutOfFuel, what.into())
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

impl Meter {
    /// For a request of `input` bytes.
    pub fn new(input: usize) -> Meter {
        let more = |base: usize, each: usize| base.saturating_add(input.saturating_mul(each));
        let left = Arc::new(AtomicUsize::new(more(ALLOWANCE, ALLOWANCE_PER_BYTE)));
        Meter { left, longest: more(TEXT, TEXT_PER_BYTE), most: more(VALUES, 1) }
    }

    /// Pays for a text before it is made.
    pub fn text(&self, bytes: usize) -> Result<(), Error> {
        self.fits(bytes)?;
        self.pay(bytes)
    }

    fn fits(&self, bytes: usize) -> Result<(), Error> {
        match bytes > self.longest {
            true => Err(refuse(format!("the template makes a text of {bytes} bytes, more than {}", self.longest))),
            false => Ok(()),
        }
    }

    fn pay(&self, bytes: usize) -> Result<(), Error> {
        let left = self.left.load(Ordering::Relaxed).checked_sub(bytes);
        self.left.store(left.ok_or_else(|| refuse("the template does too much work"))?, Ordering::Relaxed);
        Ok(())
    }

    /// Pays for a value's text or elements.
    fn value(&self, value: &Value) -> Result<(), Error> {
        match (value.as_str(), value.kind()) {
            (Some(text), _) => self.text(text.len()),
            (None, ValueKind::Seq | ValueKind::Map) => self.pay(value.len().unwrap_or(0).saturating_mul(VALUE_BYTES)),
            _ => self.pay(1),
        }
    }

    /// Pays for a new list or dict with all that is in it.
    pub fn list(&self, elements: &[Value]) -> Result<(), Error> {
        let mut left = self.most;
        elements.iter().try_for_each(|element| weigh(element, 1, &mut left))?;
        self.pay((self.most - left) * VALUE_BYTES)
    }

    /// A filter or method between payments for what goes in and what comes out. Lazy results are worked out: of those
    /// that read from each other without end, minijinja would run out of stack.
    fn around(&self, args: &[Value], call: impl FnOnce() -> Result<Value, Error>) -> Result<Value, Error> {
        args.iter().try_for_each(|arg| self.value(arg))?;
        let result = call()?;
        if !matches!(result.kind(), ValueKind::Iterable | ValueKind::Seq | ValueKind::Map) {
            self.value(&result)?;
            return Ok(result);
        }
        let items = result.try_iter()?.checked().take(self.most + 1).collect::<Result<Vec<_>, _>>()?;
        self.list(&items)?;
        Ok(if result.kind() == ValueKind::Iterable { Value::from(items) } else { result })
    }
}

/// Counts the values in a value down. Lists that were made before cannot hold themselves, but each other many times over.
fn weigh(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
    *left = left.checked_sub(1).filter(|_| depth <= MAX_DEPTH).ok_or_else(|| {
        refuse(format!("the template makes a list of too many values or more than {MAX_DEPTH} levels"))
    })?;
    if let Some(object) = value.as_object()
        && (object.downcast_ref::<Namespace>().is_some() || object.type_name().ends_with("::Loop"))
    {
        return Err(invalid("a namespace or loop cannot be put into another value"));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| weigh(&item, depth + 1, left)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| weigh(&value.get_item(&key)?, depth + 1, left)),
        _ => Ok(()),
    }
}

/// Operators as expressions of minijinja's own, for what is neither text nor list.
static PLAIN: LazyLock<Environment> = LazyLock::new(Environment::new);

fn plain(expression: &'static str, args: &[Value]) -> Result<Value, Error> {
    let names = [("a", 0), ("b", 1), ("c", 2), ("d", 3)];
    let names = names.into_iter().filter_map(|(name, i)| Some((name, args.get(i)?.clone())));
    PLAIN.compile_expression(expression)?.eval(Value::from_pairs(names))
}

/// No slot in the interpreter's cache of filters.
const UNCACHED: u8 = !0;
const NOT_A_NAME: &str = "`set` takes names and attributes of names";

/// A `{% set namespace.attribute = … %}` of a template: the filter that does it, the namespace's name, the attribute.
pub type Assignment<'s> = (&'s str, &'s str, &'s str);

/// Exchanges the instructions that make text or lists, or fill namespaces, for calls of the filters that [`equip`] adds.
/// Adds the assignments to namespaces. Fails if one is to more than a name's attribute.
pub fn tame<'s>(
    instructions: &mut Instructions<'s>,
    blocks: &mut BTreeMap<&'s str, Instructions<'s>>,
    assignments: &mut Vec<Assignment<'s>>,
) -> Result<(), &'static str> {
    let mut at = 0;
    let (name, source) = (instructions.name(), instructions.source());
    while let Some(instruction) = instructions.get_mut(at) {
        at += 1;
        let (filter, count) = match instruction {
            Instruction::Add => ("+", 2),
            Instruction::StringConcat => ("~", 2),
            Instruction::Mul => ("*", 2),
            Instruction::Rem => ("%", 2),
            Instruction::Slice => ("[:]", 4),
            Instruction::BuildList(Some(n)) => ("[]", *n),
            Instruction::BuildTuple(Some(n)) => ("()", *n),
            Instruction::BuildMap(n) => ("{}", 2 * *n),
            // A block of its own writes it through the formatter, which pays.
            Instruction::EmitRaw(text) if text.len() > FREE_TEXT => {
                let text = *text;
                let mut block = Instructions::new(name, source);
                block.add(Instruction::LoadConst(Value::from(text)));
                block.add(Instruction::Emit);
                blocks.entry(text).or_insert(block);
                *instruction = Instruction::CallBlock(text);
                continue;
            }
            Instruction::SetAttr(attribute) => {
                let attribute = *attribute;
                *instruction = Instruction::DiscardTop;
                let target = at.checked_sub(2).and_then(|before| instructions.get(before));
                let Some(Instruction::Lookup(name)) = target else { return Err(NOT_A_NAME) };
                let path = format!("{name}.{attribute}");
                let Some(found) = source.find(&path) else { return Err(NOT_A_NAME) };
                let path = &source[found..found + path.len()];
                assignments.push((path, name, attribute));
                (path, 1)
            }
            _ => continue,
        };
        let Ok(count) = u16::try_from(count) else { return Err("a list of too many elements") };
        let place = if filter.contains('.') { at - 2 } else { at - 1 };
        if let Some(instruction) = instructions.get_mut(place) {
            *instruction = Instruction::ApplyFilter(filter, Some(count), UNCACHED);
        }
    }
    Ok(())
}

/// What `namespace()` makes. It never gets into lists, dicts or namespaces: one that held itself would have no end.
#[derive(Debug, Default)]
struct Namespace(Mutex<Vec<(String, Value)>>);

impl Namespace {
    fn set(&self, name: &str, value: Value) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => entries.push((name.to_string(), value)),
        }
    }
}

impl Object for Namespace {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().find(|(name, _)| key.as_str() == Some(name)).map(|(_, value)| value.clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Enumerator::Values(entries.iter().map(|(name, _)| Value::from(name.as_str())).collect())
    }
}

/// Adds what assigns to namespaces.
pub fn assign(env: &mut Environment, meter: &Meter, assignments: &[Assignment]) {
    for (filter, name, attribute) in assignments {
        let (meter, name, attribute) = (meter.clone(), name.to_string(), attribute.to_string());
        env.add_filter(filter.to_string(), move |state: &State, value: Value| {
            meter.list(std::slice::from_ref(&value))?;
            let target = state.lookup(&name).unwrap_or_default();
            let Some(namespace) = target.downcast_object_ref::<Namespace>() else {
                return Err(invalid(format!("'{name}' is no namespace")));
            };
            namespace.set(&attribute, value);
            Ok(Value::UNDEFINED)
        });
    }
    let meter = meter.clone();
    env.add_function("namespace", move |args: Rest<ValueOrKwargs>| {
        let namespace = Namespace::default();
        if let Some(entries) = args.into_values().first() {
            for name in entries.try_iter()? {
                let value = entries.get_item(&name)?;
                meter.list(std::slice::from_ref(&value))?;
                namespace.set(&python::text(&name)?, value);
            }
        }
        Ok::<_, Error>(Value::from_object(namespace))
    });
}

/// Marks the template's own errors.
#[derive(Debug)]
pub struct Raised;

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raised by the template")
    }
}
