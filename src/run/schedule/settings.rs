//! What a scheduler is told once.

use std::time::Duration;

/// Limits and targets of a scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The most sequences that run at a time. If layers have state per sequence, the pool's slots limit them too.
    pub sequences: usize,
    /// The most sequences that wait, preempted ones and choices among them; further requests are refused.
    pub queue: usize,
    /// The most items of a sequence, prompt and answer together. At most what the pool holds is used.
    pub context: usize,
    /// The most answer rows of a step.
    pub answer_rows: usize,
    /// The most prompt rows of a step, the physical batch.
    pub prompt_rows: usize,
    /// The most tokens that one step draws; also the most choices of a request.
    pub outputs: usize,
    /// How long a step may take while tokens are being drawn: it limits the prompt rows beside them.
    pub step_time: Duration,
    /// Prompt rows that are computed in a second, as measured before; steps correct it.
    pub prompt_speed: f64,
    /// Items of a long prompt after which a snapshot is taken, if layers forget; 0: only at the end.
    pub snapshot_interval: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            sequences: 32,
            queue: usize::MAX,
            context: usize::MAX,
            answer_rows: 64,
            prompt_rows: 512,
            outputs: 128,
            step_time: Duration::from_millis(100),
            prompt_speed: 1000.0,
            snapshot_interval: 4096,
        }
    }
}

impl Settings {
    /// With at least one of what must be there.
    pub(super) fn clamped(self) -> Self {
        Settings {
            sequences: self.sequences.max(1),
            context: self.context.max(1),
            answer_rows: self.answer_rows.max(1),
            prompt_rows: self.prompt_rows.max(1),
            outputs: self.outputs.clamp(1, u32::MAX as usize),
            ..self
        }
    }
}
