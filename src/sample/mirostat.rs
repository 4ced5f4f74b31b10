//! Mirostat 1 and 2: hold the surprise of the text near a target. They take the place of the whole chain.
//!
//! Both keep a bound `mu` on the surprise (bits), start it at twice the target and move it after each token by
//! `eta · (observed − tau)`. Source: arXiv 2007.14966.

use super::draw::draw;
use super::math::{exp, ln, log2, pow};
use super::{Candidates, SeededRng, Stage};

/// The bound and how it moves.
#[derive(Debug)]
struct Bound {
    tau: f32,
    eta: f32,
    mu: f32,
}

impl Bound {
    fn new(tau: f32, eta: f32) -> Self {
        Bound { tau, eta, mu: 2.0 * tau }
    }

    /// Draws a token of what is left and moves the bound.
    fn draw(&mut self, candidates: &mut Candidates, rng: &SeededRng) {
        candidates.softmax();
        if let Some(p) = draw(candidates, rng) {
            let observed = -log2(p as f64) as f32;
            self.mu -= self.eta * (observed - self.tau);
        }
    }
}

/// Version 1: estimates the exponent of Zipf's law from the most probable tokens, and from it a k for top-k.
#[derive(Debug)]
pub(super) struct MirostatV1 {
    bound: Bound,
    /// Size of the vocabulary.
    tokens: usize,
}

impl MirostatV1 {
    /// Tokens the exponent is estimated from; llama.cpp's fixed m.
    const SHAPE: usize = 100;

    pub fn new(tokens: usize, tau: f32, eta: f32) -> Self {
        MirostatV1 { bound: Bound::new(tau, eta), tokens }
    }

    /// k = (ε 2^mu / (1 − N^−ε)) ^ (1/s), with s the least-squares exponent of the best tokens and ε = s − 1.
    fn k(&self, candidates: &Candidates) -> usize {
        let best = candidates.as_slice().iter().map(|c| c.p as f64).take(Self::SHAPE).take_while(|&p| p > 0.0);
        let (mut tb, mut tt, mut above) = (0.0, 0.0, None);
        for (p, rank) in best.zip(1..) {
            if let Some(above) = above {
                let t = ln(rank as f64 / (rank - 1) as f64);
                tb += t * ln(above / p);
                tt += t * t;
            }
            above = Some(p);
        }
        if tt == 0.0 {
            return 1;
        }
        let s = tb / tt;
        let (epsilon, mu, n) = (s - 1.0, self.bound.mu as f64, self.tokens as f64);
        // As ε → 0 the fraction tends to 2^mu / ln N; evaluated there it would be 0 / 0.
        let fraction = if epsilon.abs() < 1e-9 { 1.0 / ln(n) } else { epsilon / (1.0 - pow(n, -epsilon)) };
        // A flat distribution has s = 0: the k is unbounded, which the cast turns into the largest number.
        let k = pow(fraction * exp(mu * std::f64::consts::LN_2), 1.0 / s);
        (k as usize).max(1)
    }
}

impl Stage for MirostatV1 {
    fn name(&self) -> &'static str {
        "mirostat"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], rng: &SeededRng) {
        candidates.order_top(Self::SHAPE);
        candidates.softmax();
        candidates.keep_top(self.k(candidates));
        self.bound.draw(candidates, rng);
    }

    fn reset(&mut self) {
        self.bound = Bound::new(self.bound.tau, self.bound.eta);
    }
}

/// Version 2: drops every token more surprising than the bound.
#[derive(Debug)]
pub(super) struct MirostatV2 {
    bound: Bound,
}

impl MirostatV2 {
    pub fn new(tau: f32, eta: f32) -> Self {
        MirostatV2 { bound: Bound::new(tau, eta) }
    }
}

impl Stage for MirostatV2 {
    fn name(&self) -> &'static str {
        "mirostat_v2"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], rng: &SeededRng) {
        candidates.softmax();
        // −log2 p > mu, without a logarithm per token of the vocabulary; p counts from 0 if mu is large.
        let least = exp(-self.bound.mu as f64 * std::f64::consts::LN_2) as f32;
        candidates.order_top(1);
        let kept = candidates.as_slice().iter().filter(|c| c.p >= least).count();
        candidates.keep_top(kept);
        self.bound.draw(candidates, rng);
    }

    fn reset(&mut self) {
        self.bound = Bound::new(self.bound.tau, self.bound.eta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zipf's law with exponent `s` over `n` tokens.
    fn zipf(n: u32, s: f32) -> Vec<f32> {
        (1..=n).map(|rank| -s * (rank as f32).ln()).collect()
    }

    /// Mean surprise in bits of 2000 draws, after 400 to settle.
    fn mean_surprise(stage: &mut impl Stage, logits: &[f32]) -> f64 {
        let surprise = |step| {
            let mut c = Candidates::new(logits).unwrap();
            stage.apply(&mut c, &[], &SeededRng { seed: 5, step });
            -(c.selected().unwrap().p as f64).log2()
        };
        (0..2400).map(surprise).skip(400).sum::<f64>() / 2000.0
    }

    /// What they promise. (The surprise is that among the tokens left after truncation, as llama.cpp observes it.)
    #[test]
    fn surprise_is_near_the_target() {
        let logits = zipf(2000, 1.1);
        for tau in [2.0, 3.5, 5.0] {
            let v1 = mean_surprise(&mut MirostatV1::new(2000, tau, 0.1), &logits);
            let v2 = mean_surprise(&mut MirostatV2::new(tau, 0.1), &logits);
            assert!((v1 - tau as f64).abs() < 0.05, "tau {tau}: v1 {v1}");
            assert!((v2 - tau as f64).abs() < 0.05, "tau {tau}: v2 {v2}");
        }
    }

    /// Zipf with s = 1.5 over 1000 tokens and mu = 4: k = (0.5 · 16 / (1 − 1000^−0.5)) ^ (1/1.5) = 4.087.
    #[test]
    fn k_by_hand() {
        let stage = MirostatV1::new(1000, 2.0, 0.1);
        let mut c = Candidates::new(&zipf(1000, 1.5)).unwrap();
        c.order_top(100);
        c.softmax();
        assert_eq!(stage.k(&c), 4);
        // s = 1: 16 / ln 1000 = 2.316; just beside the limit the formula itself agrees.
        for s in [1.0, 1.00001] {
            let mut c = Candidates::new(&zipf(1000, s)).unwrap();
            c.order_top(100);
            c.softmax();
            assert_eq!(stage.k(&c), 2);
        }
    }

    #[test]
    fn degenerate_lists() {
        for logits in [vec![0.0; 300], vec![1.0], vec![f32::NEG_INFINITY, 2.0, f32::NEG_INFINITY]] {
            for stage in [&mut MirostatV1::new(300, 5.0, 0.1) as &mut dyn Stage, &mut MirostatV2::new(5.0, 0.1)] {
                let mut c = Candidates::new(&logits).unwrap();
                stage.apply(&mut c, &[], &SeededRng { seed: 1, step: 2 });
                assert!(c.selected().unwrap().p > 0.0);
            }
        }
    }

    #[test]
    fn the_bound_moves_and_resets() {
        let mut stage = MirostatV2::new(1.0, 0.5);
        let mut c = Candidates::new(&[0.0, -100.0]).unwrap();
        stage.apply(&mut c, &[], &SeededRng { seed: 1, step: 0 });
        // A sure token surprises by 0 bits: mu rises by eta · tau.
        assert_eq!(stage.bound.mu, 2.5);
        stage.reset();
        assert_eq!(stage.bound.mu, 2.0);
    }
}
