//! Writes GGUF files: metadata and a plan of tensors first, then the tensors' data as it is produced.
//!
//! What is written follows the rules the reader holds files to. Files appear under their name only when complete.

use super::metadata::Metadata;
use super::read::{self, MAGIC, VERSION};
use super::tensor::{self, TensorInfo};
use super::value::{Value, write_string};
use super::{Gguf, split};
use crate::base::{DType, Error, Result, Shape, replace_with};
use std::collections::HashSet;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What a file is to hold.
///
/// ```
/// use wgpu_llm::base::DType;
/// use wgpu_llm::gguf::{Gguf, Metadata, Writer};
/// let mut metadata = Metadata::new();
/// metadata.set("general.architecture", "llama");
/// let mut writer = Writer::new(metadata)?;
/// writer.tensor("token_embd.weight", DType::F32, [2, 3])?;
/// let bytes = writer.to_bytes(|_, out| out.put(&[0; 24]))?;
/// assert_eq!(Gguf::from_bytes(bytes)?.tensors()[0].shape.dims(), [2, 3]);
/// # Ok::<(), wgpu_llm::base::Error>(())
/// ```
#[derive(Debug)]
pub struct Writer {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    names: HashSet<String>,
    alignment: usize,
}

/// How a model is cut into files. A part holds at least one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// At most this many tensors in a file.
    Tensors(usize),
    /// At most this many bytes of tensor data in a file, unless a single tensor is bigger.
    Bytes(usize),
}

