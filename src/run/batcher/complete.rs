//! What comes of a finished step: draws on the host, outcomes for the scheduler, events for the handles.

use super::answer::ChoiceState;
use super::batching::Batcher;
use super::compute::Compute;
use super::host::{DrawResult, HostDraw, draw_all};
use crate::ops::Sample;
use crate::run::generate::poisoned;
use crate::run::schedule::{Outcome, Sampling};
use std::time::Duration;

impl<C: Compute> Batcher<C> {
    /// Ends the oldest step, whose results lie in memory.
    pub(super) fn complete(&mut self, took: Duration) {
        self.note_pieces();
        self.draw_on_host();
        self.decide();
        let Some(number) = self.scheduler.oldest().map(|step| step.number()) else { return };
        let done = self.scheduler.done(number, took, &self.memory.outcomes);
        debug_assert_eq!(done, Ok(()), "there is an outcome for each output of the oldest step");
        for (choice, end) in self.memory.pieces.drain(..) {
            if let Some(active) = self.requests.get_mut(&choice.request) {
                active.progress(end);
            }
        }
        self.report();
    }

    /// Notes which prompts the step computes, and how far.
    fn note_pieces(&mut self) {
        let pieces = self.scheduler.oldest().map(|step| step.pieces()).unwrap_or_default();
        let runs = pieces.iter().filter(|piece| self.scheduler.progress(piece.choice).is_some());
        self.memory.pieces.clear();
        self.memory.pieces.extend(runs.map(|piece| (piece.choice, piece.positions.end)));
    }

    /// Draws the tokens of all outputs whose choices draw on the host and have not ended.
    fn draw_on_host(&mut self) {
        let outputs = self.scheduler.oldest().map(|step| step.outputs()).unwrap_or_default();
        let on_host = outputs.iter().enumerate().filter(|(_, output)| output.sampling == Sampling::Host);
        let draws = &mut self.memory.host_draws;
        for (row, (i, output)) in on_host.enumerate() {
            let active = self.requests.get_mut(&output.choice.request);
            let answer = active.and_then(|active| active.answer(output.choice));
            if let Some(host) = answer.and_then(|answer| answer.host.take()) {
                draws.push(HostDraw { output: i, row, host, drawn: None });
            }
        }
        let vocab = self.intake.vocabulary.size();
        draw_all(draws, &self.memory.results.logits, vocab, self.compute.threads());
    }

    /// Finds an outcome for each output.
    fn decide(&mut self) {
        let Some(step) = self.scheduler.oldest() else { return };
        let (memory, vocabulary) = (&mut self.memory, &*self.intake.vocabulary);
        let (tokenizer, vocab) = (vocabulary.tokenizer(), vocabulary.size());
        let mut host_draws = memory.host_draws.drain(..).peekable();
        memory.outcomes.clear();
        for (i, output) in step.outputs().iter().enumerate() {
            let on_host = host_draws.next_if(|draw| draw.output == i);
            let active = self.requests.get_mut(&output.choice.request);
            let found = active.and_then(|active| Some((active.ignore_end, active.answer(output.choice)?)));
            let Some((ignore_end, answer)) = found else {
                // The choice has ended: this is ignored.
                memory.outcomes.push(Outcome::End);
                continue;
            };
            let drawn = match on_host {
                Some(draw) => give_back(answer, draw),
                None => on_device(memory.results.tokens.get(i).copied(), vocab),
            };
            memory.outcomes.push(match drawn {
                Ok((token, logprobs)) => {
                    let ends = !ignore_end && tokenizer.is_some_and(|tokenizer| tokenizer.is_end(token));
                    answer.take(token, logprobs, ends, tokenizer, self.finished)
                }
                Err(error) => {
                    answer.error = Some(error);
                    Outcome::Failed
                }
            });
        }
    }
}

/// Puts a sampler back that has drawn; returns what it drew.
fn give_back(answer: &mut ChoiceState, draw: HostDraw) -> DrawResult {
    answer.host = Some(draw.host);
    draw.drawn.unwrap_or_else(|| Err(poisoned()))
}

/// The token that the device drew.
fn on_device(token: Option<u32>, vocab: usize) -> DrawResult {
    let token = token.filter(|token| *token != Sample::POISONED && (*token as usize) < vocab);
    token.map(|token| (token, None)).ok_or_else(poisoned)
}
