//! What a cache file says of itself, before its cells.
//!
//!   byte 0..8    "WGPULLMC"
//!   byte 8..12   version: u32
//!   byte 12..16  n: u32, the header's bytes
//!   then         the header: n bytes of JSON, and a checksum of everything up to here: u64
//!   then         the cells, and a checksum of them: u64
//!
//! Numbers are little-endian. Cells: for each layer in order, its keys, then its values; of these, for each state in order, the pages that it
//! adds to the state before: from page `max(gone, ⌊tokens before / 64⌋)` to the one with its last cell, each 64 cells `[64, heads, dim]` as the
//! type lies in a model file. Cells behind the last are zeros. CPU and GPU have the same.

use crate::base::{Checksum, Error, Result};
use crate::model::Identity;
use crate::state::PAGE_CELLS;
use crate::text::Message;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::ops::Range;

pub const MAGIC: [u8; 8] = *b"WGPULLMC";
const VERSION: u32 = 1;
/// Bytes before the header.
const FRONT: usize = 16;
/// Bytes of a checksum.
pub const SUM: u64 = 8;

/// The header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Whose cells they are.
    pub model: Identity,
    /// Types of keys and of values.
    pub types: [String; 2],
    /// Tokens of context when they were computed.
    pub context: usize,
    /// A checksum of what of the model depends on the context: tables of rotary angles.
    pub rotation: String,
    /// Groups of layers that share a numbering of pages.
    pub groups: usize,
    /// Bytes of all cells.
    pub bytes: u64,
    /// The tokens whose keys and values these are.
    pub tokens: Vec<u32>,
    /// From where a session can go on; the last one is the end.
    pub states: Vec<State>,
    /// The conversation that the tokens are of, if it is one.
    pub messages: Vec<Message>,
}

/// A state of the sequence from which it can go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Tokens up to there.
    pub tokens: usize,
    /// Pages, by group, that layers have forgotten: those with a window.
    pub gone: Vec<usize>,
}

/// An error for a file whose content cannot be.
pub fn damaged(what: impl std::fmt::Display) -> Error {
    Error::format(format!("the saved cache is damaged: {what}")).help("delete the file")
}

impl Header {
    /// Writes everything before the cells.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let front = self.front();
        out.write_all(&front)?;
        out.write_all(&Checksum::of(&front).to_le_bytes())
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.front().len() as u64 + SUM + self.bytes + SUM
    }

    fn front(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a header is plain data");
        let len = u32::try_from(json.len()).expect("tokens of a context are fewer than 2^28");
        [&MAGIC[..], &VERSION.to_le_bytes(), &len.to_le_bytes(), &json].concat()
    }

    /// Reads everything before the cells from a file of `size` bytes that begins with [`MAGIC`].
    ///
    /// # Errors
    /// `Unsupported` for another version; `Format` if it is damaged; what reading fails with.
    pub fn read(from: &mut dyn Read, size: u64) -> Result<Header> {
        let short = || damaged(format!("it ends after {size} bytes"));
        if size < FRONT as u64 {
            return Err(short());
        }
        let mut front = vec![0; FRONT];
        fill(from, &mut front)?;
        let word = |at: usize| u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]);
        if word(8) != VERSION {
            let what = format!("the saved cache is of version {}, and only version {VERSION} is known", word(8));
            return Err(Error::unsupported(what).help("name another file, or delete this one"));
        }
        let json = word(12) as usize;
        // Nothing is allocated that the file is not long enough for.
        if size < FRONT as u64 + json as u64 + SUM {
            return Err(short());
        }
        front.resize(FRONT + json, 0);
        fill(from, &mut front[FRONT..])?;
        let mut sum = [0; SUM as usize];
        fill(from, &mut sum)?;
        if Checksum::of(&front) != u64::from_le_bytes(sum) {
            return Err(damaged("its header has another checksum"));
        }
        let header: Header = serde_json::from_slice(&front[FRONT..]).map_err(|e| damaged("its header").because(e))?;
        let want = (front.len() as u64).checked_add(SUM + SUM).and_then(|front| front.checked_add(header.bytes));
        match want {
            Some(want) if want == size => Ok(header),
            Some(want) => Err(damaged(format!("it has {size} bytes and should have {want}"))),
            None => Err(damaged(format!("{} bytes of cells", header.bytes))),
        }
    }

    /// An error unless the states are of these tokens, and each can be gone on from in layers with windows of `windows`, by group.
    pub fn check_states(&self, windows: &[Option<usize>]) -> Result<()> {
        let mut before = &State { tokens: 0, gone: vec![0; windows.len()] };
        for state in &self.states {
            let State { tokens, gone } = state;
            // The next row finds its window.
            let reaches = |gone: usize, window: usize| gone.checked_mul(PAGE_CELLS)?.checked_add(window);
            let fits = |(gone, window): (&usize, &Option<usize>)| match window {
                Some(window) if *gone > 0 => reaches(*gone, *window).is_some_and(|cells| cells <= tokens + 1),
                _ => *gone == 0,
            };
            let follows = gone.iter().zip(&before.gone).all(|(gone, before)| gone >= before);
            let ascends = *tokens > before.tokens && *tokens <= self.tokens.len();
            if !ascends || gone.len() != windows.len() || !follows || !gone.iter().zip(windows).all(fits) {
                return Err(damaged(format!("a state of {tokens} tokens cannot be")));
            }
            before = state;
        }
        match before.tokens == self.tokens.len() {
            true => Ok(()),
            false => Err(damaged(format!("its states end after {} of {} tokens", before.tokens, self.tokens.len()))),
        }
    }

    /// The pages of a group that each state adds to those before, counted along the sequence.
    pub fn pages(&self, group: usize) -> impl Iterator<Item = Range<usize>> {
        let before = [0].into_iter().chain(self.states.iter().map(|state| state.tokens));
        before.zip(&self.states).map(move |(before, state)| {
            let end = state.tokens.div_ceil(PAGE_CELLS);
            state.gone[group].max(before / PAGE_CELLS).min(end)..end
        })
    }
}

/// Reads as many bytes as there is room for.
pub fn fill(from: &mut dyn Read, into: &mut [u8]) -> Result<()> {
    from.read_exact(into).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        _ => Error::io("can't read the saved cache", e),
    })
}
