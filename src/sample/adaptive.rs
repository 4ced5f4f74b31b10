//! Adaptive-p: a draw that favours tokens whose probability is near a target, and steers the mean there over time.
//!
//! Each logit becomes peak − sharpness · d² / (1 + d) with d = |p − target'| / width: quadratic near the target, linear
//! far from it. target' = 2 target − mean, with the mean of the drawn tokens' probabilities decaying by `decay` per
//! token; it starts at the target, as after 1 / (1 − decay) tokens that hit it. Source: llama.cpp's adaptive-p.

use super::draw::draw;
use super::{Candidates, SeededRng, Stage};

const WIDTH: f32 = 0.3;
const PEAK: f32 = 5.0;
const SHARPNESS: f32 = 10.0;

/// Draws near a target probability.
#[derive(Debug)]
pub(super) struct AdaptiveP {
    target: f32,
    decay: f32,
    /// Σ p decayⁱ and Σ decayⁱ over the accepted tokens, newest first.
    weighted: f32,
    weight: f32,
    /// The drawn token and its probability before the transformation, until it is accepted.
    pending: Option<(u32, f32)>,
    /// Probabilities before the transformation, reused from token to token.
    before: Vec<f32>,
}

impl AdaptiveP {
    /// `target` in [0, 1], `decay` in [0, 0.99].
    pub fn new(target: f32, decay: f32) -> Self {
        let weight = 1.0 / (1.0 - decay);
        AdaptiveP { target, decay, weighted: target * weight, weight, pending: None, before: Vec::new() }
    }
}

impl Stage for AdaptiveP {
    fn name(&self) -> &'static str {
        "adaptive_p"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], rng: &SeededRng) {
        candidates.softmax();
        let near = (2.0 * self.target - self.weighted / self.weight).clamp(0.0, 1.0);
        self.before.clear();
        self.before.extend(candidates.as_slice().iter().map(|c| c.p));
        candidates.map(|c| {
            let d = (c.p - near).abs() / WIDTH;
            if c.logit == f32::NEG_INFINITY { c.logit } else { PEAK - SHARPNESS * d * d / (1.0 + d) }
        });
        candidates.softmax();
        draw(candidates, rng);
        let index = candidates.selected_index();
        self.pending = index.map(|i| (candidates.as_slice()[i].id, self.before[i]));
    }

    fn accept(&mut self, token: u32) {
        // A token that was forced says nothing about the drawing.
        if let Some((drawn, p)) = self.pending.take()
            && drawn == token
        {
            self.weighted = p + self.decay * self.weighted;
            self.weight = 1.0 + self.decay * self.weight;
        }
    }

    fn reset(&mut self) {
        *self = AdaptiveP { before: std::mem::take(&mut self.before), ..AdaptiveP::new(self.target, self.decay) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tokens of probabilities 0.9 and 0.1, target 0.9: d = 0 and 0.8 / 0.3, logits 5 and -14.39.
    #[test]
    fn transformation_by_hand() {
        let mut stage = AdaptiveP::new(0.9, 0.5);
        let mut c = Candidates::new(&[0.9f32.ln(), 0.1f32.ln(), f32::NEG_INFINITY]).unwrap();
        stage.apply(&mut c, &[], &SeededRng { seed: 1, step: 0 });
        let logits: Vec<f32> = c.as_slice().iter().map(|c| c.logit).collect();
        assert!((logits[0] - 5.0).abs() < 1e-4 && (logits[1] + 14.3939).abs() < 1e-3, "{logits:?}");
        assert_eq!(logits[2], f32::NEG_INFINITY);
        assert_eq!(c.selected().unwrap().id, 0);
        stage.accept(0);
        // Σ p decayⁱ = 0.9 + 0.5 · 1.8, Σ decayⁱ = 1 + 0.5 · 2.
        assert!((stage.weighted - 1.8).abs() < 1e-6 && (stage.weight - 2.0).abs() < 1e-6, "{stage:?}");
    }

    #[test]
    fn only_its_own_draws_count() {
        let mut stage = AdaptiveP::new(0.5, 0.5);
        let mut c = Candidates::new(&[3.0, 0.0]).unwrap();
        stage.apply(&mut c, &[], &SeededRng { seed: 1, step: 0 });
        let drawn = c.selected().unwrap().id;
        stage.accept(1 - drawn);
        stage.accept(drawn);
        assert_eq!((stage.weighted, stage.weight), (1.0, 2.0));
        let mut c = Candidates::new(&[3.0, 0.0]).unwrap();
        stage.apply(&mut c, &[], &SeededRng { seed: 1, step: 1 });
        stage.accept(c.selected().unwrap().id);
        assert_ne!(stage.weighted, 1.0);
        stage.reset();
        assert_eq!((stage.weighted, stage.weight), (1.0, 2.0));
    }

    /// What it promises: the mean probability of the drawn tokens comes near the target, once a min-p or the
    /// like has cut the long tail off.
    #[test]
    fn mean_probability_is_near_the_target() {
        let logits: Vec<f32> = (0..8).map(|i| 6.0 - 0.35 * i as f32).collect();
        for target in [0.1, 0.2] {
            let mut stage = AdaptiveP::new(target, 0.9);
            let mut sum = 0.0;
            for step in 0..2000 {
                let mut c = Candidates::new(&logits).unwrap();
                stage.apply(&mut c, &[], &SeededRng { seed: 1, step });
                sum += stage.pending.unwrap().1 as f64;
                stage.accept(c.selected().unwrap().id);
            }
            assert!((sum / 2000.0 - target as f64).abs() < 0.04, "target {target}: {}", sum / 2000.0);
        }
    }
}
