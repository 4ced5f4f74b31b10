//! What tells one model file from another.

use super::Model;
use crate::base::{Checksum, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of a tensor that are read at its beginning, in its middle and at its end.
const SAMPLE: usize = 64;

/// A model, as far as keys and values depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `general.architecture`.
    pub architecture: String,
    /// `general.name`; empty if the file has none.
    pub name: String,
    /// Bytes of all weights, as they lie in the file.
    pub weight_bytes: u64,
    /// A checksum, in hexadecimal digits, of all metadata, of the names, types and shapes of all tensors, and of some bytes of each.
    pub fingerprint: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { architecture, name, weight_bytes, fingerprint } = self;
        let name = if name.is_empty() { "a model without a name" } else { name };
        write!(f, "{name} ({architecture}, {weight_bytes} bytes, {fingerprint})")
    }
}

impl Model {
    /// What tells it from others: the file, whole or split, with what was overridden in its metadata. Reads some bytes of each tensor.
    ///
    /// # Errors
    /// `Io` if the file cannot be read any more.
    pub fn identity(&self) -> Result<Identity> {
        let mut sum = Checksum::default();
        let gguf = self.gguf();
        sum.add(&gguf.writer()?.to_bytes(|_, _| Ok(()))?);
        for tensor in gguf.tensors() {
            sum.add(format!("{} {} {:?}", tensor.name, tensor.dtype, tensor.shape.dims()).as_bytes());
            let bytes = tensor.bytes();
            let mut sample = [0; SAMPLE];
            let sample = &mut sample[..SAMPLE.min(bytes)];
            for at in [0, (bytes - sample.len()) / 2, bytes - sample.len()] {
                gguf.read_into(tensor, at, sample)?;
                sum.add(sample);
            }
        }
        Ok(Identity {
            architecture: self.spec().architecture().to_owned(),
            name: gguf.metadata().str("general.name").ok().flatten().unwrap_or_default().to_owned(),
            weight_bytes: self.weight_bytes(),
            fingerprint: format!("{:016x}", sum.value()),
        })
    }
}
