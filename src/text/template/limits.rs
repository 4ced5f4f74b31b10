//! What a template may cost. A template comes with a model file, from strangers: it must not hang, exhaust memory or
//! overflow the stack, whatever it says.
//!
//! One budget covers work and memory: every step costs a unit, every 16 bytes of text made cost one, every element of a
//! list made costs four. So the memory of a rendering is at most 16 bytes a unit, about 160 MB plus what the input
//! justifies, even if all of it were kept. A rendering of a real template costs some thousands of units a message.

use super::fault::{Fault, Result};
use std::cell::Cell;

/// Units for any rendering.
pub const WORK: u64 = 10_000_000;

/// Units more for each byte of the messages, tools and other inputs.
pub const WORK_PER_INPUT_BYTE: u64 = 64;

/// The longest text a template may make, output included, in bytes.
pub const MAX_TEXT: usize = 16 << 20;

/// Bytes more for each byte of input.
pub const TEXT_PER_INPUT_BYTE: usize = 8;

/// The deepest nesting of calls, blocks and expressions while rendering.
pub const MAX_DEPTH: usize = 256;

/// The deepest nesting of lists and dicts, in the input and made by a template.
pub const MAX_DATA_DEPTH: usize = 100;

/// The most numbers of one `range`, as in Jinja2's sandbox.
pub const MAX_RANGE: i128 = 100_000;

const UNITS_PER_ELEMENT: u64 = 4;
const BYTES_PER_UNIT: u64 = 16;

/// What is left of one rendering's allowance.
#[derive(Debug)]
pub struct Budget {
    work: Cell<u64>,
    max_text: usize,
}

impl Budget {
    /// The allowance for `input_bytes` of messages and tools.
    pub fn new(input_bytes: usize) -> Budget {
        let work = WORK.saturating_add(WORK_PER_INPUT_BYTE.saturating_mul(input_bytes as u64));
        let max_text = MAX_TEXT.saturating_add(TEXT_PER_INPUT_BYTE.saturating_mul(input_bytes));
        Budget { work: Cell::new(work), max_text }
    }

    /// Pays for `units` of work.
    pub fn work(&self, units: u64) -> Result<()> {
        match self.work.get().checked_sub(units) {
            Some(left) => {
                self.work.set(left);
                Ok(())
            }
            None => Err(Fault::limit("the template does too much work (an endless loop?)")),
        }
    }

    /// Pays for a text of `bytes` bytes before it is made.
    pub fn text(&self, bytes: usize) -> Result<()> {
        self.append(0, bytes)
    }

    /// Pays for `more` bytes on top of a text that has `len`, before they are added.
    pub fn append(&self, len: usize, more: usize) -> Result<()> {
        let bytes = len.saturating_add(more);
        if bytes > self.max_text {
            return Err(Fault::limit(format!("the template makes a text of {bytes} bytes; at most {}", self.max_text)));
        }
        self.work(1 + more as u64 / BYTES_PER_UNIT)
    }

    /// Pays for a list or dict of `count` elements before it is made.
    pub fn elements(&self, count: usize) -> Result<()> {
        self.work((count as u64).saturating_mul(UNITS_PER_ELEMENT).saturating_add(1))
    }
}
