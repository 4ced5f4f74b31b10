//! Log-probabilities of a drawn token and of the likeliest ones.

use super::event::TokenLogprobs;

impl TokenLogprobs {
    /// Those of `token` and of the `top` likeliest, by `logits` `[vocab]`, which hold neither NaN nor +∞.
    pub(super) fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let max = logits.iter().fold(f32::NEG_INFINITY, |max, logit| max.max(*logit)) as f64;
        let sum: f64 = logits.iter().map(|logit| (*logit as f64 - max).exp()).sum();
        let log_sum = max + sum.ln();
        // A comparison that also replaces NaN.
        let logprob = |logit: f32| (logit as f64 - log_sum).max(Self::LEAST);
        let chosen = logits.get(token as usize).map_or(Self::LEAST, |logit| logprob(*logit));
        let top = likeliest(logits, top).into_iter().map(|(id, logit)| (id, logprob(logit))).collect();
        TokenLogprobs { chosen, top }
    }
}

/// The `n` highest logits with their tokens, in order.
fn likeliest(logits: &[f32], n: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(n + 1);
    for (id, &logit) in logits.iter().enumerate() {
        if best.len() == n && best.last().is_none_or(|worst| logit <= worst.1) {
            continue;
        }
        let at = best.partition_point(|better| better.1 >= logit);
        best.insert(at, (id as u32, logit));
        best.truncate(n);
    }
    best
}