/// Produces the data of tensor `i` of the plan: writes exactly [`TensorInfo::bytes`] bytes.
type Produce<'a> = &'a mut dyn FnMut(usize, &mut Sink<'_>) -> Result<()>;

impl Writer {
    /// A file with these pairs and no tensors yet. `general.alignment` is honoured. Fails if a key is empty or too
    /// long, or the alignment is not a `u32` and a power of two.
    pub fn new(metadata: Metadata) -> Result<Writer> {
        for (key, _) in metadata.iter() {
            read::check_key(key.as_bytes())?;
        }
        let alignment = read::alignment(&metadata)?;
        Ok(Writer { metadata, tensors: Vec::new(), names: HashSet::new(), alignment })
    }

    /// Plans a tensor; `shape` is row-major. Fails if the name is taken or too long, rows are no whole blocks, or the
    /// type has no place in files.
    pub fn tensor(&mut self, name: impl Into<String>, dtype: DType, shape: impl Into<Shape>) -> Result<()> {
        let (name, shape) = (name.into(), shape.into());
        let at = |e: Error| e.at(format!("tensor {name:?}"));
        tensor::check_name(name.as_bytes())?;
        tensor::size(dtype, shape.dims()).map_err(at)?;
        if dtype == DType::U32 {
            return Err(at(Error::usage("type u32 has no place in GGUF files")));
        }
        if !self.names.insert(name.clone()) {
            return Err(at(Error::usage("the name is taken")));
        }
        self.tensors.push(TensorInfo { name, dtype, shape, part: 0, start: 0, pieces: Vec::new() });
        Ok(())
    }

    /// The tensors planned so far, in order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Writes one file to `out`. `produce(i, out)` is called for each tensor in order and writes its bytes, all of
    /// [`TensorInfo::bytes`], in as many pieces as it likes.
    pub fn write(
        &self,
        out: &mut dyn Write,
        mut produce: impl FnMut(usize, &mut Sink<'_>) -> Result<()>,
    ) -> Result<()> {
        self.write_range(out, &self.metadata, 0..self.tensors.len(), &mut produce)
    }

    /// [`Writer::write`] into memory.
    pub fn to_bytes(&self, produce: impl FnMut(usize, &mut Sink<'_>) -> Result<()>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write(&mut bytes, produce)?;
        Ok(bytes)
    }

    /// [`Writer::write`] into a file, which appears under its name when complete: see [`replace_with`].
    pub fn write_file(
        &self,
        path: impl AsRef<Path>,
        produce: impl FnMut(usize, &mut Sink<'_>) -> Result<()>,
    ) -> Result<()> {
        replace_file(path.as_ref(), |out| self.write(out, produce))
    }

    /// Writes a split model, `STEM-00001-of-0000N.gguf` and so on, and returns the paths. The first file carries the
    /// metadata; `split.no`, `split.count` and `split.tensors.count` are set.
    pub fn write_parts(
        &self,
        stem: impl AsRef<Path>,
        parts: Parts,
        mut produce: impl FnMut(usize, &mut Sink<'_>) -> Result<()>,
    ) -> Result<Vec<PathBuf>> {
        let ranges = self.cut(parts);
        let too_many = |n| Error::usage(format!("{n} are more than a split model can count")).help("make larger parts");
        let count = u16::try_from(ranges.len()).map_err(|_| too_many(format!("{} files", ranges.len())))?;
        let in_all =
            i32::try_from(self.tensors.len()).map_err(|_| too_many(format!("{} tensors", self.tensors.len())))?;
        let mut paths = Vec::new();
        for (no, range) in ranges.into_iter().enumerate() {
            let mut metadata = if no == 0 { self.metadata.clone() } else { self.alignment_only() };
            metadata.set(split::NO, no as u16);
            metadata.set(split::COUNT, count);
            metadata.set(split::TENSORS, in_all);
            let path = split::part_path(stem.as_ref(), no, count as usize);
            replace_file(&path, |out| self.write_range(out, &metadata, range, &mut produce))?;
            paths.push(path);
        }
        Ok(paths)
    }

    /// What a later part must repeat of the metadata.
    fn alignment_only(&self) -> Metadata {
        let mut metadata = Metadata::new();
        if let Some(alignment) = self.metadata.get(read::ALIGNMENT_KEY) {
            metadata.set(read::ALIGNMENT_KEY, alignment.clone());
        }
        metadata
    }

    /// Ranges of tensors, one per part; at least one part, for the metadata.
    fn cut(&self, parts: Parts) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        let (mut start, mut bytes) = (0, 0usize);
        for (i, tensor) in self.tensors.iter().enumerate() {
            let full = match parts {
                Parts::Tensors(most) => i - start >= most,
                Parts::Bytes(most) => bytes.saturating_add(tensor.bytes()) > most,
            };
            if full && i > start {
                ranges.push(start..i);
                (start, bytes) = (i, 0);
            }
            bytes = bytes.saturating_add(tensor.bytes());
        }
        ranges.push(start..self.tensors.len());
        ranges
    }

    fn write_range(
        &self,
        out: &mut dyn Write,
        metadata: &Metadata,
        range: Range<usize>,
        produce: Produce<'_>,
    ) -> Result<()> {
        let mut out = Sink { out, written: 0 };
        let overflow = || Error::usage("the tensors take more bytes than can be counted");
        self.write_front(&mut out, metadata, range.clone(), overflow)?;
        out.pad(self.alignment)?;
        for i in range {
            let tensor = &self.tensors[i];
            let start = out.written;
            produce(i, &mut out).map_err(|e| e.at(format!("tensor {:?}", tensor.name)))?;
            let wrote = out.written - start;
            assert_eq!(wrote, tensor.bytes() as u64, "bytes produced for tensor {:?}", tensor.name);
            out.pad(self.alignment)?;
        }
        out.flush().map_err(failed)
    }

    fn write_front(
        &self,
        out: &mut dyn Write,
        metadata: &Metadata,
        range: Range<usize>,
        overflow: impl Fn() -> Error,
    ) -> Result<()> {
        // Offsets first: nothing is written of a plan that can't be.
        let mut offsets = Vec::with_capacity(range.len());
        let mut end = 0;
        for tensor in &self.tensors[range.clone()] {
            offsets.push(end);
            end = read::pad(tensor.bytes() as u64, self.alignment)
                .and_then(|n| n.checked_add(end))
                .ok_or_else(&overflow)?;
        }
        let write = |out: &mut dyn Write| -> io::Result<()> {
            out.write_all(&MAGIC)?;
            out.write_all(&VERSION.to_le_bytes())?;
            out.write_all(&(range.len() as u64).to_le_bytes())?;
            out.write_all(&(metadata.len() as u64).to_le_bytes())?;
            for (key, value) in metadata.iter() {
                write_pair(out, key, value)?;
            }
            for (tensor, offset) in self.tensors[range].iter().zip(offsets) {
                write_string(out, tensor.name.as_bytes())?;
                out.write_all(&(tensor.shape.dims().len() as u32).to_le_bytes())?;
                for &size in tensor.shape.dims().iter().rev() {
                    out.write_all(&(size as u64).to_le_bytes())?;
                }
                out.write_all(&(tensor.dtype as u32).to_le_bytes())?;
                out.write_all(&offset.to_le_bytes())?;
            }
            Ok(())
        };
        write(out).map_err(failed)
    }
}

fn write_pair(out: &mut dyn Write, key: &str, value: &Value) -> io::Result<()> {
    write_string(out, key.as_bytes())?;
    out.write_all(&value.type_id().to_le_bytes())?;
    value.write(out)
}

impl Gguf {
    /// A writer with this model's metadata, without the pairs that speak of splitting, and no tensors.
    pub fn writer(&self) -> Result<Writer> {
        let mut metadata = self.metadata().clone();
        for key in [split::NO, split::COUNT, split::TENSORS] {
            metadata.remove(key);
        }
        Writer::new(metadata)
    }
}

/// Where the bytes of a file go; counts them.
pub struct Sink<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Sink<'_> {
    /// Writes all of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(failed)
    }

    /// Zeros up to the next multiple of `alignment`.
    fn pad(&mut self, alignment: usize) -> Result<()> {
        let missing = self.written.next_multiple_of(alignment as u64) - self.written;
        io::copy(&mut io::Read::take(io::repeat(0), missing), self).map(drop).map_err(failed)
    }
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn failed(e: io::Error) -> Error {
    Error::io("can't write the file", e).help("check the folder and the space left on the disk")
}

/// Writes a file that appears under `path` only when complete: see [`replace_with`].
fn replace_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let write = || match path.file_name() {
        Some(_) => replace_with(path, failed, write),
        None => Err(Error::usage("not the path of a file")),
    };
    write().map_err(|e| e.at(path.display()))
}
