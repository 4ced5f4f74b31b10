//! Memory in large pages: reading gigabytes of weights through 4 KiB pages costs up to a third of the bandwidth on misses of the
//! address translation.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Size and alignment of a large page on x86-64 and on most ARM systems.
const PAGE: usize = 2 << 20;

/// Bytes, zero at first, on a multiple of 2 MiB; in large pages where the system grants them.
pub struct LargePages {
    data: NonNull<u8>,
    layout: Layout,
    length: usize,
}

// SAFETY: the memory belongs to this value alone, as a `Vec`'s does.
unsafe impl Send for LargePages {}
// SAFETY: shared access is to a plain slice.
unsafe impl Sync for LargePages {}

impl LargePages {
    /// `length` bytes; `None` where they cannot be had.
    pub fn new(length: usize) -> Option<Self> {
        let layout = Layout::from_size_align(length.max(1).checked_next_multiple_of(PAGE)?, PAGE).ok()?;
        // SAFETY: the layout's size is not zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        advise(data, layout.size());
        Some(LargePages { data, layout, length })
    }
}

/// Asks for large pages, before the first of them is touched. A system that has none goes on with small ones.
#[cfg(target_os = "linux")]
fn advise(data: NonNull<u8>, size: usize) {
    // SAFETY: the range was just allocated and is whole pages.
    unsafe { libc::madvise(data.as_ptr().cast(), size, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_data: NonNull<u8>, _size: usize) {}

impl Deref for LargePages {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the allocation has at least `length` bytes, all initialised.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.length) }
    }
}

impl DerefMut for LargePages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.length) }
    }
}

impl Drop for LargePages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_zero_aligned_and_writable() {
        let mut pages = LargePages::new(PAGE + 5).unwrap();
        assert!(pages.len() == PAGE + 5 && pages.iter().all(|b| *b == 0));
        assert!((pages.as_ptr() as usize).is_multiple_of(PAGE));
        pages[PAGE + 4] = 7;
        assert_eq!(pages[PAGE + 4], 7);
        assert!(LargePages::new(0).unwrap().is_empty() && LargePages::new(usize::MAX).is_none());
    }
}
