//! GGUF metadata as the tokenizer room wants to read it.

use crate::base::{Error, Result};
use crate::gguf::{Array, Metadata, Value};
use crate::text::MetadataKeys;

/// A file's metadata behind the text room's own trait: the two rooms do not know each other.
pub(super) struct Keys<'a>(pub &'a Metadata);

impl MetadataKeys for Keys<'_> {
    fn str(&self, key: &str) -> Result<Option<&str>> {
        self.0.str(key)
    }

    fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.0.u32(key)
    }

    fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.0.bool(key)
    }

    fn strings(&self, key: &str) -> Result<Option<Vec<Vec<u8>>>> {
        Ok(self.0.strings(key)?.map(|strings| strings.iter().map(<[u8]>::to_vec).collect()))
    }

    fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.0.f32s(key)
    }

    fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.0.i32s(key)
    }

    fn bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::U8(v))) => Ok(Some(v.clone())),
            Some(Value::Array(Array::I8(v))) => Ok(Some(v.iter().map(|b| *b as u8).collect())),
            Some(other) => {
                Err(Error::format(format!("wants an array of bytes, is {}", other.type_name()))
                    .at(format!("key {key}")))
            }
        }
    }
}
