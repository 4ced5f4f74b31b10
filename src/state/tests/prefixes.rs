//! Which prefixes stay when pages are short, and that all are found while they are not.

use super::model::Simulation;
use super::*;

/// Computes a prompt in a sequence of its own, snapshots it, and closes; returns what was cached.
fn serve(s: &mut Simulation, prompt: &[Item]) -> usize {
    let seq = s.pool.open(Some(0), prompt.len()).unwrap();
    let cached = s.pool.adopt(seq, prompt);
    s.write(seq, &prompt[cached..]).unwrap();
    s.pool.snapshot(seq).unwrap();
    s.pool.close(seq);
    cached
}

fn cached(s: &Simulation, prompt: &[Item]) -> usize {
    s.pool.cached(0, &[prompt, &[Item::Token(u32::MAX)]].concat())
}

#[test]
fn the_least_recently_used_prefix_goes_first_from_its_end() {
    let mut s = Simulation::new(&[(None, 9)], 0, 0);
    let texts: Vec<_> = (0..3).map(|i| items(1000 * i, 3 * 64)).collect();
    assert!(texts.iter().all(|text| serve(&mut s, text) == 0));
    assert_eq!(s.pool.usage(0), Usage { pages: 9, free: 0, evictable: 9 });
    // The first is used again, so the second goes, page by page, and then the third.
    assert_eq!(serve(&mut s, &texts[0]), 191);
    let seq = s.pool.open(None, 0).unwrap();
    for left in [[192, 128, 192], [192, 64, 192], [192, 0, 192], [192, 0, 128]] {
        s.write(seq, &items(5000, 64)).unwrap();
        assert_eq!([0, 1, 2].map(|i| cached(&s, &texts[i])), left);
        s.check();
    }
}

#[test]
fn sharing_and_publishing_again_are_uses() {
    let mut s = Simulation::new(&[(None, 5)], 0, 0);
    let texts: Vec<_> = (0..3).map(|i| items(1000 * i, 64)).collect();
    texts.iter().for_each(|text| assert_eq!(serve(&mut s, text), 0));
    let seq = s.pool.open(Some(0), 0).unwrap();
    assert_eq!(s.pool.adopt(seq, &[&texts[0][..], &items(9000, 1)].concat()), 64);
    s.pool.close(seq);
    let seq = s.pool.open(Some(0), 0).unwrap();
    s.write(seq, &texts[1]).unwrap();
    s.pool.publish(seq);
    s.pool.close(seq);
    let seq = s.pool.open(None, 0).unwrap();
    s.write(seq, &items(5000, 2 * 64)).unwrap();
    for left in [[64, 64, 0], [0, 64, 0]] {
        s.write(seq, &items(6000, 64)).unwrap();
        assert_eq!([0, 1, 2].map(|i| cached(&s, &texts[i])), left);
    }
}

#[test]
fn what_sequences_read_goes_after_what_nodes_share() {
    let mut s = Simulation::new(&[(None, 5)], 0, 0);
    let (read, split) = (items(0, 128), items(1000, 74));
    let seq = s.pool.open(Some(0), 0).unwrap();
    s.write(seq, &read).unwrap();
    s.pool.publish(seq);
    serve(&mut s, &split);
    let place = s.pool.tree.find(0, &split[..70]).unwrap();
    s.pool.tree.end_at(&mut s.pool.groups, place);
    let other = s.pool.open(None, 0).unwrap();
    s.write(other, &items(5000, 2 * 64)).unwrap();
    assert_eq!([cached(&s, &read), cached(&s, &split)], [128, 64]);
    s.check();
}

#[test]
fn a_branch_goes_before_its_stem() {
    let mut s = Simulation::new(&[(None, 8)], 0, 0);
    let stem = items(0, 2 * 64 + 10);
    let branches: Vec<_> = (1..4).map(|i| [stem.clone(), items(1000 * i, 40)].concat()).collect();
    assert_eq!(branches.iter().map(|text| serve(&mut s, text)).collect::<Vec<_>>(), [0, 138, 138]);
    // Two whole pages in common, and one for each branch. The first branch's also has the end of the stem: to drop it would free
    // nothing, so the second branch goes.
    assert_eq!(s.pool.usage(0).free, 8 - 5);
    let seq = s.pool.open(None, 0).unwrap();
    s.write(seq, &items(5000, 4 * 64)).unwrap();
    assert_eq!(branches.iter().map(|text| cached(&s, text)).collect::<Vec<_>>(), [178, 138, 178]);
    s.check();
}

#[test]
fn what_sequences_read_goes_last() {
    let mut s = Simulation::new(&[(None, 6)], 0, 0);
    let (old, new) = (items(0, 128), items(1000, 128));
    serve(&mut s, &old);
    let seq = s.pool.open(Some(0), 0).unwrap();
    let prompt = [old.clone(), items(2000, 1)].concat();
    assert_eq!(s.pool.adopt(seq, &prompt), 128);
    serve(&mut s, &new);
    s.write(seq, &items(2000, 3 * 64)).unwrap();
    assert_eq!([cached(&s, &old), cached(&s, &new)], [128, 64], "the older prefix is in use");
    s.check();
}

/// In a pool that is large enough all that was snapshotted is found: the longest common beginning; with slots, the longest text
/// that the prompt begins with; with windows, at least that.
#[test]
fn all_prefixes_are_found_while_there_is_room() {
    for (groups, slots) in [
        (vec![(None, 5000)], 0),
        (vec![(None, 5000)], 2000),
        (vec![(None, 5000), (Some(70), 5000)], 0),
        (vec![(Some(70), 5000)], 2000),
    ] {
        let mut s = Simulation::new(&groups, slots, 1000);
        let mut random = Random::new(7);
        let mut texts: Vec<Vec<Item>> = Vec::new();
        let windows = groups.len() > 1;
        for _ in 0..600 {
            let text = random.text(&texts, 500);
            let wanted = &text[..text.len().saturating_sub(1)];
            let longest = texts.iter().map(|t| common(t, wanted)).max().unwrap_or(0);
            let whole = texts.iter().filter(|t| wanted.starts_with(t)).map(Vec::len).max().unwrap_or(0);
            let found = serve(&mut s, &text);
            match (slots > 0, windows) {
                (true, _) => assert_eq!(found, whole),
                (false, false) => assert_eq!(found, longest),
                (false, true) => assert!((whole..=longest).contains(&found), "{whole} ≤ {found} ≤ {longest}"),
            }
            texts.push(text);
        }
        s.check();
    }
}
