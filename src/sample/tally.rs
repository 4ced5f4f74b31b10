//! A number per token id, of which few are set: counts of repeats, lengths of repetitions.

use super::Candidates;

/// A table by token id that clears in the time of what was set, not of the vocabulary.
#[derive(Debug)]
pub(super) struct Tally {
    /// By id; 0 if nothing is set.
    values: Vec<u32>,
    /// The ids with a value, each once.
    ids: Vec<u32>,
}

impl Tally {
    /// For ids below `tokens`.
    pub fn new(tokens: usize) -> Self {
        Tally { values: vec![0; tokens], ids: Vec::new() }
    }

    /// Sets everything to 0.
    pub fn clear(&mut self) {
        for id in self.ids.drain(..) {
            self.values[id as usize] = 0;
        }
    }

    /// Replaces a token's value by `f` of it, which must not be 0. An id outside the vocabulary is passed over: it is
    /// never a candidate.
    pub fn update(&mut self, id: u32, f: impl FnOnce(u32) -> u32) {
        let Some(value) = self.values.get_mut(id as usize) else { return };
        if *value == 0 {
            self.ids.push(id);
        }
        *value = f(*value);
        debug_assert_ne!(*value, 0, "a value of 0 means unset");
    }

    /// Gives each token with a value the logit `f(id, value, logit)`.
    pub fn edit(&self, candidates: &mut Candidates, mut f: impl FnMut(u32, u32, f32) -> f32) {
        let value = |id: u32| self.values.get(id as usize).copied().unwrap_or(0);
        candidates.map_ids(&self.ids, |id| value(id) != 0, |id, logit| f(id, value(id), logit));
    }
}
