//! Floor 2: GGUF model files: the bytes (mapped or read), a reader that trusts none of them, and a writer.
//!
//! [`Gguf`] is a model's file, or all files of a split model: [`Metadata`] and [`TensorInfo`]s with their data.
//! [`Writer`] makes such files. Every size in a file is checked before it is used, and nothing is allocated that the
//! file's own size does not justify.

mod aligned;
mod cursor;
mod experts;
mod metadata;
mod read;
mod source;
mod split;
mod stream;
mod tensor;
mod value;
mod write;

#[cfg(test)]
mod tests;

pub use aligned::Aligned;
pub use metadata::{FromValue, Metadata};
pub use source::{Mmap, Source};
pub use split::paths;
pub use stream::ReadAt;
pub use tensor::{MAX_NAME, TensorInfo};
pub use value::{Array, Strings, Value};
pub use write::{Parts, Sink, Writer};

use crate::base::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// A model in GGUF: its metadata, and tensors with their data in memory or mapped.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    alignment: usize,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    sources: Vec<Source>,
}

impl Gguf {
    /// Opens a file and maps it; given the first file of a split model, opens them all.
    ///
    /// Fails if a file is missing, not GGUF, damaged, or a later part of a split model.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf> {
        Self::open_with(path, Mmap::Yes)
    }

    /// The key–value pairs, to be changed before the model is read from them.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// [`Gguf::open`] with a choice of mapping the files or reading them into memory.
    pub fn open_with(path: impl AsRef<Path>, mmap: Mmap) -> Result<Gguf> {
        split::open(path.as_ref(), mmap)
    }

    /// Parses a whole file in memory. Fails for one part of a split model: see [`Gguf::from_sources`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Gguf> {
        Self::from_sources(vec![Source::from_bytes(bytes)])
    }

    /// Parses a model from all its files: one, or the parts of a split model in order.
    pub fn from_sources(sources: Vec<Source>) -> Result<Gguf> {
        split::join(sources)
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of the tensors' data in the first file, in bytes.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// Size of all files, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.sources.iter().map(Source::len).sum()
    }

    /// The key–value pairs (of the first file, where the model is split).
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors in the order of the files.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        Some(&self.tensors[*self.by_name.get(name)?])
    }

    /// The tensor called `name`, or an error that says it is missing.
    pub fn need_tensor(&self, name: &str) -> Result<&TensorInfo> {
        self.tensor(name).ok_or_else(|| {
            Error::format(format!("the file has no tensor {name}"))
                .help("it is not a whole model of this kind: download or convert it again")
        })
    }

    /// The bytes of a tensor of this model, [`TensorInfo::bytes`] of them.
    ///
    /// They start on a multiple of 8 or of the file's alignment, whichever is less: for files with an alignment under 8
    /// use [`Gguf::data_aligned`]. Fails once a mapped file has shrunk; a mapped file that shrinks later turns to zeros,
    /// so call [`Gguf::check`] after the bytes were used.
    pub fn data(&self, tensor: &TensorInfo) -> Result<&[u8]> {
        self.source(tensor)?.check().map_err(|e| e.at(format!("tensor {:?}", tensor.name)))?;
        self.data_unchecked(tensor)
    }

    /// The same bytes even if a mapped file has shrunk, lost ones being zero: for those who use bytes again and again,
    /// have to have all of them, and call [`Gguf::check`] afterwards.
    pub fn data_unchecked(&self, tensor: &TensorInfo) -> Result<&[u8]> {
        let source = self.source(tensor)?;
        if !tensor.pieces.is_empty() {
            return Err(Error::usage("the tensor lies in pieces: it can only be read").at(source.name()));
        }
        let start = usize::try_from(tensor.start).ok();
        let bytes = start.and_then(|start| source.bytes().get(start..start + tensor.bytes()));
        bytes.ok_or_else(|| Error::usage("the file is read piece by piece, and not in memory").at(source.name()))
    }

    /// Whether tensors' bytes are in memory or mapped. Elsewhere only [`Gguf::read_into`] gives them.
    pub fn is_in_memory(&self) -> bool {
        !self.sources.iter().any(Source::is_streamed)
    }

    /// Whether [`Gguf::data`] gives this tensor: it is in memory or mapped, and in one piece.
    pub fn has_data(&self, tensor: &TensorInfo) -> bool {
        self.is_in_memory() && tensor.pieces.is_empty()
    }

    /// The bytes of a tensor of this model on a multiple of 8, copied if they do not lie on one in the file.
    pub fn data_aligned(&self, tensor: &TensorInfo) -> Result<Aligned<'_>> {
        Ok(Aligned::new(self.data(tensor)?))
    }

    /// Copies bytes of a tensor of this model, from byte `offset` of it on, into `into`. Reads the file rather than the
    /// map, so a file that has shrunk is an error at once. Fails if the range goes past the tensor's end.
    pub fn read_into(&self, tensor: &TensorInfo, offset: usize, into: &mut [u8]) -> Result<()> {
        let source = self.source(tensor)?;
        let fits = offset.checked_add(into.len()).is_some_and(|end| end <= tensor.bytes());
        let at = |e: Error| e.at(format!("tensor {:?}", tensor.name));
        if !fits {
            let what = format!("bytes {offset} + {} of a tensor of {}", into.len(), tensor.bytes());
            return Err(at(Error::usage(what)));
        }
        if tensor.pieces.is_empty() {
            return source.read_at(tensor.start + offset as u64, into).map_err(at);
        }
        experts::read_pieces(self, tensor, offset, into).map_err(at)
    }

    /// Fails if a mapped file has shrunk: then what was read from it since may be zeros.
    pub fn check(&self) -> Result<()> {
        self.sources.iter().try_for_each(Source::check)
    }

    /// The file that `tensor` lies in, all of it.
    fn source(&self, tensor: &TensorInfo) -> Result<&Source> {
        // Only a TensorInfo of another model can be out of range: those of this one were checked when read.
        let bytes = tensor.bytes() / tensor.pieces.len().max(1);
        let end = tensor.start.checked_add(bytes as u64);
        self.sources
            .get(tensor.part)
            .filter(|source| end.is_some_and(|end| end <= source.len()))
            .ok_or_else(|| Error::usage(format!("tensor {:?} is not of this model", tensor.name)))
    }
}
