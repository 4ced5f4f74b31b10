//! Metadata keys of one architecture: `attention.head_count` is looked up as `llama.attention.head_count`.

use crate::base::{Error, Result};
use crate::gguf::{Metadata, Value};

/// The keys under one prefix. Zero means absent wherever a size or a factor is asked for: files that list every key the
/// format knows write zeros for what the model lacks.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    /// The keys under `prefix`.
    pub fn new(metadata: &'a Metadata, prefix: &'a str) -> Self {
        Keys { metadata, prefix }
    }

    /// What stands before the keys: the architecture's name.
    pub fn architecture(&self) -> &'a str {
        self.prefix
    }

    /// The whole name of a key.
    pub fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.prefix)
    }

    /// A size.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        Ok(self.metadata.u32(&self.name(key))?.filter(|n| *n != 0).map(|n| n as usize))
    }

    /// A size that has to be there, and not 0.
    pub fn need_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A factor.
    pub fn factor(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.metadata.f32(&self.name(key))?.filter(|x| *x != 0.0))
    }

    /// A factor that has to be there.
    pub fn need_factor(&self, key: &str) -> Result<f32> {
        self.factor(key)?.ok_or_else(|| self.missing(key))
    }

    /// Yes or no.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.metadata.bool(&self.name(key))
    }

    /// A word.
    pub fn word(&self, key: &str) -> Result<Option<&'a str>> {
        self.metadata.str(&self.name(key))
    }

    /// A number for each of `layers` layers; zeros count.
    pub fn per_layer(&self, key: &str, layers: usize) -> Result<Option<Vec<usize>>> {
        let numbers = self.metadata.u32_per_layer(&self.name(key), layers)?;
        Ok(numbers.map(|n| n.into_iter().map(|n| n as usize).collect()))
    }

    /// Which layers a pattern marks: `None` without the key or where it is one number (see [`size`](Self::size)).
    pub fn marked_layers(&self, key: &str, layers: usize) -> Result<Option<Vec<bool>>> {
        let Some(Value::Array(marks)) = self.metadata.get(&self.name(key)) else { return Ok(None) };
        let mark = |i| match marks.get(i) {
            Some(Value::Bool(mark)) => Some(mark),
            Some(value) => value.integer().map(|n| n != 0),
            None => None,
        };
        let marks: Option<Vec<bool>> = (0..layers).map(mark).collect();
        let wrong =
            || Error::format(format!("no mark for each of {layers} layers")).at(format!("key {}", self.name(key)));
        marks.map(Some).ok_or_else(wrong)
    }

    /// The error for a key that is not there, or is 0, which says nothing.
    pub fn missing(&self, key: &str) -> Error {
        let what = match self.metadata.get(&self.name(key)) {
            None => format!("the file has no key {}", self.name(key)),
            Some(value) => format!("the key {} is {value}, which no model can have", self.name(key)),
        };
        Error::format(what).help("it is no whole model of this kind: download or convert it again")
    }
}
