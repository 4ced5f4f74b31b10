//! The scheduler: which rows of which requests the next step computes. Books only: no tensor, no device, no thread, no clock.
//!
//! - A **request** is a prompt and one or more **choices**: answers that are drawn apart from each other. Each choice is a
//!   sequence of its own; up to the end of the prompt they are one.
//! - A **step** is one run of the model's graph: first **answer rows**, one for each token that was drawn, then **pieces** of
//!   prompts. What a row is (its role) never changes: a token that was drawn is an answer row again if it has to be computed
//!   a second time.
//! - A request **waits**, or it **runs**: then its sequences are open in the [`Pool`](crate::state::Pool). If pages are short,
//!   the least urgent running sequence is **preempted**: it waits again, and is computed again from what is still cached.
//!
//! What always holds:
//! - Requests are admitted by priority, lower numbers first, then by arrival. Within a priority, prompts of at most 64 rows go before longer
//!   ones, four steps in a row at most.
//! - Every running sequence that can decode has a row in each step, unless rows, outputs or pages are short: then they take turns.
//! - While tokens are being drawn, prompts get as many rows as are computed in the target time of a step.
//! - The tokens of a choice are reported once, in order. Each choice ends once.
//! - To cancel a request, at any moment, changes no row of another.
//!
//! What it does not know: in which role the cells of a cached prefix were computed. Tokens of an earlier answer that stand in a
//! prompt are shared as the answer computed them, and so are those of a preempted answer as a prompt computed them, if one
//! with the same tokens came in between.
//!
//! The loop of an engine. [`Scheduler::plan`] may be called once more before the step before is done: rows then take their token
//! from the device.
//!
//! ```
//! use std::time::Duration;
//! use wgpu_llm::low_level::run::schedule::{Event, Outcome, Request, Scheduler, Settings};
//! use wgpu_llm::low_level::state::{GroupSpec, Item, PoolSpec};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let groups = vec![GroupSpec { window: None, pages: 100 }];
//! let mut scheduler = Scheduler::new(PoolSpec { groups, slots: 0, snapshots: 32 }, Settings::default());
//! let prompt = (0..200).map(Item::Token).collect();
//! let id = scheduler.submit(Request::new(prompt, 3))?;
//!
//! let mut answer = Vec::new();
//! while scheduler.plan(Duration::ZERO) {
//!     let step = scheduler.newest().expect("a step was planned");
//!     // The engine copies pages, computes the rows, and draws a token for each output.
//!     let (number, outcomes) = (step.number(), vec![Outcome::Token(7); step.outputs().len()]);
//!     scheduler.done(number, Duration::from_millis(30), &outcomes)?;
//!     answer.extend(scheduler.drain_events().filter_map(|event| match event {
//!         Event::Token { choice, token, .. } if choice.request == id => Some(token),
//!         _ => None,
//!     }));
//! }
//! assert_eq!(answer, [7, 7, 7]);
//! # Ok(())
//! # }
//! ```

mod admit;
mod answers;
mod done;
mod event;
mod plan;
mod prompts;
mod request;
mod scheduler;
mod sequence;
mod settings;
mod shortage;
mod step;
mod step_rates;

#[cfg(test)]
mod tests;

pub use event::{Event, FinishReason, Outcome};
pub use request::{ChoiceId, Request, RequestId, Sampling, SubmitError};
pub use scheduler::{Counts, Scheduler};
pub use settings::Settings;
pub use step::{AnswerRow, Output, Piece, Step, StepError, TokenSource};
