//! A checked little-endian reader over bytes that nobody vouches for.

use crate::base::{Error, Result};

/// The longest string and the longest array a file may hold: a bound against lying lengths. Source: ggml's gguf.cpp.
pub(super) const MAX_LENGTH: u64 = 1 << 30;

/// A place in the bytes of a file. Every read is checked; nothing is allocated beyond what is left of the file.
///
/// The bytes may be only the first of a file: then reading on from where they end makes the cursor short.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Bytes of the file.
    length: u64,
    short: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8], length: u64) -> Self {
        Cursor { bytes, at: 0, length, short: false }
    }

    /// Whether reading failed only because not all of the file's bytes are here.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes, which hold `what`.
    pub(super) fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8]> {
        if n > self.left() {
            self.short = n as u64 <= self.length - self.at as u64;
            return Err(Error::format(format!("the file ends inside {what}: needs {n} bytes, has {}", self.left()))
                .at(format!("offset {}", self.at))
                .help("it is truncated or damaged: download it again"));
        }
        let taken = &self.bytes[self.at..self.at + n];
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        Ok(self.take(N, what)?.try_into().expect("take returns N bytes"))
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A count of things that take at least `each` bytes, checked against what is left of the file.
    pub(super) fn count(&mut self, each: usize, what: &str) -> Result<usize> {
        let start = self.at;
        let count = self.u64(what)?;
        self.fits(count, each, what).map_err(|e| e.at(format!("offset {start}")))
    }

    /// `count` as a size in memory, if that many things of at least `each` bytes can follow.
    fn fits(&mut self, count: u64, each: usize, what: &str) -> Result<usize> {
        let room = self.left() / each;
        match usize::try_from(count) {
            Ok(n) if n <= room => Ok(n),
            _ => {
                self.short = count <= (self.length - self.at as u64) / each as u64;
                Err(Error::format(format!("{what} of {count} is too big: the rest of the file holds at most {room}"))
                    .help("the file is damaged or truncated: download it again"))
            }
        }
    }

    /// A length prefix of a string or an array whose items take at least `each` bytes.
    pub(super) fn length(&mut self, each: usize, what: &str) -> Result<usize> {
        let start = self.at;
        let length = self.u64(what)?;
        if length > MAX_LENGTH {
            return Err(Error::format(format!("{what} of {length} is over the limit of {MAX_LENGTH}"))
                .at(format!("offset {start}"))
                .help("the file is damaged: download it again"));
        }
        self.fits(length, each, what).map_err(|e| e.at(format!("offset {start}")))
    }

    /// A string: its length as `u64`, then its bytes, which need not be UTF-8.
    pub(super) fn string(&mut self, what: &str) -> Result<&'a [u8]> {
        let length = self.length(1, &format!("{what} length"))?;
        self.take(length, what)
    }
}
