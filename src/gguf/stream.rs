//! Files that can be neither mapped nor held in memory, only read piece by piece: in a browser, where memory is 4 GiB at the
//! most, and a file, a part of the origin's private file system or a server's file has no map.

use super::read::{self, Front};
use crate::base::{Error, Result};

/// Reads bytes from anywhere in a file.
pub trait ReadAt: Send + Sync {
    /// Bytes of the file.
    fn length(&self) -> u64;

    /// Fills `into` with the bytes from `offset` on, which the file has.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<()>;
}

/// Bytes read at first: metadata without a vocabulary.
const FIRST: u64 = 256 << 10;
/// Bytes that may lie before the tensors' data. The largest vocabularies take 30 MiB.
const LARGEST: u64 = 256 << 20;

/// Parses the front of a file, reading as little of it as that takes.
pub(super) fn parse(file: &dyn ReadAt) -> Result<Front> {
    let (length, mut size) = (file.length(), FIRST);
    loop {
        let mut bytes = vec![0; size.min(length) as usize];
        file.read_at(0, &mut bytes)?;
        if let Some(front) = read::parse_front(&bytes, length)? {
            return Ok(front);
        }
        if size >= LARGEST {
            return Err(Error::format(format!("the metadata take more than {} MiB", LARGEST >> 20))
                .help("the file is damaged: download it again"));
        }
        size *= 4;
    }
}
