//! Pages that several read: counted, copied before others write, written on by the one that filled them.

use super::model::Simulation;
use super::*;

#[test]
fn sixteen_sequences_hold_one_prefix_once() {
    let mut s = Simulation::new(&[(None, 100)], 0, 0);
    let prefix = items(0, 1000);
    let mut open = Vec::new();
    for i in 0..16 {
        let prompt = [prefix.clone(), items(10_000 * (i + 1), 20)].concat();
        let seq = s.pool.open(Some(0), prompt.len()).unwrap();
        let cached = s.pool.adopt(seq, &prompt);
        assert_eq!(cached, if i == 0 { 0 } else { 1000 });
        s.write(seq, &prompt[cached..]).unwrap();
        s.pool.publish(seq);
        open.push((seq, prompt));
    }
    // 15 whole pages for all; the rest of 40 cells and the 20 of each in a page of its own.
    assert_eq!(s.pool.usage(0).free, 100 - 15 - 16);
    open.iter().for_each(|(seq, prompt)| s.verify(*seq, prompt));
    open.into_iter().for_each(|(seq, _)| s.pool.close(seq));
    assert_eq!(s.pool.usage(0), Usage { pages: 100, free: 100 - 31, evictable: 31 });
    s.check();
}

#[test]
fn a_waiting_sequence_shares_what_another_computes() {
    let mut s = Simulation::new(&[(None, 40)], 0, 0);
    let prompt = items(0, 1000);
    let (a, b) = (s.pool.open(Some(0), 0).unwrap(), s.pool.open(Some(0), 0).unwrap());
    for chunk in prompt.chunks(300) {
        s.write(a, chunk).unwrap();
        s.pool.publish(a);
        assert_eq!(s.pool.adopt(b, &prompt), s.pool.len(a).min(999));
        s.verify(b, &prompt[..s.pool.len(b)]);
    }
    assert_eq!(s.pool.usage(0).free, 40 - 16);
    s.check();
}

#[test]
fn a_waiting_sequence_keeps_the_whole_pages_that_it_has() {
    let mut s = Simulation::new(&[(None, 20)], 0, 0);
    let prompt = items(0, 400);
    let (a, b) = (s.pool.open(Some(0), 0).unwrap(), s.pool.open(Some(0), 0).unwrap());
    s.write(b, &prompt[..150]).unwrap();
    s.write(a, &prompt).unwrap();
    s.pool.publish(a);
    let own = s.pool.table(b, 0).to_vec();
    assert_eq!(s.pool.adopt(b, &prompt), 399);
    assert_eq!(s.pool.table(b, 0), [&own[..2], &s.pool.table(a, 0)[2..]].concat());
    s.verify(b, &prompt[..399]);
    s.check();
}

#[test]
fn what_two_computed_is_kept_once_when_they_are_closed() {
    let mut s = Simulation::new(&[(None, 10)], 0, 0);
    let prompt = items(0, 150);
    let both = [(); 2].map(|()| s.pool.open(Some(0), 0).unwrap());
    for seq in both {
        s.write(seq, &prompt).unwrap();
        s.pool.publish(seq);
    }
    assert_eq!(s.pool.usage(0).free, 10 - 6);
    assert_ne!(s.pool.table(both[0], 0), s.pool.table(both[1], 0), "what a sequence reads never changes under it");
    both.into_iter().for_each(|seq| s.pool.close(seq));
    assert_eq!(s.pool.usage(0), Usage { pages: 10, free: 7, evictable: 3 });
}

#[test]
fn a_prompt_is_found_but_for_its_last_item() {
    let mut s = Simulation::new(&[(None, 10)], 0, 0);
    let prompt = items(0, 77);
    let seq = s.pool.open(Some(0), 0).unwrap();
    s.write(seq, &prompt).unwrap();
    s.pool.publish(seq);
    assert_eq!(s.pool.cached(0, &prompt), 76);
    assert_eq!(s.pool.cached(0, &[prompt.clone(), items(1000, 1)].concat()), 77);
    assert_eq!(s.pool.cached(0, &prompt[..1]), 0);
    assert_eq!(s.pool.cached(0, &[]), 0);
    assert_eq!(s.pool.cached(1, &prompt), 0, "another salt");
    let private = s.pool.open(None, 0).unwrap();
    assert_eq!(s.pool.adopt(private, &prompt), 0, "without a salt nothing is found");
}

