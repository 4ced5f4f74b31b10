//! Many short byte strings in one allocation: a vocabulary has up to a few hundred thousand.

use crate::base::{Error, Result};

/// Byte strings by index.
#[derive(Debug, Default)]
pub(super) struct Arena {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Arena {
    /// Appends a string. Fails if all of them together pass 4 GiB.
    pub fn push(&mut self, string: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(string);
        let end = u32::try_from(self.bytes.len()).map_err(|_| Error::format("the tokens' texts exceed 4 GiB"))?;
        self.ends.push(end);
        Ok(())
    }

    /// The string of that index, `None` past the end.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        Some(&self.bytes[start..end])
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
}
