//! What a user wants taken from a model file otherwise than it stands there.

use crate::base::Result;
use crate::gguf::{Gguf, Value};
use regex::Regex;

/// Changes of a file's metadata, and tensors that nothing need read.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Keys under the architecture's name: `rope.freq_base` is `llama.rope.freq_base`.
    pub own_keys: Vec<(&'static str, Value)>,
    /// Keys by their whole names. They win over the others.
    pub keys: Vec<(String, Value)>,
    /// Names of tensors that no step of the model need read.
    pub ignore_tensors: Option<Regex>,
}

impl Overrides {
    /// Changes the metadata. Fails if the file does not name its architecture, if that is needed.
    pub(super) fn apply(&self, gguf: &mut Gguf) -> Result<()> {
        let metadata = gguf.metadata_mut();
        // A key may say that the model is another one.
        for (key, value) in self.keys.iter().filter(|(key, _)| key == "general.architecture") {
            metadata.set(key, value.clone());
        }
        if !self.own_keys.is_empty() {
            let architecture = metadata.need::<&str>("general.architecture")?.to_owned();
            for (key, value) in &self.own_keys {
                metadata.set(format!("{architecture}.{key}"), value.clone());
            }
        }
        for (key, value) in &self.keys {
            metadata.set(key, value.clone());
        }
        Ok(())
    }
}
