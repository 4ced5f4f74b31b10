//! Logit bias, and penalties on tokens seen lately.

use super::tally::Tally;
use super::{Candidates, SeededRng, Stage};

/// Adds a fixed number to the logits of some tokens; -inf bans one.
#[derive(Debug)]
pub(super) struct LogitBias {
    /// Ascending by id, one entry each.
    ids: Vec<u32>,
    bias: Vec<f32>,
}

impl LogitBias {
    /// Several entries for one token add up.
    pub fn new(pairs: &[(u32, f32)]) -> Self {
        let mut sorted = pairs.to_vec();
        sorted.sort_by_key(|&(id, _)| id);
        let mut stage = LogitBias { ids: Vec::new(), bias: Vec::new() };
        for (id, bias) in sorted {
            if stage.ids.last() == Some(&id) {
                *stage.bias.last_mut().expect("one per id") += bias;
            } else {
                stage.ids.push(id);
                stage.bias.push(bias);
            }
        }
        stage
    }
}

impl Stage for LogitBias {
    fn name(&self) -> &'static str {
        "logit_bias"
    }

    fn apply(&mut self, candidates: &mut Candidates, _text: &[u32], _dice: &SeededRng) {
        let find = |id: u32| self.ids.binary_search(&id).ok();
        candidates.map_ids(&self.ids, |id| find(id).is_some(), |id, logit| logit + self.bias[find(id).expect("named")]);
    }
}

/// Repetition, frequency and presence penalties over the last tokens.
///
/// logit' = (logit > 0 ? logit / repeat : logit · repeat) − count · frequency − presence, for every token that occurs.
/// Sources: CTRL (arXiv 1909.05858) for the division; it raised negative logits, hence the product for those.
#[derive(Debug)]
pub(super) struct Penalties {
    /// 1 is off.
    pub repeat: f32,
    /// 0 is off.
    pub frequency: f32,
    /// 0 is off.
    pub presence: f32,
    last_n: usize,
    counts: Tally,
}

impl Penalties {
    /// Looks at the last `last_n` tokens; ids of candidates are below `tokens`.
    pub fn new(tokens: usize, last_n: usize, repeat: f32, frequency: f32, presence: f32) -> Self {
        Penalties { repeat, frequency, presence, last_n, counts: Tally::new(tokens) }
    }
}

impl Stage for Penalties {
    fn name(&self) -> &'static str {
        "penalties"
    }

    fn apply(&mut self, candidates: &mut Candidates, text: &[u32], _dice: &SeededRng) {
        self.counts.clear();
        for &id in latest(text, self.last_n) {
            self.counts.update(id, |count| count + 1);
        }
        self.counts.edit(candidates, |_, count, logit| {
            let scaled = if logit <= 0.0 { logit * self.repeat } else { logit / self.repeat };
            // Bounded: -inf minus -inf would be a NaN.
            scaled - (count as f32 * self.frequency + self.presence).clamp(f32::MIN, f32::MAX)
        });
    }
}

/// The newest `n` tokens of a text.
pub(super) fn latest(text: &[u32], n: usize) -> &[u32] {
    &text[text.len().saturating_sub(n)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const RNG: SeededRng = SeededRng { seed: 0, step: 0 };

    fn logits_after(stage: &mut impl Stage, text: &[u32], logits: &[f32]) -> Vec<f32> {
        let mut c = Candidates::new(logits).unwrap();
        stage.apply(&mut c, text, &RNG);
        c.as_slice().iter().map(|c| c.logit).collect()
    }

    #[test]
    fn penalties_by_hand() {
        let mut stage = Penalties::new(4, 3, 2.0, 0.25, 0.5);
        // Token 3 falls out of the window of three; 70 is no candidate.
        let logits = [1.0, 4.0, -1.0, 8.0];
        let mut text = vec![3, 1, 70, 1];
        assert_eq!(logits_after(&mut stage, &text, &logits), [1.0, 4.0 / 2.0 - 2.0 * 0.25 - 0.5, -1.0, 8.0]);
        text.extend([2, 2]);
        // 1, 2, 2 are left; a negative logit is multiplied.
        assert_eq!(logits_after(&mut stage, &text, &logits), [1.0, 1.25, -2.0 - 0.5 - 0.5, 8.0]);
        // What has left the text has left no trace.
        assert_eq!(logits_after(&mut stage, &[], &logits), logits);
    }

    #[test]
    fn biases_of_one_token_add_up_and_bans_hold() {
        let mut stage = LogitBias::new(&[(2, 1.0), (0, f32::NEG_INFINITY), (2, 0.5), (0, 5.0)]);
        assert_eq!(logits_after(&mut stage, &[], &[1.0, 1.0, 1.0]), [f32::NEG_INFINITY, 1.0, 2.5]);
    }

    #[test]
    fn sums_beyond_f32_stay_finite() {
        let mut stage = LogitBias::new(&[(0, f32::MAX)]);
        assert_eq!(logits_after(&mut stage, &[], &[f32::MAX, 0.0]), [f32::MAX, 0.0]);
        let mut stage = Penalties::new(2, 4, 1e-30, -3e38, -3e38);
        assert_eq!(logits_after(&mut stage, &[0, 0], &[1e30, 0.0]), [f32::MAX, 0.0]);
        assert_eq!(logits_after(&mut stage, &[0, 0], &[f32::NEG_INFINITY, 0.0]), [f32::NEG_INFINITY, 0.0]);
    }
}
