//! What a batcher needs of an engine.

use crate::base::{Error, Result};
use crate::ops::{SampleParams, Threads};
use crate::run::schedule::Step;
use crate::state::Pool;

/// Where the token of an output is drawn, and how.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Draw {
    /// On the device, by these parameters. The number of the draw is the token's in its answer: see [`crate::ops::DrawNumber`].
    Device(SampleParams),
    /// On the host: it needs the row's logits.
    Host,
}

/// What a step returns.
#[derive(Debug, Default)]
pub struct Results {
    /// A token for each output of the step, in their order. That of a [`Draw::Host`] means nothing.
    pub tokens: Vec<u32>,
    /// Logits `[n, vocab]`: a row for each output with [`Draw::Host`], in their order, also if several have one row of the step.
    pub logits: Vec<f32>,
}

impl Results {
    /// Makes it empty, with its memory.
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.logits.clear();
    }
}

/// What computes steps: the engine; in tests a stand-in.
///
/// Steps are submitted in the order in which they were planned, and finished in the same order. At most two are submitted and not
/// finished.
// One thread drives an engine, so nobody needs to know whether its futures are `Send`.
#[allow(async_fn_in_trait)]
pub trait Compute {
    /// A step that was submitted and whose results are not read yet. It is dropped unread if the device is lost.
    type Pending;

    /// Whether the next step is worth planning before this one is finished. False if `runs_ahead` never holds: what a token decides,
    /// such as the end of its answer, is then known to the next step.
    fn plans_ahead(&self) -> bool {
        true
    }

    /// Whether `next` may be submitted before the tokens that `before` draws are read. Both are planned, and `before` is submitted;
    /// it draws all its tokens on the device.
    fn runs_ahead(&self, before: &Step, next: &Step) -> bool;

    /// Submits a step. Its tables are those that `pool` has now. `draws` has an entry for each of its outputs.
    ///
    /// `drawn` has the tokens of the step before, one for each of its outputs, if they were read although this step was planned
    /// before: then rows with [`TokenSource::Device`](crate::run::schedule::TokenSource::Device) take theirs from it. All are in the
    /// vocabulary. `None`: the step before holds them on the device, or this step needs none of them.
    async fn submit(
        &mut self,
        step: &Step,
        pool: &Pool,
        draws: &[Draw],
        drawn: Option<&[u32]>,
    ) -> Result<Self::Pending>;

    /// Waits for a step and appends its results to `results`, which is empty.
    async fn finish(&mut self, pending: Self::Pending, results: &mut Results) -> Result<()>;

    /// Is called if `submit` or `finish` returned `error`. Ok if other devices have taken over: no cell, slot or step of before counts
    /// from then on. An error is final.
    async fn recover(&mut self, error: Error) -> Result<()>;

    /// Threads for drawing tokens on the host. `None`: the caller draws them one by one.
    fn threads(&self) -> Option<&dyn Threads> {
        None
    }
}
