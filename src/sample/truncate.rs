//! The stages that cut the tail off: top-n-sigma, top-k, locally typical, top-p, min-p.

use super::math::ln;
use super::{Candidates, SeededRng, Stage};

/// Bans tokens whose logit lies more than `n` standard deviations below the highest.
/// They stay in the list, as in llama.cpp: the dynamic temperature and `min_keep` count them.
/// Source: arXiv 2411.07641.
#[derive(Debug)]
pub(super) struct TopNSigma {
    /// Standard deviations, above 0.
    pub n: f32,
}

impl Stage for TopNSigma {
    fn name(&self) -> &'static str {
        "top_n_sigma"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], _dice: &SeededRng) {
        let finite = || candidates.as_slice().iter().map(|c| c.logit as f64).filter(|l| *l != f64::NEG_INFINITY);
        let count = finite().count() as f64;
        if count == 0.0 {
            return;
        }
        let mean = finite().sum::<f64>() / count;
        let deviation = (finite().map(|l| (l - mean) * (l - mean)).sum::<f64>() / count).sqrt();
        let floor = (candidates.max_logit() as f64 - self.n as f64 * deviation) as f32;
        candidates.map_in_order(|logit| if logit < floor { f32::NEG_INFINITY } else { logit });
    }
}

/// Keeps the `k` highest logits.
#[derive(Debug)]
pub(super) struct TopK {
    /// Tokens to keep, at least 1.
    pub k: usize,
}

impl Stage for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], _dice: &SeededRng) {
        candidates.keep_top(self.k);
    }

    fn keeps_top(&self) -> Option<usize> {
        Some(self.k)
    }
}

/// Keeps the most probable tokens until they hold `p` of the probability. Source: arXiv 1904.09751.
#[derive(Debug)]
pub(super) struct TopP {
    /// Probability to hold, in [0, 1).
    pub p: f32,
    /// Fewest tokens to keep.
    pub min_keep: usize,
}

impl Stage for TopP {
    fn name(&self) -> &'static str {
        "top_p"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], _dice: &SeededRng) {
        candidates.softmax();
        // On an unordered vocabulary: a few hundred tokens usually hold the mass, so ask for more only when needed.
        let mut ordered = 0;
        let mut held = 0.0;
        for i in 0..candidates.len() {
            if i == ordered {
                ordered = (ordered * 4).max(256);
                candidates.order_top(ordered);
            }
            held += candidates.as_slice()[i].p as f64;
            if held >= self.p as f64 && i + 1 >= self.min_keep {
                return candidates.truncate(i + 1);
            }
        }
    }
}

/// Keeps tokens at least `p` times as probable as the most probable. Source: arXiv 2407.01082.
#[derive(Debug)]
pub(super) struct MinP {
    /// Share of the highest probability, in (0, 1].
    pub p: f32,
    /// Fewest tokens to keep.
    pub min_keep: usize,
}

impl Stage for MinP {
    fn name(&self) -> &'static str {
        "min_p"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], _dice: &SeededRng) {
        // p_i >= p · p_max in logits, which spares the softmax.
        let floor = candidates.max_logit() + ln(self.p as f64) as f32;
        candidates.keep_logits_from(floor, self.min_keep);
    }
}

/// Keeps tokens whose surprise is nearest to the expected one (the entropy) until they hold `p` of the probability.
/// Source: arXiv 2202.00666.
#[derive(Debug)]
pub(super) struct Typical {
    /// Probability to hold, in [0, 1).
    pub p: f32,
    /// Fewest tokens to keep.
    pub min_keep: usize,
    /// Per candidate its distance from the entropy and its index, reused from token to token.
    scores: Vec<(f64, u32)>,
    kept: Vec<u32>,
}

impl Typical {
    /// Holds `p` of the probability, and at least `min_keep` tokens.
    pub fn new(p: f32, min_keep: usize) -> Self {
        Typical { p, min_keep, scores: Vec::new(), kept: Vec::new() }
    }
}

