//! Groups of layers with windows: what they hold, and from which prefixes a sequence can continue.

use super::model::Simulation;
use super::*;

const WINDOW: usize = 1024;

fn held(s: &Simulation, group: usize) -> usize {
    let usage = s.pool.usage(group);
    usage.pages - usage.free
}

#[test]
fn a_window_holds_its_cells_and_a_batch() {
    let mut s = Simulation::new(&[(None, 513), (Some(WINDOW), 60)], 0, 0);
    let seq = s.pool.open(Some(0), 33_000).unwrap();
    let text = items(0, 32_768);
    for chunk in text.chunks(512) {
        s.pool.reserve(seq, 512).unwrap();
        assert!(held(&s, 1) <= (WINDOW + 512).div_ceil(PAGE_CELLS), "{} pages", held(&s, 1));
        s.pool.commit(seq, chunk);
    }
    assert_eq!((held(&s, 0), s.pool.table(seq, 0).len(), s.pool.table(seq, 1).len()), (512, 512, 512));
    for i in 0..64 {
        s.pool.reserve(seq, 1).unwrap();
        assert!(held(&s, 1) <= (WINDOW + 1).div_ceil(PAGE_CELLS), "{} pages", held(&s, 1));
        s.pool.commit(seq, &items(100_000 + i, 1));
    }
    s.check();
}

#[test]
fn steps_of_any_size_hold_no_more_than_foretold() {
    let mut random = Random::new(3);
    for (window, batch) in [(1, 1), (64, 1), (100, 37), (128, 64), (130, 500)] {
        let mut s = Simulation::new(&[(Some(window), 40)], 0, 0);
        let seq = s.pool.open(None, 0).unwrap();
        let mut text = Vec::new();
        while text.len() < 3000 {
            let more = items(text.len() as u32, 1 + random.below(batch));
            s.write(seq, &more).unwrap();
            text.extend(more);
            assert!(held(&s, 0) <= GroupSpec::window_pages(window, batch), "window {window}, batch {batch}");
        }
        s.verify(seq, &text);
        s.check();
    }
}

#[test]
fn the_next_turn_continues_from_a_snapshot() {
    let mut s = Simulation::new(&[(None, 100), (Some(128), 40)], 0, 32);
    let mut text = items(0, 500);
    for turn in 1..8 {
        let seq = s.pool.open(Some(0), 0).unwrap();
        let cached = s.pool.adopt(seq, &text);
        assert_eq!(cached, if turn == 1 { 0 } else { text.len() - 30 }, "turn {turn}");
        for chunk in text[cached..].chunks(100) {
            s.write(seq, chunk).unwrap();
        }
        s.pool.snapshot(seq).unwrap();
        assert_eq!(s.pool.cached(0, &text), text.len() - 1, "the same prompt again");
        for i in 0..200 {
            s.write(seq, &items(1000 * turn + i, 1)).unwrap();
        }
        s.pool.snapshot(seq).unwrap();
        text.extend(items(1000 * turn, 200));
        s.verify(seq, &text);
        assert_eq!(s.pool.cached(0, &text[..400]), 0, "the window of the beginning is gone");
        s.pool.close(seq);
        s.check();
        text.extend(items(1000 * turn + 500, 30));
    }
}

#[test]
fn the_last_item_can_be_computed_again_at_any_length() {
    let mut s = Simulation::new(&[(Some(64), 8)], 0, 1);
    for len in 1..300 {
        let (text, seq) = (items(0, len), s.pool.open(Some(len as u64), 0).unwrap());
        text.chunks(50).for_each(|chunk| s.write(seq, chunk).unwrap());
        s.pool.snapshot(seq).unwrap();
        assert_eq!(s.pool.cached(len as u64, &text), len - 1);
        assert_eq!(s.pool.truncate(seq, len - 1), len - 1);
        s.verify(seq, &text[..len - 1]);
        s.pool.close(seq);
    }
}

#[test]
fn the_least_recently_used_snapshot_goes_first() {
    let mut s = Simulation::new(&[(Some(64), 30), (None, 10)], 0, 3);
    let texts: Vec<_> = (0..5).map(|i| items(1000 * i, 100)).collect();
    let serve = |s: &mut Simulation, i: usize| {
        let seq = s.pool.open(Some(0), 0).unwrap();
        s.write(seq, &texts[i]).unwrap();
        s.pool.snapshot(seq).unwrap();
        s.pool.close(seq);
    };
    (0..3).for_each(|i| serve(&mut s, i));
    // The first is found, the second is made once more: the third goes, and then the first.
    let seq = s.pool.open(Some(0), 0).unwrap();
    assert_eq!(s.pool.adopt(seq, &texts[0]), 99);
    s.pool.close(seq);
    serve(&mut s, 1);
    for (i, left) in [(3, [99, 99, 0, 99]), (4, [0, 99, 0, 99])] {
        serve(&mut s, i);
        assert_eq!([0, 1, 2, 3].map(|i: usize| s.pool.cached(0, &texts[i])), left);
        s.check();
    }
    // So it is if a group without a window is short of pages.
    serve(&mut s, 1);
    let seq = s.pool.open(None, 0).unwrap();
    s.write(seq, &items(5000, 5 * 64)).unwrap();
    assert_eq!([1, 3, 4].map(|i: usize| s.pool.cached(0, &texts[i])), [99, 0, 99]);
}

