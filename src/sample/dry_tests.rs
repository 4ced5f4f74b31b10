//! DRY against a plain reading of its definition.

use super::*;

const RNG: SeededRng = SeededRng { seed: 0, step: 0 };

/// Penalties of tokens 0..tokens after `text`.
fn penalties(mut dry: Dry, tokens: usize, text: &[u32]) -> Vec<f32> {
    let mut c = Candidates::new(&vec![0.0; tokens]).unwrap();
    dry.apply(&mut c, text, &RNG);
    c.as_slice().iter().map(|c| -c.logit).collect()
}

fn dry(last_n: usize, breakers: &[&[u32]]) -> Dry {
    let breakers: Vec<_> = breakers.iter().map(|b| b.to_vec()).collect();
    Dry::new(32, last_n, (1.0, 2.0, 2), &breakers)
}

/// "a b c c b c y a b c": after it, c would repeat 3 tokens, b 1 and y 2; those of at least 2 are punished.
#[test]
fn by_hand() {
    let (a, b, c, y) = (0, 1, 2, 3);
    let text = [a, b, c, c, b, c, y, a, b, c];
    assert_eq!(penalties(dry(100, &[]), 4, &text), [0.0, 0.0, 2.0, 1.0]);
    // A window of 9 cuts the first a off: "b c" remains.
    assert_eq!(penalties(dry(9, &[]), 4, &text), [0.0, 0.0, 1.0, 1.0]);
    // A breaker between y and a changes nothing; between a and b it shortens to "b c".
    assert_eq!(penalties(dry(100, &[&[y]]), 4, &text), [0.0, 0.0, 2.0, 0.0], "and a breaker itself is never punished");
    assert_eq!(penalties(dry(100, &[&[a]]), 4, &text), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(penalties(dry(100, &[&[y, a]]), 4, &text), [0.0, 0.0, 1.0, 1.0], "a breaker of two tokens");
    assert_eq!(penalties(dry(100, &[&[b]]), 4, &text), [0.0; 4], "less than the allowed length is left");
    assert_eq!(penalties(dry(100, &[]), 4, &text[..2]), [0.0; 4], "too short a text");
}

#[test]
fn a_long_repetition_does_not_overflow() {
    let text = vec![1; 3000];
    let mut stage = Dry::new(4, 4000, (3.0, 1.75, 2), &[]);
    let mut c = Candidates::new(&[0.0; 4]).unwrap();
    stage.apply(&mut c, &text, &RNG);
    c.softmax();
    assert_eq!(c.probability(1), 0.0);
    assert!((c.probability(0) - 1.0 / 3.0).abs() < 1e-6);
    let mut c = Candidates::new(&[0.0; 4]).unwrap();
    stage.apply(&mut c, &[], &RNG);
    assert_eq!(c.max_logit(), 0.0);
}

/// Compares with counting matches the slow way, over texts of few different tokens (many repetitions) and all windows.
#[test]
fn equals_the_plain_definition() {
    let mut state = 1u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    let mut punished = 0;
    for _ in 0..1000 {
        let text: Vec<u32> = (0..random(60)).map(|_| random(4)).collect();
        let last_n = random(70) as usize + 1;
        let breaker = [random(6)];
        let seen = &text[text.len().saturating_sub(last_n)..];
        let limit = seen.iter().rev().position(|t| *t == breaker[0]).unwrap_or(seen.len());
        let mut want = [0.0f32; 4];
        for end in 1..seen.len() {
            let matching = (0..end).take_while(|i| seen[end - 1 - i] == seen[seen.len() - 1 - i]).count().min(limit);
            let next = seen[end] as usize;
            if matching >= 2 && seen.len() > 2 && next as u32 != breaker[0] {
                want[next] = want[next].max(2f32.powi(matching as i32 - 2));
            }
        }
        punished += want.iter().filter(|p| **p > 0.0).count();
        assert_eq!(penalties(dry(last_n, &[&breaker]), 4, &text), want, "{text:?} {last_n} {breaker:?}");
    }
    assert!(punished > 500, "only {punished} penalties: the texts test nothing");
}

#[test]
fn breakers_inside_tokens() {
    let vocabulary: [&[u8]; 6] = [b"a", b"\n", b".\n", b"x\r", b"\r", "é".as_bytes()];
    let breakers = |texts: &[&str]| {
        let texts: Vec<String> = texts.iter().map(|t| t.to_string()).collect();
        // One token per byte, 100 and up.
        let tokenize = |rest: &[u8]| rest.iter().map(|b| 100 + *b as u32).collect();
        tokenize_breakers(&texts, 6, |id| vocabulary[id as usize].into(), tokenize)
    };
    assert_eq!(breakers(&["\n"]), [vec![1], vec![2]]);
    assert_eq!(breakers(&["\r\n"]), [vec![3, 110], vec![4, 110]]);
    assert_eq!(breakers(&["", "\n", "\n"]), [vec![1], vec![2]]);
    assert_eq!(breakers(&["aab"]), [vec![0, 197, 198]]);
    // Cut at 40 bytes, on a character; the rest at 20 tokens.
    let long = "a".to_string() + &"é".repeat(30);
    assert_eq!(breakers(&[&long])[0].len(), 21);
}