impl Stage for Typical {
    fn name(&self) -> &'static str {
        "typ_p"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], _dice: &SeededRng) {
        candidates.order_top(usize::MAX);
        candidates.softmax();
        let entropy = entropy(candidates);
        let items = candidates.as_slice();
        self.scores.clear();
        self.scores.extend(items.iter().zip(0..).map(|(c, i)| ((-ln(c.p as f64) - entropy).abs(), i)));
        self.scores.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        self.kept.clear();
        let mut held = 0.0;
        for &(_, i) in &self.scores {
            self.kept.push(i);
            held += items[i as usize].p as f64;
            if held > self.p as f64 && self.kept.len() >= self.min_keep {
                break;
            }
        }
        // llama.cpp leaves them in the order of their scores; the set is the same, and this one needs no new sort.
        self.kept.sort_unstable();
        candidates.keep_indices(&self.kept);
    }
}

/// −Σ p ln p in nats, as of the last softmax.
pub(super) fn entropy(candidates: &Candidates) -> f64 {
    let items = candidates.as_slice().iter().map(|c| c.p as f64);
    items.filter(|&p| p > 0.0).map(|p| -p * ln(p)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RNG: SeededRng = SeededRng { seed: 0, step: 0 };

    /// Ids that `stage` leaves in the running of tokens with these probabilities.
    fn left(mut stage: impl Stage, p: &[f32]) -> Vec<u32> {
        let logits: Vec<f32> = p.iter().map(|p| p.ln()).collect();
        let mut c = Candidates::new(&logits).unwrap();
        stage.apply(&mut c, &[], &RNG);
        c.order_top(usize::MAX);
        c.as_slice().iter().filter(|c| c.logit > f32::NEG_INFINITY).map(|c| c.id).collect()
    }

    #[test]
    fn by_hand() {
        let p = [0.1, 0.4, 0.2, 0.3];
        assert_eq!(left(TopK { k: 2 }, &p), [1, 3]);
        assert_eq!(left(TopP { p: 0.69, min_keep: 0 }, &p), [1, 3]);
        assert_eq!(left(TopP { p: 0.71, min_keep: 0 }, &p), [1, 3, 2]);
        assert_eq!(left(TopP { p: 0.0, min_keep: 0 }, &p), [1]);
        assert_eq!(left(TopP { p: 0.0, min_keep: 3 }, &p), [1, 3, 2]);
        assert_eq!(left(TopP { p: 0.0, min_keep: 9 }, &p), [1, 3, 2, 0]);
        assert_eq!(left(MinP { p: 0.74, min_keep: 0 }, &p), [1, 3]);
        assert_eq!(left(MinP { p: 0.76, min_keep: 0 }, &p), [1]);
        assert_eq!(left(MinP { p: 0.76, min_keep: 2 }, &p), [1, 3]);
        // Entropy 1.28 nats; surprises 2.30, 0.92, 1.61, 1.20: token 3 is the most typical, then 2, then 1.
        assert_eq!(left(Typical::new(0.25, 1), &p), [3]);
        assert_eq!(left(Typical::new(0.45, 1), &p), [3, 2]);
        assert_eq!(left(Typical::new(0.25, 3), &p), [1, 3, 2]);
        assert_eq!(left(Typical::new(0.95, 1), &p), [1, 3, 2, 0]);
        // Logits: deviation 0.51 around the highest at -0.92, so 1 sigma reaches -1.43 = ln 0.24.
        assert_eq!(left(TopNSigma { n: 1.0 }, &p), [1, 3]);
    }

    /// A vocabulary of banned tokens with one or two alive must not become NaN anywhere.
    #[test]
    fn banned_tokens_are_harmless() {
        let p = [0.0, 0.6, 0.0, 0.4, 0.0];
        assert_eq!(left(TopNSigma { n: 5.0 }, &p), [1, 3]);
        assert_eq!(left(TopP { p: 0.99, min_keep: 0 }, &p), [1, 3]);
        assert_eq!(left(MinP { p: 0.05, min_keep: 4 }, &p), [1, 3]);
        assert_eq!(left(Typical::new(0.99, 1), &p), [1, 3]);
        assert_eq!(left(Typical::new(0.3, 1), &p), [1]);
    }

    /// Long enough for several rounds of ordering.
    #[test]
    fn top_p_over_a_flat_vocabulary() {
        let p = vec![1.0 / 5000.0; 5000];
        let kept = left(TopP { p: 0.8, min_keep: 0 }, &p);
        assert!((3999..=4001).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept, (0..kept.len() as u32).collect::<Vec<_>>());
    }
}