#[test]
fn an_answer_continues_in_the_page_of_its_published_prompt() {
    let mut s = Simulation::new(&[(None, 10)], 0, 0);
    let (prompt, answer) = (items(0, 100), items(1000, 40));
    let seq = s.pool.open(Some(0), 0).unwrap();
    s.write(seq, &prompt).unwrap();
    s.pool.publish(seq);
    s.write(seq, &answer).unwrap();
    assert_eq!((s.copied, s.pool.usage(0).free), (0, 7));
    // A later sequence that writes something else gets a copy, and so does the sequence itself if it goes back.
    let other = s.pool.open(Some(0), 0).unwrap();
    let others = [prompt.clone(), items(2000, 5)].concat();
    assert_eq!(s.pool.adopt(other, &others), 100);
    s.write(other, &others[100..]).unwrap();
    assert_eq!((s.copied, s.pool.usage(0).free), (36, 6));
    assert_eq!(s.pool.truncate(seq, 90), 90);
    s.write(seq, &items(3000, 10)).unwrap();
    assert_eq!((s.copied, s.pool.usage(0).free), (36 + 26, 6));
    s.verify(seq, &[&prompt[..90], &items(3000, 10)].concat());
    s.verify(other, &others);
    assert_eq!(s.pool.cached(0, &[&prompt[..], &answer].concat()), 100, "the answer was not published");
    s.check();
}

#[test]
fn forks_share_until_they_write() {
    let mut s = Simulation::new(&[(None, 12)], 0, 0);
    let prompt = items(0, 3 * 64 + 10);
    let first = s.pool.open(None, 0).unwrap();
    s.write(first, &prompt).unwrap();
    let forks: Vec<SeqId> = (0..7).map(|_| s.pool.fork(first).unwrap()).collect();
    assert_eq!(s.pool.usage(0).free, 8);
    for (i, seq) in forks.iter().enumerate() {
        s.write(*seq, &items(1000 * i as u32, 1)).unwrap();
    }
    assert_eq!((s.pool.usage(0).free, s.copied), (1, 70), "a page of its own for each, of which 10 cells are copied");
    s.write(first, &items(9000, 1)).unwrap();
    assert_eq!(s.copied, 70, "the first continues in its own page");
    for (i, seq) in forks.iter().enumerate() {
        s.verify(*seq, &[prompt.clone(), items(1000 * i as u32, 1)].concat());
    }
    s.check();
}

#[test]
fn a_full_pool_refuses_and_changes_nothing() {
    let mut s = Simulation::new(&[(None, 4)], 0, 0);
    let (a, b) = (s.pool.open(Some(0), 0).unwrap(), s.pool.open(Some(0), 0).unwrap());
    s.write(a, &items(0, 100)).unwrap();
    s.write(b, &items(1000, 60)).unwrap();
    let full = s.pool.reserve(b, 64 + 5).unwrap_err();
    assert_eq!(full, Full { resource: Resource::Pages { group: 0 }, needed: 2, free: 1 });
    assert_eq!(full.to_string(), "2 pages of layer group 0 are needed, 1 are free");
    assert_eq!(s.pool.table(b, 0).len(), 1);
    s.pool.publish(a);
    assert!(s.pool.reserve(b, 64 + 5).is_err(), "pages that a sequence reads cannot be evicted");
    s.pool.close(a);
    s.pool.reserve(b, 64 + 5).unwrap();
    assert_eq!(s.pool.cached(0, &items(0, 100)), 64, "one page went, the other stayed");
    s.check();
}

#[test]
fn decoding_in_a_page_is_free_and_tables_do_not_grow_beyond_what_was_expected() {
    let mut pool = pool(&[(None, 100), (Some(128), 10)], 2, 1);
    let seq = pool.open(Some(0), 5000).unwrap();
    assert_eq!(pool.drain_slot_copies().count(), 1);
    let capacities = |pool: &Pool| {
        let sequence = &pool.sequences[seq.0];
        let tables = sequence.tables.iter().map(|table| table.pages.capacity());
        tables.chain([sequence.items.capacity(), pool.page_copies.capacity()]).collect::<Vec<_>>()
    };
    let before = capacities(&pool);
    for i in 0..5000 {
        // One ahead, as a step that is submitted before the last one's token is read.
        pool.reserve(seq, 2).unwrap();
        pool.commit(seq, &[Item::Token(i)]);
    }
    assert_eq!(capacities(&pool), before);
    assert_eq!(pool.page_copies.len() + pool.slots.copies.len(), 0);
}
