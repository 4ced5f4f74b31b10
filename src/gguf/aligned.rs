//! Bytes that start on a multiple of 8, so that they can be viewed as any plain number.

use crate::base::{Error, ErrorKind, Result};
use std::fs::File;

/// Whether `bytes` start on a multiple of 8.
pub(super) fn is_aligned(bytes: &[u8]) -> bool {
    (bytes.as_ptr() as usize).is_multiple_of(align_of::<u64>())
}

/// Bytes in an allocation of `u64`s, for the alignment.
#[derive(Debug)]
pub(super) struct Words {
    words: Vec<u64>,
    length: usize,
}

impl Words {
    pub(super) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.length]
    }

    pub(super) fn copy(bytes: &[u8]) -> Words {
        let mut words = Words { words: vec![0; bytes.len().div_ceil(8)], length: bytes.len() };
        words.bytes_mut().copy_from_slice(bytes);
        words
    }

    pub(super) fn read(mut file: File, length: usize) -> Result<Words> {
        let mut words = Vec::new();
        words.try_reserve_exact(length.div_ceil(8)).map_err(|e| {
            Error::new(ErrorKind::OutOfSystemMemory, format!("no memory for {length} bytes"))
                .because(e)
                .help("map the file instead of reading it, or use a smaller model")
        })?;
        words.resize(length.div_ceil(8), 0);
        let mut words = Words { words, length };
        std::io::Read::read_exact(&mut file, words.bytes_mut()).map_err(|e| Error::io("can't read the file", e))?;
        Ok(words)
    }
}

/// Bytes that start on a multiple of 8: as they lie, or copied.
#[derive(Debug)]
pub struct Aligned<'a>(Placed<'a>);

#[derive(Debug)]
enum Placed<'a> {
    Borrowed(&'a [u8]),
    Copied(Words),
}

impl<'a> Aligned<'a> {
    /// `bytes`, copied if they start elsewhere than on a multiple of 8.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Aligned(if is_aligned(bytes) { Placed::Borrowed(bytes) } else { Placed::Copied(Words::copy(bytes)) })
    }

    /// Whether the bytes had to be copied.
    pub fn is_copied(&self) -> bool {
        matches!(self.0, Placed::Copied(_))
    }
}

impl std::ops::Deref for Aligned<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Placed::Borrowed(bytes) => bytes,
            Placed::Copied(words) => words.bytes(),
        }
    }
}
