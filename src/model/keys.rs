//! GGUF metadata as the tokenizer room wants to read it.

use crate::base::Result;
use crate::gguf::Metadata;
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
}
