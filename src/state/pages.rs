//! Pages: the unit in which cells are handed out and shared.

pub use crate::base::PAGE_CELLS;

/// The page that is never handed out, and that tensors do not have: tables have it in place of pages that are gone.
pub const NULL_PAGE: u32 = 0;

/// Pages that hold `cells` cells from the beginning of a page.
pub(super) fn pages_of(cells: usize) -> usize {
    cells.div_ceil(PAGE_CELLS)
}

/// Who keeps a page from being free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// An open sequence, by its table.
    Sequence,
    /// The prefix tree, by a node or a snapshot.
    Tree,
}

/// How often a page is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Holders {
    pub sequences: u32,
    pub tree: u32,
}

impl Holders {
    fn is_free(self) -> bool {
        self.sequences + self.tree == 0
    }

    fn is_evictable(self) -> bool {
        self.sequences == 0 && self.tree > 0
    }
}

/// The pages of one group of layers, with the number of holders of each. A page without holders is free.
#[derive(Debug)]
pub(super) struct Pages {
    holders: Vec<Holders>,
    free: Vec<u32>,
    evictable: usize,
}

impl Pages {
    /// `total` pages, the null page among them; the low ones are handed out first.
    pub fn new(total: usize) -> Self {
        let free = (1..total as u32).rev().collect();
        Pages { holders: vec![Holders::default(); total.max(1)], free, evictable: 0 }
    }

    /// All pages, the null page among them.
    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// Pages that nobody holds.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Pages that only the tree holds.
    pub fn evictable(&self) -> usize {
        self.evictable
    }

    /// Hands out a free page, to a sequence.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize].sequences = 1;
        Some(page)
    }

    /// Adds a holder to a page that has one. The null page has no holders: nothing happens.
    pub fn hold(&mut self, page: u32, holder: Holder) {
        if page != NULL_PAGE {
            debug_assert!(!self.holders[page as usize].is_free(), "page {page} is free");
            self.change(page, |held| match holder {
                Holder::Sequence => held.sequences += 1,
                Holder::Tree => held.tree += 1,
            });
        }
    }

    /// Takes a holder away; without one the page is free. The null page has no holders: nothing happens.
    pub fn release(&mut self, page: u32, holder: Holder) {
        if page != NULL_PAGE {
            self.change(page, |held| match holder {
                Holder::Sequence => held.sequences -= 1,
                Holder::Tree => held.tree -= 1,
            });
            if self.holders[page as usize].is_free() {
                self.free.push(page);
            }
        }
    }

    fn change(&mut self, page: u32, change: impl FnOnce(&mut Holders)) {
        let held = &mut self.holders[page as usize];
        let before = held.is_evictable();
        change(held);
        match (before, held.is_evictable()) {
            (false, true) => self.evictable += 1,
            (true, false) => self.evictable -= 1,
            _ => {}
        }
    }

    /// Whether more than one holds the page.
    pub fn is_shared(&self, page: u32) -> bool {
        let held = self.holders[page as usize];
        held.sequences + held.tree > 1
    }

    /// Whether a sequence holds the page.
    pub fn in_use(&self, page: u32) -> bool {
        self.holders[page as usize].sequences > 0
    }

    /// Compares the books with holders counted anew, by page.
    pub fn check(&self, counted: &[Holders]) -> Result<(), String> {
        for (page, (held, counted)) in self.holders.iter().zip(counted).enumerate() {
            if held != counted {
                return Err(format!("page {page}: the books have {held:?}, counted are {counted:?}"));
            }
        }
        let mut free = self.free.clone();
        free.sort_unstable();
        let expected = (1..self.total() as u32).filter(|page| self.holders[*page as usize].is_free());
        if !expected.eq(free.iter().copied()) {
            return Err(format!("free pages: {free:?}"));
        }
        let evictable = self.holders.iter().filter(|held| held.is_evictable()).count();
        if evictable != self.evictable {
            return Err(format!("{} pages are evictable, the books have {}", evictable, self.evictable));
        }
        Ok(())
    }
}
