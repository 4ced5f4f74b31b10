//! Models split over several files, `NAME-00001-of-00003.gguf` and so on.
//!
//! Keys: `split.no` (this file, from 0), `split.count` (files), `split.tensors.count` (tensors in all). The first file
//! carries the metadata. Source: llama.cpp's gguf-split.

use super::read::{self, Front};
use super::{Gguf, Metadata, Mmap, Source, stream};
use crate::base::{Error, Result};
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

pub(super) const NO: &str = "split.no";
pub(super) const COUNT: &str = "split.count";
pub(super) const TENSORS: &str = "split.tensors.count";

/// The path of part `no` (from 0) of `count`, where `stem` is the path without the counting and the extension.
pub(super) fn part_path(stem: &Path, no: usize, count: usize) -> PathBuf {
    let mut path = stem.as_os_str().to_owned();
    path.push(format!("-{:05}-of-{count:05}.gguf", no + 1));
    path.into()
}

/// What `path`, the first of `count` files, is called without the counting and the extension.
fn stem(path: &Path, count: usize) -> Result<PathBuf> {
    let ending = format!("-00001-of-{count:05}.gguf");
    match path.file_name().and_then(|name| without(name, &ending)) {
        Some(stem) => Ok(path.with_file_name(stem)),
        None => Err(Error::usage(format!(
            "the first of {count} files of a split model must have a name ending in {ending}"
        ))
        .help("give the file its original name, with the others beside it")),
    }
}

/// `name` without its `ending`. On Unix names need not be text.
fn without(name: &OsStr, ending: &str) -> Option<OsString> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        name.as_bytes().strip_suffix(ending.as_bytes()).map(|stem| OsStr::from_bytes(stem).to_owned())
    }
    #[cfg(not(unix))]
    name.to_str()?.strip_suffix(ending).map(OsString::from)
}

/// Opens a model's file, or all of its files.
pub(super) fn open(path: &Path, mmap: Mmap) -> Result<Gguf> {
    let first = Source::open(path, mmap)?;
    let front = parse(&first)?;
    let count = check_part(&front.metadata, 0).map_err(|e| e.at(first.name()))?;
    let mut parts = vec![(first, front)];
    if count > 1 {
        let stem = stem(path, count).map_err(|e| e.at(path.display()))?;
        for no in 1..count {
            let source = Source::open(part_path(&stem, no, count), mmap)
                .map_err(|e| e.help(format!("the model is split: all {count} files must lie in one folder")))?;
            let front = parse(&source)?;
            parts.push((source, front));
        }
    }
    assemble(parts)
}

/// The files of `model`, which was opened at `path`.
pub fn paths(path: &Path, model: &Gguf) -> Result<Vec<PathBuf>> {
    match check_part(model.metadata(), 0)? {
        0 | 1 => Ok(vec![path.to_owned()]),
        count => stem(path, count).map(|stem| (0..count).map(|no| part_path(&stem, no, count)).collect()),
    }
}

/// Parses a model from all its files.
pub(super) fn join(sources: Vec<Source>) -> Result<Gguf> {
    let parse = |source| parse(&source).map(|front| (source, front));
    assemble(sources.into_iter().map(parse).collect::<Result<_>>()?)
}

fn parse(source: &Source) -> Result<Front> {
    let parsed = match source.streamed() {
        Some(file) => stream::parse(file),
        None => read::parse(source.bytes()),
    };
    // A file that shrank meanwhile reads as zeros: that is then the better explanation of whatever went wrong.
    source.check()?;
    parsed.map_err(|e| e.at(source.name()))
}

/// Checks that `metadata` are those of part `no`, and returns how many parts there are.
fn check_part(metadata: &Metadata, no: usize) -> Result<usize> {
    let count = metadata.find::<u16>(COUNT)?.unwrap_or(1).max(1) as usize;
    let found = metadata.find::<u16>(NO)?.unwrap_or(0) as usize;
    if found == no {
        return Ok(count);
    }
    let what = format!("this is file {} of {count} of a split model, not file {}", found + 1, no + 1);
    Err(Error::usage(what).help(format!("give the first file (…-00001-of-{count:05}.gguf), with the others beside it")))
}

fn assemble(parts: Vec<(Source, Front)>) -> Result<Gguf> {
    let (first, front) = parts.first().ok_or_else(|| Error::usage("a model needs at least one file"))?;
    let (version, alignment) = (front.version, front.alignment);
    let name = first.name().to_owned();
    let in_all = front.metadata.find::<u64>(TENSORS).map_err(|e| e.at(&name))?;
    let (mut metadata, mut sources, mut tensors) = (None, Vec::new(), Vec::new());
    let given = parts.len();
    for (no, (source, front)) in parts.into_iter().enumerate() {
        let count = check_part(&front.metadata, no).map_err(|e| e.at(source.name()))?;
        if count != given {
            return Err(Error::usage(format!("the model is split over {count} files, but {given} were given"))
                .at(source.name())
                .help("all files of one model are needed"));
        }
        metadata.get_or_insert(front.metadata);
        sources.push(source);
        tensors.extend(front.tensors.into_iter().map(|t| super::TensorInfo { part: no, ..t }));
    }
    if in_all.is_some_and(|n| given > 1 && n != tensors.len() as u64) {
        let what = format!("{} tensors in {given} files, but {TENSORS} says {}", tensors.len(), in_all.unwrap_or(0));
        return Err(Error::format(what).at(name).help("the files are not of one model: download them again"));
    }
    let tensors = super::experts::join(tensors)?;
    let mut by_name = HashMap::with_capacity(tensors.len());
    for (i, tensor) in tensors.iter().enumerate() {
        if by_name.insert(tensor.name.clone(), i).is_some() {
            return Err(Error::format("the name occurs twice")
                .at(format!("tensor {:?}", tensor.name))
                .at(sources[tensor.part].name()));
        }
    }
    let metadata = metadata.expect("there is at least one part");
    Ok(Gguf { version, alignment, metadata, tensors, by_name, sources })
}
