//! Temperature, fixed or following the entropy.

use super::math::{ln, pow};
use super::truncate::entropy;
use super::{Candidates, SeededRng, Stage};

/// Divides the logits by a temperature; at 0 and below it keeps the highest alone.
///
/// With `range` above 0 the temperature follows the entropy H of the n candidates:
/// max(0, temp − range) … temp + range, by the power (H / ln n) ^ exponent. Source: arXiv 2309.02772.
#[derive(Debug)]
pub(super) struct Temperature {
    /// Temperature; the middle of the range.
    pub temp: f32,
    /// Half the width of the range; 0 for a fixed temperature.
    pub range: f32,
    /// Curve from entropy to temperature; 1 is a straight line.
    pub exponent: f32,
}

impl Temperature {
    fn of(&self, candidates: &mut Candidates) -> f32 {
        if self.range <= 0.0 {
            return self.temp;
        }
        candidates.softmax();
        let share = (entropy(candidates) / ln(candidates.len() as f64)).max(0.0);
        let low = (self.temp - self.range).max(0.0);
        let high = self.temp + self.range;
        low + (high - low) * pow(share, self.exponent as f64) as f32
    }
}

impl Stage for Temperature {
    fn name(&self) -> &'static str {
        "temperature"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], _dice: &SeededRng) {
        if candidates.len() <= 1 {
            return;
        }
        let temp = self.of(candidates);
        // A temperature so low that logits leave f32 is the limit too: the highest alone.
        if temp <= 0.0 || !(candidates.max_logit() / temp).is_finite() {
            candidates.keep_top(1);
        } else {
            candidates.map_in_order(|logit| logit / temp);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(mut stage: Temperature, logits: &[f32]) -> Vec<(u32, f32)> {
        let mut c = Candidates::new(logits).unwrap();
        stage.apply(&mut c, &[], &SeededRng { seed: 0, step: 0 });
        c.as_slice().iter().map(|c| (c.id, c.logit)).collect()
    }

    #[test]
    fn fixed() {
        let fixed = |temp| Temperature { temp, range: 0.0, exponent: 1.0 };
        assert_eq!(after(fixed(0.5), &[1.0, -3.0]), [(0, 2.0), (1, -6.0)]);
        for greedy in [0.0, -1.0, f32::MIN_POSITIVE] {
            assert_eq!(after(fixed(greedy), &[1.0, 7.0, 7.0, 2.0]), [(1, 7.0)]);
        }
    }

    #[test]
    fn dynamic() {
        let stage = || Temperature { temp: 1.0, range: 0.5, exponent: 1.0 };
        // Even odds have all the entropy there is: the upper end. A sure thing has none: the lower end.
        let even = after(stage(), &[3.0, 3.0]);
        assert!((even[0].1 - 2.0).abs() < 1e-6, "{even:?}");
        let sure = after(stage(), &[0.0, -200.0]);
        assert!((sure[1].1 + 400.0).abs() < 1e-3, "{sure:?}");
        // The lower end at 0 is greedy.
        let to_zero = Temperature { temp: 0.5, range: 0.5, exponent: 1.0 };
        assert_eq!(after(to_zero, &[0.0, -2000.0]), [(0, 0.0)]);
    }
}
