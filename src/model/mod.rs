//! Floor 6: a model file made ready: shape, weights where a device can reach them, tokenizer, chat template.

mod converse;
mod identity;
mod keys;
mod overrides;
pub mod preset;
pub mod synth;

use crate::arch::Spec;
use crate::base::{Error, ErrorKind, Meta, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::ops::Threads;
use crate::text::{ChatTemplate, Tokenizer, VocabSource};
use crate::{cpu, gpu};
pub use identity::Identity;
use keys::Keys;
pub use overrides::Overrides;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

/// A loaded model. Cheap to share: sessions hold it in an [`Arc`].
pub struct Model {
    gguf: Arc<Gguf>,
    spec: Spec,
    // Made when first asked for: `eval` on token ids needs neither, and a file may have none.
    tokenizer: OnceLock<Tokenizer>,
    panels: cpu::Panels,
    // Of tensors that are small, by name.
    copies: Mutex<HashMap<String, Arc<AlignedCopy>>>,
    watcher: Mutex<Option<Watcher>>,
}

/// Hears how many more bytes of weights were interleaved for the CPU; an error of it stops the work.
pub type Watcher = Box<dyn Fn(usize) -> Result<()> + Send + Sync>;

/// Vectors of up to so many bytes, norms and biases, are copied: a map would bring in the pages around them too.
const COPIED: usize = 1 << 20;

impl Model {
    /// Opens a GGUF file (the first one of a split model) and checks that it can be run.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Self::open_with(path, &Overrides::default())
    }

    /// As [`open`](Self::open), with some of the file taken otherwise than it stands.
    pub fn open_with(path: impl AsRef<Path>, overrides: &Overrides) -> Result<Model> {
        let path = path.as_ref();
        Model::with(Gguf::open(path)?, overrides).map_err(|e| e.at(path.display()))
    }

    /// A model from a file already read.
    pub fn new(gguf: Gguf) -> Result<Model> {
        Self::with(gguf, &Overrides::default())
    }

    fn with(mut gguf: Gguf, overrides: &Overrides) -> Result<Model> {
        overrides.apply(&mut gguf)?;
        let spec = Spec::read_ignoring(&gguf, overrides.ignore_tensors.as_ref())?;
        let (tokenizer, panels, copies, watcher) = Default::default();
        Ok(Model { gguf: Arc::new(gguf), spec, tokenizer, panels, copies, watcher })
    }

    /// From now on `watcher` hears of weights that are made ready, which takes seconds; nobody does with `None`.
    pub fn watch(&self, watcher: Option<Watcher>) {
        *self.watcher.lock().unwrap_or_else(|e| e.into_inner()) = watcher;
    }

    /// The model's shape.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The file: metadata and tensors.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Bytes of all weights, as they lie in the file.
    pub fn weight_bytes(&self) -> u64 {
        self.gguf.tensors().iter().map(|t| t.bytes() as u64).sum()
    }

    /// The tokenizer; an error if the file has none or one that cannot be used.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = tokenizer_of(&self.gguf)?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// The chat template, from the file; an error that says what to do where it has none.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        let source = self.gguf.metadata().str("tokenizer.chat_template")?;
        let source = source.ok_or_else(ChatTemplate::missing)?;
        self.chat_template_from(source).map_err(|e| e.at("tokenizer.chat_template"))
    }

    /// Another template for this model's tokens.
    pub fn chat_template_from(&self, source: &str) -> Result<ChatTemplate> {
        let (bos, eos) = self.bos_and_eos()?;
        ChatTemplate::new(source, bos, eos)
    }

    /// One of the well-known formats ([`ChatTemplate::names`]) with this model's tokens.
    pub fn chat_template_named(&self, name: &str) -> Result<ChatTemplate> {
        let (bos, eos) = self.bos_and_eos()?;
        ChatTemplate::named(name, bos, eos)
    }

    fn bos_and_eos(&self) -> Result<(&str, &str)> {
        let tokenizer = self.tokenizer()?;
        let text = |id: Option<u32>| id.map_or("", |id| tokenizer.token_text(id));
        Ok((text(tokenizer.bos()), text(tokenizer.eos())))
    }

    fn tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.gguf.tensor(name).ok_or_else(|| Error::format(format!("the file has no tensor {name}")))
    }

    /// A tensor's bytes in memory of their own, read once.
    fn copy(&self, tensor: &TensorInfo) -> Result<cpu::Bytes> {
        let mut copies = self.copies.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(copy) = copies.get(&tensor.name) {
            return Ok(copy.clone());
        }
        let mut copy = AlignedCopy::zero(tensor.bytes());
        self.gguf.read_into(tensor, 0, copy.bytes_mut())?;
        let copy = Arc::new(copy);
        copies.insert(tensor.name.clone(), copy.clone());
        Ok(copy)
    }

    /// An error of `kind` if the weights and `more` bytes do not fit into `available` bytes of memory called `what`.
    pub fn check_fits(&self, more: u64, available: u64, (kind, what): (ErrorKind, &str)) -> Result<()> {
        let need = self.weight_bytes() + more;
        if need <= available {
            return Ok(());
        }
        let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
        let what = format!("needs {:.1} GiB of {what}, which has {:.1} GiB", gib(need), gib(available));
        Err(Error::new(kind, what).help("use a smaller model or quantization, or a smaller context (-c)"))
    }
}

