//! The batcher: many requests at once on one engine. It stands between users, who want text, and the [`schedule`](super::schedule),
//! which knows rows.
//!
//! - A [`Request`] is a prompt and how it is continued. Its [`Handle`] receives its [`Event`]s and cancels it.
//! - A [`Batcher`] takes requests, plans steps, has them computed by a [`Compute`], draws on the host what the device cannot draw,
//!   and makes events of what was drawn.
//! - A [`Client`] submits requests to a batcher that runs on its own thread.
//!
//! What always holds:
//! - A request that was taken ends: with [`Event::Done`] for each choice, or with one [`Event::Failed`]. Nothing follows.
//! - Tokens and texts of a request do not depend on what else the batcher does, if those of the engine do not.
//! - A request that fails, is cancelled or dropped disturbs no other.
//! - If the engine recovers from a failure, answers go on where they were.
//! - A sampler draws each token of its choice once, in order: its random numbers count the tokens of that choice.
//!
//! The order of one call of [`Batcher::step_async`]. "A" is the step that is submitted already, or is submitted first:
//! 1. Requests, cancellations and wishes are taken in.
//! 2. If all tokens of A are drawn on the device, the next step B is planned; and submitted, if the engine runs ahead.
//! 3. A's results are read. If B waits for them, it is submitted now: the scheduler may close sequences of B in 4.
//! 4. Outcomes of A are handed to the scheduler, and events to the handles.
//!
//! In steady decode nothing is allocated, but for the text and the log-probabilities of events.

mod active;
mod answer;
mod batching;
mod channel;
mod client;
mod complete;
mod compute;
mod event;
mod handle;
mod host;
mod inbox;
mod intake;
mod logprobs;
mod request;
mod step;
mod text;
mod vocabulary;

#[cfg(test)]
mod tests;

pub use batching::Batcher;
pub use client::Client;
pub use compute::{Compute, Draw, Results};
pub use event::{Event, Times, TokenLogprobs, Usage};
pub use handle::{Canceller, Handle};
pub use request::Request;
pub use vocabulary::Vocabulary;
