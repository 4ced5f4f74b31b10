//! The last stage: draw one token by its probability.

use super::{Candidates, RngDomain, SeededRng, Stage};

/// Draws by probability, with the number of [`RngDomain::Draw`].
#[derive(Debug)]
pub(super) struct Draw;

impl Stage for Draw {
    fn name(&self) -> &'static str {
        "draw"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], rng: &SeededRng) {
        candidates.softmax();
        draw(candidates, rng);
    }
}

/// Selects the first candidate, in the present order, at which the running sum of `p` exceeds u · Σp, with u from
/// `rng`. Selects nothing if all are banned. Wants fresh probabilities.
///
/// A banned token adds nothing to the sum, so the sum cannot come to exceed the mark at one.
pub(super) fn draw(candidates: &mut Candidates, rng: &SeededRng) -> Option<f32> {
    let items = candidates.as_slice();
    let total: f64 = items.iter().map(|c| c.p as f64).sum();
    let mark = rng.uniform(RngDomain::Draw) as f64 * total;
    let mut sum = 0.0;
    let index = items.iter().position(|c| {
        sum += c.p as f64;
        sum > mark
    })?;
    let p = items[index].p;
    candidates.select(index);
    Some(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20,000 draws against their probabilities: chi-square of 4 degrees of freedom stays below 18.5 (99.9 %).
    #[test]
    fn draws_follow_the_probabilities() {
        let p = [0.05, 0.4, 0.0, 0.25, 0.2, 0.1];
        let logits = p.map(|p: f32| p.ln());
        for seed in 0..5 {
            let mut counts = [0u32; 6];
            for step in 0..20_000 {
                let mut c = Candidates::new(&logits).unwrap();
                Draw.apply(&mut c, &[], &SeededRng { seed, step });
                counts[c.selected().unwrap().id as usize] += 1;
            }
            assert_eq!(counts[2], 0);
            let cells = p.iter().zip(counts).filter(|(p, _)| **p > 0.0);
            let chi_square: f64 = cells.map(|(&p, n)| (n as f64 - p as f64 * 2e4).powi(2) / (p as f64 * 2e4)).sum();
            assert!(chi_square < 18.5, "seed {seed}: {chi_square}, {counts:?}");
        }
    }
}
