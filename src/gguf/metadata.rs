//! The key–value pairs of a file, in its order, with getters that check types.

use super::value::{Array, Strings, Value};
use crate::base::{Error, Result};
use std::collections::HashMap;

/// Key–value pairs in the order of the file. Keys are unique.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    pairs: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.pairs == other.pairs
    }
}

/// A type that a metadata value can be read as. `Err` holds what was wrong, such as `found f32`.
pub trait FromValue<'a>: Sized {
    /// What is wanted, in words for the error message.
    const WANTED: &'static str;
    /// The value as this type, or what it is instead.
    fn from_value(value: &'a Value) -> Result<Self, String>;
}

impl Metadata {
    /// No pairs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// All pairs, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        Some(&self.pairs[*self.index.get(key)?].1)
    }

    /// Sets `key`; a value it had before is replaced in place and returned.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(&i) = self.index.get(&key) {
            return Some(std::mem::replace(&mut self.pairs[i].1, value));
        }
        self.index.insert(key.clone(), self.pairs.len());
        self.pairs.push((key, value));
        None
    }

    /// Removes `key` and returns its value. Takes time in proportion to the number of pairs.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let i = self.index.remove(key)?;
        self.index.values_mut().filter(|at| **at > i).for_each(|at| *at -= 1);
        Some(self.pairs.remove(i).1)
    }

    /// The value of `key` as a `T`, `None` if there is no such key. Fails if it has another type.
    pub fn find<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong =
            |found: String| Error::format(format!("wanted {}, found {found}", T::WANTED)).at(format!("key {key}"));
        T::from_value(value).map(Some).map_err(wrong)
    }

    /// The value of `key` as a `T`. Fails if there is none or it has another type.
    pub fn need<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T> {
        self.find(key)?.ok_or_else(|| {
            Error::format(format!("the file has no key {key} ({})", T::WANTED))
                .help("it is not a whole model of this kind: download or convert it again")
        })
    }

    /// The value of `key` as UTF-8 text.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.find(key)
    }

    /// The value of `key`, of any integer type, if it fits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.find(key)
    }

    /// The value of `key`, of any integer type, if it fits.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.find(key)
    }

    /// The value of `key`, of any integer type, if it fits.
    pub fn i32(&self, key: &str) -> Result<Option<i32>> {
        self.find(key)
    }

    /// The value of `key`, a finite float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.find(key)
    }

    /// The value of `key`, a bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.find(key)
    }

    /// The value of `key`, an array of strings (not necessarily UTF-8).
    pub fn strings(&self, key: &str) -> Result<Option<&Strings>> {
        self.find(key)
    }

    /// The value of `key`, an array of any integer type, if all items fit.
    pub fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.find(key)
    }

    /// The value of `key`, an array of any integer type, if all items fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.find(key)
    }

    /// The value of `key`, an array of floats, none of them NaN.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.find(key)
    }

    /// The value of `key`, an array of bools.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.find(key)
    }

    /// One number per layer: `key` holds an array of `layers` integers, or one integer that counts for every layer.
    pub fn u32_per_layer(&self, key: &str, layers: usize) -> Result<Option<Vec<u32>>> {
        match self.get(key) {
            Some(Value::Array(array)) if array.len() != layers => {
                Err(Error::format(format!("an array of {} for {layers} layers", array.len())).at(format!("key {key}")))
            }
            Some(Value::Array(_)) => self.u32s(key),
            _ => Ok(self.u32(key)?.map(|n| vec![n; layers])),
        }
    }
}

/// What a value is, for the error message.
fn found(value: &Value) -> String {
    match value {
        Value::Array(_) => format!("an {}", value.type_name()),
        _ => format!("{} {value}", value.type_name()),
    }
}

impl<'a> FromValue<'a> for &'a Value {
    const WANTED: &'static str = "a value";
    fn from_value(value: &'a Value) -> Result<Self, String> {
        Ok(value)
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    const WANTED: &'static str = "a string";
    fn from_value(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::String(s) => Ok(s),
            v => Err(found(v)),
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const WANTED: &'static str = "a string in UTF-8";
    fn from_value(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::String(s) => std::str::from_utf8(s).map_err(|_| format!("the bytes {value}")),
            v => Err(found(v)),
        }
    }
}

impl FromValue<'_> for bool {
    const WANTED: &'static str = "a bool";
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Bool(v) => Ok(*v),
            v => Err(found(v)),
        }
    }
}

impl FromValue<'_> for f32 {
    const WANTED: &'static str = "a finite float";
    fn from_value(value: &Value) -> Result<Self, String> {
        let float = match value {
            Value::F32(v) => *v,
            Value::F64(v) => *v as f32,
            v => return Err(found(v)),
        };
        if float.is_finite() { Ok(float) } else { Err(found(value)) }
    }
}

impl<'a> FromValue<'a> for &'a Strings {
    const WANTED: &'static str = "an array of strings";
    fn from_value(value: &'a Value) -> Result<Self, String> {
        match value {
            Value::Array(Array::String(v)) => Ok(v),
            v => Err(found(v)),
        }
    }
}

impl FromValue<'_> for Vec<f32> {
    const WANTED: &'static str = "an array of floats without NaN";
    fn from_value(value: &Value) -> Result<Self, String> {
        let floats: Vec<f32> = match value {
            Value::Array(Array::F32(v)) => v.clone(),
            Value::Array(Array::F64(v)) => v.iter().map(|&x| x as f32).collect(),
            v => return Err(found(v)),
        };
        match floats.iter().position(|x| x.is_nan()) {
            Some(i) => Err(format!("NaN at index {i}")),
            None => Ok(floats),
        }
    }
}

impl FromValue<'_> for Vec<bool> {
    const WANTED: &'static str = "an array of bools";
    fn from_value(value: &Value) -> Result<Self, String> {
        match value {
            Value::Array(Array::Bool(v)) => Ok(v.clone()),
            v => Err(found(v)),
        }
    }
}

macro_rules! from_integer {
    ($($type:ty)*) => { $(
        impl FromValue<'_> for $type {
            const WANTED: &'static str = concat!("an integer that fits ", stringify!($type));
            fn from_value(value: &Value) -> Result<Self, String> {
                value.integer().and_then(|v| v.try_into().ok()).ok_or_else(|| found(value))
            }
        }

        impl FromValue<'_> for Vec<$type> {
            const WANTED: &'static str = concat!("an array of integers that fit ", stringify!($type));
            fn from_value(value: &Value) -> Result<Self, String> {
                let convert = |x: i128, i| <$type>::try_from(x).map_err(|_| format!("{x} at index {i}"));
                macro_rules! all {
                    ($v:expr) => { $v.iter().enumerate().map(|(i, &x)| convert(x.into(), i)).collect() };
                }
                match value {
                    Value::Array(Array::U8(v)) => all!(v),
                    Value::Array(Array::I8(v)) => all!(v),
                    Value::Array(Array::U16(v)) => all!(v),
                    Value::Array(Array::I16(v)) => all!(v),
                    Value::Array(Array::U32(v)) => all!(v),
                    Value::Array(Array::I32(v)) => all!(v),
                    Value::Array(Array::U64(v)) => all!(v),
                    Value::Array(Array::I64(v)) => all!(v),
                    v => Err(found(v)),
                }
            }
        }
    )* };
}

from_integer! { u16 u32 u64 usize i32 i64 }
