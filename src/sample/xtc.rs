//! XTC, "exclude top choices": now and then takes away the obvious continuations.

use super::{Candidates, RngDomain, SeededRng, Stage};

/// With the given probability removes every token at or above the threshold but the least probable of them.
/// Source: the proposal of its author, p-e-w, in text-generation-webui, as llama.cpp implements it.
#[derive(Debug)]
pub(super) struct Xtc {
    /// How often it acts, in (0, 1].
    pub probability: f32,
    /// What counts as a top choice, up to 0.5: above it no two tokens can be.
    pub threshold: f32,
    /// Fewest tokens to leave.
    pub min_keep: usize,
}

impl Stage for Xtc {
    fn name(&self) -> &'static str {
        "xtc"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], rng: &SeededRng) {
        // The coin is below 1, so a probability of 1 always acts.
        if candidates.len() < 2 || rng.uniform(RngDomain::Xtc) > self.probability {
            return;
        }
        candidates.softmax();
        // At most 1 / threshold tokens can reach it; a threshold of 0 means all.
        let top = |c: &Candidates| c.as_slice().iter().filter(|c| c.p >= self.threshold).count();
        let count = top(candidates);
        candidates.order_top(count);
        if count > 1 && candidates.len() - (count - 1) >= self.min_keep {
            candidates.drop_first(count - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(mut stage: Xtc, p: &[f32], seed: u64) -> Vec<u32> {
        let logits: Vec<f32> = p.iter().map(|p| p.ln()).collect();
        let mut c = Candidates::new(&logits).unwrap();
        stage.apply(&mut c, &[], &SeededRng { seed, step: 0 });
        c.order_top(usize::MAX);
        c.as_slice().iter().map(|c| c.id).collect()
    }

    #[test]
    fn by_hand() {
        let p = [0.1, 0.4, 0.2, 0.3];
        let xtc = |threshold, min_keep| Xtc { probability: 1.0, threshold, min_keep };
        assert_eq!(left(xtc(0.15, 0), &p, 1), [2, 0]);
        assert_eq!(left(xtc(0.25, 0), &p, 1), [3, 2, 0]);
        assert_eq!(left(xtc(0.35, 0), &p, 1), [1, 3, 2, 0], "one top choice alone stays");
        assert_eq!(left(xtc(0.15, 3), &p, 1), [1, 3, 2, 0], "would leave too few");
        assert_eq!(left(xtc(0.0, 0), &p, 1), [0], "everything is a top choice");
    }

    #[test]
    fn acts_as_often_as_asked() {
        let xtc = || Xtc { probability: 0.3, threshold: 0.15, min_keep: 0 };
        let acted = (0..2000).filter(|&seed| left(xtc(), &[0.5, 0.5], seed).len() == 1).count();
        assert!((540..660).contains(&acted), "{acted} of 2000");
    }
}