#[test]
fn a_text_shorter_than_the_window_is_found_to_any_item() {
    let mut s = Simulation::new(&[(None, 20), (Some(300), 20)], 0, 32);
    let text = items(0, 250);
    let seq = s.pool.open(Some(0), 0).unwrap();
    s.write(seq, &text).unwrap();
    s.pool.publish(seq);
    assert_eq!(s.pool.cached(0, &text), 0, "publishing alone keeps no window");
    s.pool.snapshot(seq).unwrap();
    let other = s.pool.open(Some(0), 0).unwrap();
    let prompt = [&text[..99], &items(1000, 50)].concat();
    assert_eq!(s.pool.adopt(other, &prompt), 99);
    s.write(other, &prompt[99..]).unwrap();
    s.verify(other, &prompt);
    s.verify(seq, &text);
    s.check();
}

#[test]
fn snapshots_are_few_and_go_before_anything_is_refused() {
    let mut s = Simulation::new(&[(None, 100), (Some(64), 6)], 0, 3);
    let texts: Vec<_> = (0..4).map(|i| items(1000 * i, 100)).collect();
    for text in &texts[..2] {
        let seq = s.pool.open(Some(0), 0).unwrap();
        s.write(seq, text).unwrap();
        s.pool.snapshot(seq).unwrap();
        s.pool.close(seq);
    }
    assert_eq!(s.pool.usage(1), Usage { pages: 6, free: 2, evictable: 4 });
    let seq = s.pool.open(Some(0), 0).unwrap();
    s.write(seq, &items(5000, 4 * 64)).unwrap();
    let found = |s: &Simulation| [0, 1].map(|i: usize| s.pool.cached(0, &texts[i]));
    assert_eq!(found(&s), [0, 99], "the older snapshot is dropped, with the pages of its text");
    assert_eq!(s.pool.usage(0).free, 100 - 4 - 2);
    s.check();
    s.pool.close(seq);
    for text in &texts[1..] {
        let seq = s.pool.open(Some(0), 0).unwrap();
        let cached = s.pool.adopt(seq, text);
        s.write(seq, &text[cached..]).unwrap();
        s.pool.snapshot(seq).unwrap();
        s.pool.close(seq);
    }
    assert_eq!(s.pool.snapshots.list.len(), 3);
    assert_eq!(found(&s), [0, 99]);
    s.check();
}

#[test]
fn a_snapshot_whose_window_a_sequence_reads_goes_last() {
    let mut s = Simulation::new(&[(Some(64), 6)], 0, 3);
    let texts: Vec<_> = (0..2).map(|i| items(1000 * i, 128)).collect();
    for text in &texts {
        let seq = s.pool.open(Some(0), 0).unwrap();
        s.write(seq, text).unwrap();
        s.pool.snapshot(seq).unwrap();
        if text == &texts[1] {
            s.pool.close(seq);
        }
    }
    // The older one holds a page, which the open sequence also reads; the newer one holds another.
    assert_eq!(s.pool.usage(0), Usage { pages: 6, free: 3, evictable: 1 });
    let seq = s.pool.open(None, 0).unwrap();
    s.write(seq, &items(5000, 4 * 64)).unwrap();
    let found = [0, 1].map(|i: usize| s.pool.cached(0, &[&texts[i][..], &items(9000, 1)].concat()));
    assert_eq!(found, [128, 0]);
    s.check();
}

#[test]
fn going_back_behind_the_window_needs_a_snapshot() {
    let mut s = Simulation::new(&[(None, 100), (Some(100), 40)], 0, 32);
    let text = items(0, 2000);
    let seq = s.pool.open(Some(0), 0).unwrap();
    s.write(seq, &text[..700]).unwrap();
    s.pool.snapshot(seq).unwrap();
    for chunk in text[700..].chunks(50) {
        s.write(seq, chunk).unwrap();
    }
    assert_eq!(s.pool.truncate(seq, 1999), 1999, "the last item can always be taken back");
    assert_eq!((s.pool.restorable(seq, 1500), s.pool.truncate(seq, 1500)), (700, 700));
    s.verify(seq, &text[..700]);
    s.write(seq, &items(5000, 100)).unwrap();
    assert_eq!(s.pool.truncate(seq, 650), 0, "nothing to continue from");
    s.write(seq, &text[..10]).unwrap();
    s.verify(seq, &text[..10]);
    s.check();
}
