//! Where the rows of a batch are: their positions, and the pages of their sequences' caches.
//!
//! One buffer of `u32`, since kernels bind few: the positions of all rows; for each group of layers where each row's table begins;
//! the tables, of pages. The cell of position p of a sequence is `table[p / 64] · 64 + p mod 64`.

pub use crate::base::PAGE_CELLS;
use crate::base::{DType, Meta, View};

/// The position of a row that is none: it fills up a batch, reads zeros and is stored nowhere.
pub const NO_ROW: u32 = u32::MAX;

/// Words of the buffer for so many rows, groups of layers and pages of all tables.
pub const fn places_len(rows: usize, groups: usize, pages: usize) -> usize {
    rows * (1 + groups) + pages
}

/// Adds to `words` what follows the positions of `rows` rows: for each group of layers where each row's table begins among all `pages`,
/// and these.
pub fn lay_tables(
    words: &mut Vec<u32>,
    rows: usize,
    groups: usize,
    begin: impl Fn(usize, usize) -> u32,
    pages: impl IntoIterator<Item = u32>,
) {
    let behind = places_len(rows, groups, 0) as u32;
    for group in 0..groups {
        words.extend((0..rows).map(|row| behind + begin(group, row)));
    }
    words.extend(pages);
}

/// The words for `rows` rows of one sequence from position `first` on, whose pages lie in order.
pub fn places_of_one(first: usize, rows: usize, pages: usize) -> Vec<u32> {
    let mut words = Vec::from_iter(first as u32..(first + rows) as u32);
    lay_tables(&mut words, rows, 1, |_, _| 0, 0..pages as u32);
    words
}

/// The buffer, for one group of layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowPlaces<'a> {
    words: &'a [u32],
    rows: usize,
    group: usize,
}

impl<'a> RowPlaces<'a> {
    /// The places of `rows` rows in the caches of `group`.
    pub fn new(words: &'a [u32], rows: usize, group: usize) -> Self {
        RowPlaces { words, rows, group }
    }

    /// A row's position, if it is one.
    pub fn position(&self, row: usize) -> Option<usize> {
        Some(self.words[row]).filter(|p| *p != NO_ROW).map(|p| p as usize)
    }

    /// The pages of a row's sequence up to the row's own.
    pub fn table(&self, row: usize) -> &'a [u32] {
        let begin = self.begin(row);
        let pages = self.position(row).map_or(0, |p| p / PAGE_CELLS + 1);
        &self.words[begin..begin + pages]
    }

    /// The cell of a row, if it is one.
    pub fn cell(&self, row: usize) -> Option<usize> {
        let position = self.position(row)?;
        Some(self.words[self.begin(row) + position / PAGE_CELLS] as usize * PAGE_CELLS + position % PAGE_CELLS)
    }

    /// Whether row `row + 1` is the next of the same sequence.
    pub fn goes_on(&self, row: usize) -> bool {
        row + 1 < self.rows
            && self.begin(row) == self.begin(row + 1)
            && self.words[row] != NO_ROW
            && self.words[row] + 1 == self.words[row + 1]
    }

    fn begin(&self, row: usize) -> usize {
        self.words[self.rows * (1 + self.group) + row] as usize
    }
}

/// The positions alone, as a view of the whole buffer.
pub(super) fn positions<'a>(places: &View<'a>, rows: usize) -> View<'a> {
    View { meta: Meta::new(DType::U32, [rows]), ..*places }
}
