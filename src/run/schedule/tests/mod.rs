//! The scheduler without a model: each rule by itself, and all of them under random requests.

mod admission;
mod budget;
mod cancel;
mod choices;
mod machine;
mod order;
mod roles;
mod shortage;
mod simulation;

use super::*;
use crate::state::{GroupSpec, Item, PoolSpec};
use machine::Machine;
use std::time::Duration;

/// Items that no other call with another `first` has.
fn items(first: u32, n: usize) -> Vec<Item> {
    (0..n as u32).map(|i| Item::Token(1_000_000 + 1000 * first + i)).collect()
}

/// A request with a prompt of its own.
fn request(first: u32, prompt: usize, limit: usize) -> Request {
    Request::new(items(first, prompt), limit)
}

/// A pool with groups of a window and pages that can be handed out.
fn spec(groups: &[(Option<usize>, usize)], slots: usize) -> PoolSpec {
    let group = |(window, pages): &(Option<usize>, usize)| GroupSpec { window: *window, pages: pages + 1 };
    PoolSpec { groups: groups.iter().map(group).collect(), slots, snapshots: 8 }
}

/// A machine with one group of so many pages.
fn machine(pages: usize, settings: Settings) -> Machine {
    Machine::new(spec(&[(None, pages)], 0), settings)
}

/// Steps of so many prompt rows while tokens are drawn.
fn settings(sequences: usize, prompt_rows: usize, beside_answers: usize) -> Settings {
    let (step_time, prompt_speed) = (Duration::from_secs(1), beside_answers as f64);
    Settings { sequences, prompt_rows, step_time, prompt_speed, ..Settings::default() }
}

/// The first choice of a request.
fn first(request: RequestId) -> ChoiceId {
    ChoiceId { request, choice: 0 }
}

/// The prompt rows of a step: by request, how many.
fn pieces(step: &Step) -> Vec<(RequestId, usize)> {
    step.pieces().iter().map(|piece| (piece.choice.request, piece.positions.len())).collect()
}

/// The requests that have answer rows in a step.
fn answers(step: &Step) -> Vec<RequestId> {
    step.answers().iter().map(|row| row.choice.request).collect()
}
