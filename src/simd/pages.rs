//! Memory for gigabytes of weights: in large pages where the system has them, because reading through pages of 4 KiB costs up
//! to a third of the bandwidth on misses of the address translation; and many tensors in one block, because a large page for
//! each would waste half of it.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A block of bytes, zero at first and taken from the system only as it is touched, to be handed out in parts.
pub struct Arena {
    data: NonNull<u8>,
    layout: Layout,
    used: AtomicUsize,
}

// SAFETY: the memory belongs to this value and its parts, each byte to one of them.
unsafe impl Send for Arena {}
// SAFETY: what is shared is the counter of bytes handed out.
unsafe impl Sync for Arena {}

impl Arena {
    /// Parts begin on a multiple of this: a cache line.
    pub const ALIGN: usize = 64;

    /// `length` bytes; `None` if they cannot be had.
    pub fn new(length: usize) -> Option<Arc<Self>> {
        // No more alignment than allocations have anyway: with more, the allocator would write the zeros.
        let layout = Layout::from_size_align(length.checked_add(Self::ALIGN)?, 16).ok()?;
        // SAFETY: the layout's size is not zero.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        advise(data, layout.size());
        let used = AtomicUsize::new(data.as_ptr().align_offset(Self::ALIGN));
        Some(Arc::new(Arena { data, layout, used }))
    }

    /// The next `length` bytes, on a multiple of 64; `None` if so many are not left.
    pub fn take(self: &Arc<Self>, length: usize) -> Option<ArenaSlice> {
        let next = |start: usize| {
            let end = start.checked_add(length.checked_next_multiple_of(Self::ALIGN)?)?;
            (end <= self.layout.size()).then_some(end)
        };
        let start = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).ok()?;
        Some(ArenaSlice { arena: self.clone(), start, length })
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; no part is left, for each holds the arena.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}

/// Asks for large pages, before the first of them is touched. A system that has none goes on with small ones.
#[cfg(target_os = "linux")]
fn advise(data: NonNull<u8>, size: usize) {
    // The largest ordinary page anywhere: ARM's kernels come with 4, 16 or 64 KiB, and part of a page is refused.
    const PAGE: usize = 64 << 10;
    let skip = data.as_ptr().align_offset(PAGE);
    if size > skip + PAGE {
        let whole = (size - skip) / PAGE * PAGE;
        // SAFETY: whole pages within what was just allocated; the advice changes no contents.
        unsafe { libc::madvise(data.as_ptr().add(skip).cast(), whole, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_data: NonNull<u8>, _size: usize) {}

/// Some bytes of an [`Arena`].
pub struct ArenaSlice {
    arena: Arc<Arena>,
    start: usize,
    length: usize,
}

impl Deref for ArenaSlice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: within the allocation and initialised; the range was handed out to this part alone.
        unsafe { std::slice::from_raw_parts(self.arena.data.as_ptr().add(self.start), self.length) }
    }
}

impl DerefMut for ArenaSlice {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.arena.data.as_ptr().add(self.start), self.length) }
    }
}

impl AsRef<[u8]> for ArenaSlice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_zero_aligned_apart_and_outlive_the_arena() {
        let arena = Arena::new(10_000).unwrap();
        let mut parts: Vec<ArenaSlice> = (0..3).map(|_| arena.take(1000).unwrap()).collect();
        for (i, part) in parts.iter_mut().enumerate() {
            assert!(part.len() == 1000 && part.iter().all(|b| *b == 0));
            assert!((part.as_ptr() as usize).is_multiple_of(Arena::ALIGN));
            part.fill(i as u8 + 1);
        }
        assert!(arena.take(10_000).is_none() && arena.take(usize::MAX).is_none());
        assert!(arena.take(0).unwrap().is_empty());
        drop(arena);
        assert!(parts.iter().enumerate().all(|(i, p)| p.iter().all(|b| *b == i as u8 + 1)));
        assert!(Arena::new(usize::MAX).is_none());
    }
}
