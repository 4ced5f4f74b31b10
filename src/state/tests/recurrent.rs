//! Slots: state per sequence, its snapshots and copies.

use super::model::Simulation;
use super::*;

#[test]
fn a_state_begins_as_zeros_and_is_copied_for_forks_and_snapshots() {
    let mut pool = pool(&[], 4, 8);
    let copies = |pool: &mut Pool| pool.drain_slot_copies().collect::<Vec<_>>();
    let a = pool.open(Some(0), 0).unwrap();
    assert_eq!(copies(&mut pool), [SlotCopy { from: None, to: 1 }]);
    pool.reserve(a, 3).unwrap();
    pool.commit(a, &items(0, 3));
    let b = pool.fork(a).unwrap();
    pool.snapshot(b).unwrap();
    assert_eq!(copies(&mut pool), [SlotCopy { from: Some(1), to: 2 }, SlotCopy { from: Some(2), to: 3 }]);
    assert_eq!((pool.slot(a), pool.slot(b)), (Some(1), Some(2)));
    pool.snapshot(a).unwrap();
    assert_eq!(copies(&mut pool), [], "the same text is there already");
    // A third sequence takes the snapshot's slot, a fourth finds none.
    let c = pool.open(Some(0), 0).unwrap();
    assert_eq!((pool.slot(c), pool.cached(0, &items(0, 4))), (Some(3), 0));
    let full = Full { resource: Resource::Slots, needed: 1, free: 0 };
    assert_eq!((pool.open(None, 0), pool.fork(a), pool.snapshot(a)), (Err(full), Err(full), Err(full)));
    assert_eq!(full.to_string(), "1 state slots are needed, 0 are free");
    pool.close(b);
    pool.snapshot(a).unwrap();
    pool.check().unwrap();
}

#[test]
fn going_back_restores_the_deepest_snapshot() {
    let mut s = Simulation::new(&[(None, 20)], 8, 8);
    let text = items(0, 300);
    let seq = s.pool.open(Some(0), 0).unwrap();
    for chunk in text.chunks(100) {
        s.write(seq, chunk).unwrap();
        s.pool.snapshot(seq).unwrap();
    }
    assert_eq!(s.pool.truncate(seq, 300), 300);
    assert_eq!((s.pool.restorable(seq, 299), s.pool.truncate(seq, 299)), (200, 200));
    s.verify(seq, &text[..200]);
    s.write(seq, &items(1000, 50)).unwrap();
    assert_eq!(s.pool.truncate(seq, 200), 200);
    s.verify(seq, &text[..200]);
    assert_eq!(s.pool.truncate(seq, 99), 0);
    s.verify(seq, &[]);
    s.write(seq, &text).unwrap();
    s.verify(seq, &text);
    let private = s.pool.open(None, 0).unwrap();
    s.write(private, &text).unwrap();
    s.pool.snapshot(private).unwrap();
    assert_eq!(s.pool.truncate(private, 299), 0, "without a salt no snapshots are kept");
    s.check();
}

#[test]
fn a_prompt_is_found_to_the_deepest_snapshot() {
    let mut s = Simulation::new(&[(None, 20)], 8, 8);
    let text = items(0, 300);
    let seq = s.pool.open(Some(0), 0).unwrap();
    for chunk in text.chunks(150) {
        s.write(seq, chunk).unwrap();
        s.pool.snapshot(seq).unwrap();
    }
    s.pool.close(seq);
    assert_eq!(s.pool.cached(0, &text), 150, "the state after the last item is no use for computing it");
    let longer = [&text[..], &items(1000, 20)].concat();
    for (prompt, found) in [(&longer[..], 300), (&longer[..301], 300), (&longer[..299], 150), (&longer[..150], 0)] {
        let seq = s.pool.open(Some(0), 0).unwrap();
        assert_eq!(s.pool.adopt(seq, prompt), found);
        s.write(seq, &prompt[found..]).unwrap();
        s.verify(seq, prompt);
        s.pool.close(seq);
    }
    s.check();
}
