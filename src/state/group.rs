//! Groups of layers that forget alike: each has pages of its own, and every sequence a table in each.

use super::pages::{PAGE_CELLS, Pages};

/// What a group of layers has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupSpec {
    /// How many cells a row attends to, its own among them, at least 1; `None`: all cells before it.
    pub window: Option<usize>,
    /// Pages of the group's tensors, page 0 among them: they have `64 · (pages - 1)` cells, since page 0 is none.
    pub pages: usize,
}

impl GroupSpec {
    /// The most pages that one sequence holds in a group with this window, if steps write at most `batch` of its rows.
    pub fn window_pages(window: usize, batch: usize) -> usize {
        // The cells from `len - window` to `len + batch`, whatever their offset in a page.
        (window + batch).saturating_sub(1).div_ceil(PAGE_CELLS) + 1
    }
}

/// One group's window and pages.
#[derive(Debug)]
pub(super) struct Group {
    pub window: Option<usize>,
    pub pages: Pages,
}

impl Group {
    pub fn new(spec: &GroupSpec) -> Self {
        debug_assert_ne!(spec.window, Some(0), "a row attends to its own cell at least");
        Group { window: spec.window, pages: Pages::new(spec.pages) }
    }

    /// The first page, counted along the sequence, that is kept at length `len`. One cell more is kept than the next row
    /// attends to, so that the last item may be taken back and computed again.
    pub fn first_kept(&self, len: usize) -> usize {
        self.window.map_or(0, |window| len.saturating_sub(window) / PAGE_CELLS)
    }

    /// The first page, counted along the sequence, that the row at position `len` attends to.
    pub fn first_read(&self, len: usize) -> usize {
        self.window.map_or(0, |window| (len + 1).saturating_sub(window) / PAGE_CELLS)
    }
}
