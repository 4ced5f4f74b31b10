//! Sequences that come back from elsewhere can go on, and go back, as those that were kept.

use super::*;

/// The same sequence in a pool of its own, by its points alone.
fn resumed(pool: &Pool, seq: SeqId, groups: &[(Option<usize>, usize)]) -> (Pool, SeqId) {
    let mut other = super::pool(groups, 0, 32);
    let copy = other.open(Some(0), 0).expect("no slots");
    for point in pool.points(seq) {
        let from = other.len(copy);
        other.resume(copy, &pool.items(seq)[from..point.len], &point.gone).expect("room");
        if point.len < pool.len(seq) {
            other.snapshot(copy).expect("no slots");
        }
        other.check().unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(other.drain_page_copies().count(), 0, "the cells are written once");
    (other, copy)
}

#[test]
fn a_sequence_comes_back_with_its_points() {
    let mut random = Random::new(11);
    for round in 0..200 {
        let window = 1 + random.below(150);
        let groups: &[(Option<usize>, usize)] = match round % 3 {
            0 => &[(None, 60)],
            1 => &[(None, 60), (Some(window), 60)],
            _ => &[(Some(window), 60)],
        };
        let mut pool = super::pool(groups, 0, 32);
        let seq = pool.open(Some(0), 0).unwrap();
        let mut next = 0;
        for _ in 0..random.below(12) {
            let more = 1 + random.below(200);
            if pool.reserve(seq, more).is_err() {
                break;
            }
            // Copies are the backend's.
            pool.drain_page_copies().for_each(drop);
            pool.commit(seq, &items(next, more));
            next += more as u32;
            if random.once_in(2) {
                pool.snapshot(seq).unwrap();
            }
            if random.once_in(4) {
                pool.truncate(seq, random.below(pool.len(seq) + 1));
            }
        }
        let (mut other, copy) = resumed(&pool, seq, groups);
        assert_eq!(other.items(copy), pool.items(seq));
        let lengths: Vec<usize> = pool.points(seq).iter().map(|point| point.len).collect();
        for len in 0..=pool.len(seq) {
            let (there, here) = (other.restorable(copy, len), pool.restorable(seq, len));
            assert!(there <= here, "round {round}: {there} of {len}, though there were {here}");
            assert!(there == len || !lengths.contains(&len), "round {round}: {there} of {len}, from {lengths:?}");
        }
        other.reserve(copy, 100).expect("room");
        other.commit(copy, &items(next, 100));
        other.check().unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn what_does_not_fit_is_said() {
    let mut pool = super::pool(&[(None, 3), (Some(64), 9)], 0, 0);
    let seq = pool.open(Some(0), 0).unwrap();
    assert!(pool.resume(seq, &items(0, 193), &[0, 2]).unwrap_err().to_string().contains("4 pages of layer group 0"));
    pool.close(seq);
    let seq = pool.open(Some(0), 0).unwrap();
    pool.resume(seq, &items(0, 192), &[0, 2]).unwrap();
    assert_eq!((pool.table(seq, 0).len(), &pool.table(seq, 1)[..2]), (3, &[0, 0][..]));
    pool.check().unwrap_or_else(|e| panic!("{e}"));
}