/// The tokenizer of a file, which need hold no model that can be run.
pub fn tokenizer_of(gguf: &Gguf) -> Result<Tokenizer> {
    Tokenizer::new(VocabSource::from_keys(&Keys(gguf.metadata()))?)
}

/// A tensor's bytes in the mapped or read file; keeps the file open.
struct Bytes {
    gguf: Arc<Gguf>,
    index: usize,
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        // A file that shrank meanwhile is found out by the engine, after the step: in the midst of it all bytes must be there.
        self.gguf.data_unchecked(&self.gguf.tensors()[self.index]).unwrap_or_default()
    }
}

/// A tensor whose rows are interleaved.
struct Reader<'a> {
    model: &'a Model,
    tensor: &'a TensorInfo,
}

impl cpu::RowSource for Reader<'_> {
    fn read(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        self.model.gguf.read_into(self.tensor, offset, out)
    }

    fn done(&self, bytes: usize) -> Result<()> {
        self.model.watcher.lock().unwrap_or_else(|e| e.into_inner()).as_ref().map_or(Ok(()), |watcher| watcher(bytes))
    }
}

impl cpu::WeightSource for Model {
    fn bytes(&self, name: &str) -> Result<cpu::Bytes> {
        let tensor = self.tensor(name)?;
        // A file that is read piece by piece has nothing in memory to point at.
        let small = tensor.shape.dims().len() < 2 && tensor.bytes() <= COPIED;
        if small || !self.gguf.has_data(tensor) {
            return self.copy(tensor);
        }
        let aligned = self.gguf.data_aligned(tensor)?;
        if aligned.is_copied() {
            return Ok(Arc::new(AlignedCopy::of(&aligned)));
        }
        let index = self.gguf.tensors().iter().position(|t| t.name == name).expect("found above");
        Ok(Arc::new(Bytes { gguf: self.gguf.clone(), index }))
    }

    fn panels(&self, name: &str, meta: &Meta, pool: &dyn Threads) -> Result<Option<cpu::Bytes>> {
        let tensor = self.tensor(name)?;
        // Read rather than mapped, so that the file's pages need no memory beside the panels.
        let panels = self.panels.get(name, meta, pool, &Reader { model: self, tensor })?;
        Ok(panels.map(|p| p as cpu::Bytes))
    }

    fn made(&self, name: &str) -> Option<cpu::Bytes> {
        self.panels.made(name).map(|p| p as cpu::Bytes)
    }
}

/// A tensor copied to a place that is even, whatever it is in the file.
struct AlignedCopy {
    words: Vec<u64>,
    len: usize,
}

impl AlignedCopy {
    fn of(bytes: &[u8]) -> Self {
        let mut copy = AlignedCopy::zero(bytes.len());
        copy.bytes_mut().copy_from_slice(bytes);
        copy
    }

    fn zero(len: usize) -> Self {
        AlignedCopy { words: vec![0; len.div_ceil(8)], len }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

impl AsRef<[u8]> for AlignedCopy {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

/// The model's tensors for uploading. Read rather than mapped: a file that shrinks in the middle gives an error.
pub struct Upload(pub Arc<Model>);

impl gpu::Source for Upload {
    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> Result<()> {
        let tensor = self.0.tensor(name)?;
        self.0.gguf.read_into(tensor, at as usize, out)
    }
}
