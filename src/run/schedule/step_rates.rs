//! How many prompt rows a step may have while others wait for their next token.

use super::step::Step;
use std::time::Duration;

/// Numbers of prompt rows for which engines keep programs.
const SIZES: [usize; 6] = [16, 32, 64, 128, 256, 512];

/// How much a new measurement counts beside those before.
const WEIGHT: f64 = 0.2;

/// How fast steps are, as moving averages.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepRates {
    /// Prompt rows per second.
    prompt: f64,
    /// Seconds of a step with answer rows only; 0 before the first.
    answers: f64,
}

impl StepRates {
    /// Starts from a measured speed, in prompt rows per second.
    pub fn new(prompt: f64) -> Self {
        StepRates { prompt: if prompt.is_finite() { prompt.max(0.0) } else { 0.0 }, answers: 0.0 }
    }

    /// Counts a step that took `took`. In a step with both kinds of rows, the time of the answer rows is taken off. Pieces
    /// smaller than the smallest size say little, and are not counted.
    pub fn measure(&mut self, step: &Step, took: Duration) {
        let (took, prompt) = (took.as_secs_f64(), step.prompt_items.len());
        if took <= 0.0 {
            return;
        }
        if prompt == 0 {
            let first = self.answers == 0.0;
            self.answers = if first { took } else { average(self.answers, took) };
        } else if prompt >= SIZES[0] {
            // Answers take a part of a mixed step, but hardly all of it: what is left must not be nothing.
            let others = if step.answers.is_empty() { 0.0 } else { self.answers.min(0.75 * took) };
            self.prompt = average(self.prompt, prompt as f64 / (took - others));
        }
    }

    /// The most prompt rows of a step of `time` while tokens are being drawn, at most `most`.
    pub fn budget(&self, time: Duration, most: usize) -> usize {
        let rows = (self.prompt * time.as_secs_f64()) as usize;
        let fits = SIZES.iter().rev().find(|size| **size <= rows.min(most));
        fits.copied().unwrap_or(SIZES[0]).min(most)
    }
}

fn average(before: f64, new: f64) -> f64 {
    before + WEIGHT * (new - before)
}
