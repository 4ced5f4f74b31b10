//! DRY, "don't repeat yourself": penalizes a token by the length of the repetition it would continue.
//!
//! Where the last n tokens also stand earlier in the text, the token that followed there gets
//! logit − multiplier · base^(n − allowed). Repetitions do not reach across sequence breakers.
//! Source: the proposal of its author, p-e-w, in text-generation-webui, with llama.cpp's treatment of breakers.

use super::math::pow;
use super::penalties::latest;
use super::tally::Tally;
use super::{Candidates, SeededRng, Stage};

/// What DRY is made of; see [`super::SamplerOptions`] for the meaning of the numbers.
#[derive(Debug)]
pub(super) struct Dry {
    multiplier: f32,
    base: f32,
    allowed: usize,
    last_n: usize,
    /// Breakers as first token and the rest, ascending.
    breakers: Vec<(u32, Vec<u32>)>,
    /// Length of the longest repetition that each token would continue, plus 1.
    longest: Tally,
    /// Z-values, reused from token to token.
    z: Vec<u32>,
}

impl Dry {
    /// ln of the largest f32: where the penalty would overflow, the exponent is cut off.
    const LN_MAX: f64 = 88.722_839_1;

    /// Looks at the last `last_n` tokens; ids of candidates are below `tokens`; `breakers` are token sequences.
    pub fn new(
        tokens: usize,
        last_n: usize,
        (multiplier, base, allowed): (f32, f32, usize),
        breakers: &[Vec<u32>],
    ) -> Self {
        let split = |b: &Vec<u32>| b.split_first().map(|(&head, tail)| (head, tail.to_vec()));
        let mut breakers: Vec<_> = breakers.iter().filter_map(split).collect();
        breakers.sort();
        breakers.dedup();
        Dry { multiplier, base, allowed, last_n, breakers, longest: Tally::new(tokens), z: Vec::new() }
    }

    /// Breakers that start with `head`, without it.
    fn tails(&self, head: u32) -> &[(u32, Vec<u32>)] {
        let from = self.breakers.partition_point(|(h, _)| *h < head);
        let count = self.breakers[from..].partition_point(|(h, _)| *h == head);
        &self.breakers[from..from + count]
    }

    /// Tokens of `text` since the end of the last breaker: no repetition is longer.
    fn since_breaker(&self, text: &[u32]) -> usize {
        for (place, &head) in text.iter().enumerate().rev() {
            let after = &text[place + 1..];
            let tails = self.tails(head).iter().map(|(_, tail)| tail);
            if let Some(longest) = tails.filter(|tail| after.starts_with(tail)).map(Vec::len).max() {
                return after.len() - longest;
            }
        }
        text.len()
    }

    /// Fills `z[k]`: how many tokens of `text`, from the newest back, equal those `k` places earlier. Linear time.
    fn compare_with_the_past(&mut self, text: &[u32]) {
        let n = text.len();
        self.z.clear();
        self.z.resize(n, 0);
        // [left, right): the match that reaches furthest into the past; inside it values can be copied.
        let (mut left, mut right) = (0, 0);
        for k in 1..n {
            let known = if k < right { (self.z[k - left] as usize).min(right - k) } else { 0 };
            let mut len = known;
            while k + len < n && text[n - 1 - len] == text[n - 1 - k - len] {
                len += 1;
            }
            self.z[k] = len as u32;
            if k + len > right {
                (left, right) = (k, k + len);
            }
        }
    }
}

impl Stage for Dry {
    fn name(&self) -> &'static str {
        "dry"
    }

    fn apply(&mut self, candidates: &mut Candidates, text: &[u32], _dice: &SeededRng) {
        let text = latest(text, self.last_n);
        if text.len() <= self.allowed {
            return;
        }
        let limit = self.since_breaker(text);
        if limit < self.allowed {
            return;
        }
        self.compare_with_the_past(text);
        self.longest.clear();
        for k in 1..text.len() {
            let len = (self.z[k] as usize).min(limit);
            if len >= self.allowed {
                // The token that followed there is one place nearer.
                self.longest.update(text[text.len() - k], |old| old.max(len as u32 + 1));
            }
        }
        let base = self.base as f64;
        let most = if base > 1.000_001 { (Self::LN_MAX / super::math::ln(base)) as usize } else { usize::MAX };
        self.longest.edit(candidates, |id, longest, logit| {
            if self.tails(id).iter().any(|(_, tail)| tail.is_empty()) {
                return logit;
            }
            let exponent = (longest as usize - 1 - self.allowed).min(most);
            let penalty = self.multiplier as f64 * pow(base, exponent as f64);
            (logit as f64 - penalty) as f32
        });
    }
}

/// Longest breaker in bytes, and longest rest of one in tokens; llama.cpp's limits.
const BREAKER_BYTES: usize = 40;
const BREAKER_TOKENS: usize = 20;

/// Turns breakers (`"\n"`, `":"` …) into the token sequences that DRY compares with.
///
/// A breaker may begin inside a token: with `",\n"` a token, a text broken by `"\n"` holds that token instead. So each of
/// the vocabulary's `tokens` tokens that holds the breaker is one, and each that ends with its beginning starts one, which
/// goes on with the tokens of the rest. `piece` gives the bytes of a token as text, special ones included; `tokenize`
/// gives the tokens of a text without any added at its start. Breakers are cut at 40 bytes; empty ones are skipped.
pub fn tokenize_breakers<'v>(
    breakers: &[String],
    tokens: u32,
    piece: impl Fn(u32) -> std::borrow::Cow<'v, [u8]>,
    tokenize: impl Fn(&[u8]) -> Vec<u32>,
) -> Vec<Vec<u32>> {
    let mut sequences = Vec::new();
    for breaker in breakers {
        let breaker = &breaker.as_bytes()[..breaker.floor_char_boundary(BREAKER_BYTES)];
        if breaker.is_empty() {
            continue;
        }
        let mut rests: Vec<Option<Vec<u32>>> = vec![None; breaker.len()];
        for id in 0..tokens {
            let word = piece(id);
            if word.windows(breaker.len()).any(|part| part == breaker) {
                sequences.push(vec![id]);
                continue;
            }
            // Ends of the word that are beginnings of the breaker.
            for common in (1..breaker.len().min(word.len() + 1)).filter(|&n| word.ends_with(&breaker[..n])) {
                let rest = rests[common].get_or_insert_with(|| tokenize(&breaker[common..]));
                let mut sequence = vec![id];
                sequence.extend(rest.iter().take(BREAKER_TOKENS));
                sequences.push(sequence);
            }
        }
    }
    sequences.sort();
    sequences.dedup();
    sequences
}

#[cfg(test)]
#[path = "dry_tests.rs"]
mod tests;
