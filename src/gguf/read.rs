//! Parses the front of a GGUF file: header, metadata, table of tensors. Everything is checked against the file's size.
//!
//! Layout, little-endian: magic `GGUF`, version (`u32`), tensor count and pair count (`u64` each), the pairs (key, type
//! id, value), the table of tensors, padding to the alignment, then the tensors' data, each padded to the alignment.
//! Source: the GGUF specification, ggml's docs/gguf.md.

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::tensor::TensorInfo;
use super::value::Value;
use crate::base::{Error, Result};
use std::collections::HashSet;

pub(super) const MAGIC: [u8; 4] = *b"GGUF";
/// The version written; 2 is read as well, and is the same but for the promise of little-endian.
pub(super) const VERSION: u32 = 3;
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";
/// Alignment of the data where the metadata names none.
pub(super) const DEFAULT_ALIGNMENT: usize = 32;
/// Keys are at most this long. Source: the specification.
pub(super) const MAX_KEY: usize = 65_535;

/// The parsed front of one file.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) version: u32,
    pub(super) alignment: usize,
    pub(super) metadata: Metadata,
    /// With `start` counted from the beginning of the file.
    pub(super) tensors: Vec<TensorInfo>,
}

/// Parses and checks a whole file.
pub(super) fn parse(bytes: &[u8]) -> Result<Front> {
    parse_with(&mut Cursor::new(bytes, bytes.len() as u64), bytes.len() as u64)
}

/// Parses and checks the front of a file of `length` bytes that starts with `bytes`; `None` if those are too few.
pub(super) fn parse_front(bytes: &[u8], length: u64) -> Result<Option<Front>> {
    let mut cursor = Cursor::new(bytes, length);
    match parse_with(&mut cursor, length) {
        Err(_) if cursor.is_short() => Ok(None),
        parsed => parsed.map(Some),
    }
}

fn parse_with(cursor: &mut Cursor<'_>, length: u64) -> Result<Front> {
    let version = read_version(cursor)?;
    // The smallest entries: an empty name, no dimensions, type and offset; a key of one byte and a value of one.
    const TENSOR_BYTES: usize = 8 + 4 + 4 + 8;
    const PAIR_BYTES: usize = 8 + 1 + 4 + 1;
    let tensor_count = cursor.count(TENSOR_BYTES, "tensor count")?;
    let pair_count = cursor.count(PAIR_BYTES, "key count")?;
    let metadata = read_metadata(cursor, pair_count)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = Vec::new();
    for i in 0..tensor_count {
        tensors.push(TensorInfo::read(cursor).map_err(|e| e.at(format!("entry {i} of {tensor_count} tensors")))?);
    }
    place(&mut tensors, cursor.position() as u64, alignment, length)?;
    Ok(Front { version, alignment, metadata, tensors })
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32> {
    if cursor.take(4, "the magic number")? != MAGIC {
        return Err(Error::format("not a GGUF file: it does not start with GGUF")
            .help("give a .gguf file; other formats must be converted first"));
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        0 => Err(Error::format("GGUF version 0 does not exist").help("the file is damaged: download it again")),
        1 => Err(Error::unsupported("GGUF version 1 is not supported")
            .help("get a newer file of the model, or convert it again")),
        v if v & 0xffff == 0 => Err(Error::unsupported(format!(
            "the file is big-endian (its version reads {v:#010x}); only little-endian files are supported"
        ))
        .help("get the little-endian file of the model, or convert it again")),
        v => Err(Error::unsupported(format!("GGUF version {v} is not supported; versions 2 and 3 are"))
            .help("the file is damaged or newer than this program")),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Metadata> {
    let mut metadata = Metadata::new();
    for i in 0..count {
        let key = read_key(cursor).map_err(|e| e.at(format!("key {i} of {count}")))?;
        let id = cursor.u32("a value's type")?;
        let value = Value::read(id, cursor).map_err(|e| e.at(format!("key {key:?}")))?;
        if metadata.set(key, value).is_some() {
            return Err(Error::format("the key occurs twice").at(format!("key {key:?}")));
        }
    }
    Ok(metadata)
}

fn read_key<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str> {
    let key = cursor.string("key")?;
    check_key(key)?;
    std::str::from_utf8(key).map_err(|_| Error::format("the key is not UTF-8"))
}

/// An error unless `key` may be a metadata key.
pub(super) fn check_key(key: &[u8]) -> Result<()> {
    match key.len() {
        0 => Err(Error::format("the key is empty")),
        1..=MAX_KEY => Ok(()),
        n => Err(Error::format(format!("a key of {n} bytes; at most {MAX_KEY} are allowed"))),
    }
}

/// The alignment that the metadata ask for: a power of two that must be a `u32`.
pub(super) fn alignment(metadata: &Metadata) -> Result<usize> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::U32(n)) if n.is_power_of_two() => Ok(n as usize),
        Some(Value::U32(n)) => {
            Err(Error::format(format!("an alignment of {n} is no power of two")).at(format!("key {ALIGNMENT_KEY:?}")))
        }
        Some(v) => Err(Error::format(format!("the alignment must be a u32, not {}", v.type_name()))
            .at(format!("key {ALIGNMENT_KEY:?}"))),
    }
}

/// `n` padded to `alignment`, a power of two.
pub(super) fn pad(n: u64, alignment: usize) -> Option<u64> {
    n.checked_next_multiple_of(alignment as u64).filter(|&n| n <= i64::MAX as u64)
}

/// Checks the tensors' names and offsets, and turns the offsets into places in a file of `length` bytes whose table of
/// tensors ends at `table_end`. Offsets must be the running sum of the padded sizes: no gaps, no overlaps.
fn place(tensors: &mut [TensorInfo], table_end: u64, alignment: usize, length: u64) -> Result<()> {
    let overflow = || Error::format("the tensors take more bytes than can be counted");
    let data = pad(table_end, alignment).ok_or_else(overflow)?;
    let mut names = HashSet::new();
    let mut expected = 0;
    for tensor in &mut *tensors {
        let at = |e: Error| e.at(format!("tensor {:?}", tensor.name));
        if !names.insert(tensor.name.as_str()) {
            return Err(at(Error::format("the name occurs twice")));
        }
        if tensor.start != expected {
            let what = format!(
                "its data is said to start at {}, not at {expected} as the sizes before it and the alignment of {alignment} demand",
                tensor.start
            );
            return Err(at(Error::format(what).help("the file is damaged: download it again")));
        }
        tensor.start = data.checked_add(expected).ok_or_else(|| at(overflow()))?;
        let end = tensor.start.checked_add(tensor.bytes() as u64).and_then(|end| pad(end, alignment));
        expected = end.ok_or_else(|| at(overflow()))? - data;
    }
    for tensor in tensors {
        let end = tensor.start + tensor.bytes() as u64;
        if tensor.bytes() > 0 && end > length {
            return Err(Error::format(format!("its data ends at byte {end}, but the file has only {length}"))
                .at(format!("tensor {:?}", tensor.name))
                .help("the file is truncated: download it again"));
        }
        // A tensor without values may be said to stand past the end.
        tensor.start = tensor.start.min(length);
    }
    Ok(())
}
