//! In steady decode the books of sequences allocate nothing: counted by the allocator of this test binary.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wgpu_llm::low_level::state::{GroupSpec, Item, Pool, PoolSpec};

/// The system's allocator, counting per thread: the test harness allocates on others.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    COUNT.with(|n| n.set(n.get() + 1));
}

// SAFETY: every call is handed to `System` unchanged; counting neither allocates nor unwinds (the cell has a constant
// initializer and no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout, through `alloc` or `realloc`.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `dealloc`; the caller's promise about `size` is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sixteen sequences decode, page after page, one item ahead of what is committed; the prefixes of those before them make room.
#[test]
fn steady_decode_allocates_nothing() {
    let groups = vec![GroupSpec { window: None, pages: 401 }, GroupSpec { window: Some(128), pages: 201 }];
    for groups in [vec![groups[0]], groups] {
        let mut pool = Pool::new(&PoolSpec { groups, slots: 0, snapshots: 4 });
        let items = |first: u32, n: u32| (first..first + n).map(Item::Token).collect::<Vec<_>>();
        for i in 0..10 {
            let seq = pool.open(Some(0), 0).expect("no slots");
            pool.reserve(seq, 2000).expect("there is room");
            pool.commit(seq, &items(10_000 * i, 2000));
            pool.snapshot(seq).expect("no slots");
            pool.close(seq);
        }
        let open: Vec<_> = (0..16).map(|_| pool.open(Some(0), 1500).expect("no slots")).collect();
        let mut decode = |from: u32, to: u32| {
            for i in from..to {
                for (seq, first) in open.iter().zip((1_000_000..).step_by(10_000)) {
                    pool.reserve(*seq, 2).expect("there is room");
                    pool.drain_page_copies().for_each(drop);
                    pool.commit(*seq, &[Item::Token(first + i)]);
                }
            }
        };
        decode(0, 1);
        let before = COUNT.get();
        decode(1, 1400);
        assert_eq!(COUNT.get() - before, 0);
    }
}
