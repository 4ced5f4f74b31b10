//! How a session is set up: what a plan is made for, and what an engine is made by.

use super::DeviceMap;
use crate::arch::{Batch, Cells, Spec};
use crate::base::{DType, Role};
use crate::ops::{CacheTypes, Sample, places_len};
use crate::quant::Precision;

/// Rows at whose multiples pieces of prompts begin on a GPU: the most that a tile of attention has.
pub const PIECE_ROWS: usize = 16;
/// Answers that are computed together, at the most; more take turns.
const MOST_OUTPUTS: usize = 64;

/// How a session is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tokens of context, of each sequence: prompt and answer together.
    pub context: usize,
    /// Sequences that a batcher computes at a time, at the most; 0 for a session, which is one alone.
    pub sequences: usize,
    /// Tokens that the caches hold for all sequences together, at the most; `None` for a whole context of each. One context is always held.
    pub pool: Option<usize>,
    /// Whether layers with a window keep all tokens, not only those that they see.
    pub swa_full: bool,
    /// Tokens that one prefill batch takes at most (`-ub`).
    pub batch: usize,
    /// Types of the KV cache.
    pub kv: CacheTypes,
    /// Threads on the CPU; 0 for as many as this process may use.
    pub threads: usize,
    /// Layers on the GPU, if no device map is given; `None` for all.
    pub gpu_layers: Option<usize>,
    /// What runs where: see [`DevicePlan`](super::fit::DevicePlan).
    pub device_map: Option<DeviceMap>,
    /// To what the CPU rounds a prompt's activations. `None` leaves it to the model's width: see [`Precision::for_width`].
    pub precision: Option<Precision>,
    /// To what devices may round the activations of an answer, which is computed token by token: [`Precision::Sixteen`] is as good as f32,
    /// [`Precision::Eight`] keeps outliers.
    pub answer_precision: Precision,
    /// Bytes of system memory: where the GPU fails for good and the rest of the model would not fit, the session ends. `None` where
    /// nobody tells.
    pub system_memory: Option<u64>,
    /// Whether to note when each op ran, for a profile.
    pub trace: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            context: 4096,
            sequences: 0,
            pool: None,
            swa_full: false,
            batch: 512,
            kv: DType::F16.into(),
            threads: 0,
            gpu_layers: None,
            device_map: None,
            precision: None,
            answer_precision: Precision::Sixteen,
            system_memory: None,
            trace: false,
        }
    }
}

impl Options {
    /// The caches of a model.
    pub fn cells(&self, spec: &Spec) -> Cells {
        let sequences = self.sequences.max(1);
        let all = (sequences * self.context).min(self.pool.unwrap_or(usize::MAX)).max(self.context);
        let cells = Cells::of(spec, sequences, all, self.context, self.prompt_rows());
        if self.swa_full { cells.without_windows() } else { cells }
    }

    /// The shape of a run with these caches.
    pub fn shape(&self, cells: Cells, role: Role, tokens: usize, rows: usize, sample: bool) -> Batch {
        Batch { role, tokens, rows, context: self.context, pool: cells, kv: self.kv, sample }
    }

    /// The most rows of logits that are computed together.
    pub fn outputs(&self) -> usize {
        // A request may have several answers.
        if self.sequences > 0 { MOST_OUTPUTS } else { 1 }
    }

    /// The most tokens of a prompt that are computed together.
    pub fn prompt_rows(&self) -> usize {
        self.batch.min(self.context).max(1)
    }

    /// What prompts are computed as.
    pub fn prompt_role(&self) -> Role {
        if self.sequences > 0 { Role::Piece } else { Role::Prompt }
    }

    /// Rows of a run on a GPU with so many of pieces of prompts: runs have one of few sizes, and at least those of a tile of attention.
    pub fn piece_rows(&self, rows: usize) -> usize {
        rows.next_multiple_of((rows.next_power_of_two() / 8).max(PIECE_ROWS))
    }

    /// Words of the largest input of a run.
    pub fn input_words(&self, cells: &Cells) -> usize {
        let rows = self.piece_rows(self.batch.max(self.outputs()).max(8));
        places_len(rows, cells.groups(), cells.table).max(Sample::PARAMS * self.outputs())
    }
}
