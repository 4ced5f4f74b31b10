//! How a session is set up: what a plan is made for, and what an engine is made by.

use super::Placement;
use crate::base::DType;
use crate::ops::CacheTypes;
use crate::quant::Precision;

/// How a session is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Tokens of context: prompt and answer together.
    pub context: usize,
    /// Tokens that one prefill batch takes at most (`-ub`).
    pub batch: usize,
    /// Types of the KV cache.
    pub kv: CacheTypes,
    /// Threads on the CPU; 0 for as many as this process may use.
    pub threads: usize,
    /// Layers on the GPU, where no placement is given; `None` for all.
    pub gpu_layers: Option<usize>,
    /// What runs where: see [`Fit`](super::fit::Fit).
    pub placement: Option<Placement>,
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
            batch: 512,
            kv: DType::F16.into(),
            threads: 0,
            gpu_layers: None,
            placement: None,
            precision: None,
            answer_precision: Precision::Sixteen,
            system_memory: None,
            trace: false,
        }
    }
}
