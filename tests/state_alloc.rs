//! In steady decode the books of sequences allocate nothing: counted by the allocator of this test binary.

#[path = "common/counting.rs"]
mod counting;

use counting::allocations;
use std::time::Duration;
use wgpu_llm::low_level::run::schedule::{Outcome, Request, Scheduler, Settings};
use wgpu_llm::low_level::state::{GroupSpec, Item, Pool, PoolSpec};

/// Sixteen sequences decode, page after page, one item ahead of what is committed; the prefixes of those before them make room.
#[test]
fn the_pool_allocates_nothing_in_steady_decode() {
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
        let before = allocations();
        decode(1, 1400);
        assert_eq!(allocations() - before, 0);
    }
}

/// Sixteen sequences decode with a step in flight, page after page.
#[test]
fn the_scheduler_allocates_nothing_in_steady_decode() {
    let groups = vec![GroupSpec { window: None, pages: 401 }, GroupSpec { window: Some(128), pages: 201 }];
    for groups in [vec![groups[0]], groups] {
        for ahead in [false, true] {
            let mut scheduler =
                Scheduler::new(PoolSpec { groups: groups.clone(), slots: 0, snapshots: 4 }, Settings::default());
            for first in (0..16).map(|i| 1000 * i) {
                let prompt = (first..first + 20).map(Item::Token).collect();
                scheduler.submit(Request::new(prompt, 1400)).expect("it fits");
            }
            let outcomes = [Outcome::Token(7); 16];
            let mut step = |n: usize| {
                for _ in 0..n {
                    assert!(scheduler.plan(Duration::ZERO));
                    if ahead && scheduler.oldest().map(|s| s.number()) == scheduler.newest().map(|s| s.number()) {
                        assert!(scheduler.plan(Duration::ZERO));
                    }
                    let step = scheduler.oldest().expect("planned");
                    let (number, outputs) = (step.number(), step.outputs().len());
                    scheduler.done(number, Duration::from_millis(10), &outcomes[..outputs]).expect("the oldest");
                    scheduler.drain_events().for_each(drop);
                }
            };
            step(4);
            let before = allocations();
            step(1300);
            assert_eq!(allocations() - before, 0);
        }
    }
}
