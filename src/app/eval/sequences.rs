//! `eval --sequences`: logits of several sequences over a common prefix, and of what becomes of them.

use super::best;
use crate::app::input;
use crate::base::{Error, Result};
use crate::run::Session;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is asked, as JSON.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Tokens that all sequences begin with.
    #[serde(default)]
    prefix: Vec<u32>,
    /// What follows in each.
    continuations: Vec<Vec<u32>>,
    #[serde(default)]
    positions: Positions,
    /// What becomes of them, in order.
    #[serde(default)]
    then: Vec<Step>,
}

/// The tokens of a continuation after which logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Positions {
    #[default]
    Last,
    All,
}

/// A change of one sequence, and how it goes on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    remove: Option<Remove>,
    copy: Option<Copy>,
    continuation: Vec<u32>,
}

/// The last `n` tokens of sequence `seq` go.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    seq: usize,
    n: usize,
}

/// Sequence `to` becomes what `from` is.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copy {
    from: usize,
    to: usize,
}

/// Logits of one continuation.
#[derive(Debug, Serialize)]
pub struct Evaluated {
    /// Places in the whole sequence, from 0.
    positions: Vec<usize>,
    logits: Vec<Vec<f32>>,
    argmax: Vec<usize>,
}

/// The answers to a [`Job`].
#[derive(Debug, Serialize)]
pub struct Results {
    sequences: Vec<Evaluated>,
    then: Vec<Evaluated>,
}

impl Job {
    /// The job in a file, or on standard input if its name is `-`.
    pub fn read(path: &Path) -> Result<Job> {
        let (text, place) = (input::prompt_file(path)?, input::place(Some(path)));
        let job: Job = serde_json::from_str(&text).map_err(|e| {
            let help = r#"write {"prefix":[1,2],"continuations":[[3],[4,5]],"positions":"last","then":[…]}"#;
            Error::format("these are not sequences to evaluate").at(&place).because(e).help(help)
        })?;
        job.check().map_err(|e| e.at(&place))?;
        Ok(job)
    }

    /// Errors for sequences that are not there, and for continuations of nothing.
    fn check(&self) -> Result<()> {
        let count = self.continuations.len();
        if count == 0 {
            return Err(Error::usage("there are no continuations").help("give at least one sequence"));
        }
        let known = |seq: usize| match seq < count {
            true => Ok(()),
            false => Err(Error::usage(format!("there is no sequence {seq}: they are 0 to {}", count - 1))),
        };
        let all = self.continuations.iter().chain(self.then.iter().map(|step| &step.continuation));
        if all.into_iter().any(Vec::is_empty) {
            return Err(Error::usage("an empty continuation").help("logits come after a token: give at least one"));
        }
        for step in &self.then {
            match (step.remove, step.copy) {
                (Some(remove), None) => known(remove.seq)?,
                (None, Some(copy)) => known(copy.from).and_then(|()| known(copy.to))?,
                _ => return Err(Error::usage("each step of \"then\" is either a \"remove\" or a \"copy\"")),
            }
        }
        Ok(())
    }

    /// Evaluates all of it in `session`, one after the other; what sequences have in common with the one before is not computed again.
    pub fn run(&self, session: &mut Session) -> Result<Results> {
        let begin = |continuation: &Vec<u32>| [self.prefix.as_slice(), continuation].concat();
        let mut sequences: Vec<Vec<u32>> = self.continuations.iter().map(begin).collect();
        let of = |session: &mut Session, tokens: &[u32]| self.evaluate(session, tokens, self.prefix.len());
        let first = sequences.iter().map(|tokens| of(session, tokens)).collect::<Result<_>>()?;
        let mut then = Vec::with_capacity(self.then.len());
        for (i, step) in self.then.iter().enumerate() {
            let seq = match (step.remove, step.copy) {
                (Some(Remove { seq, n }), _) => {
                    let left = sequences[seq].len().checked_sub(n).ok_or_else(|| {
                        let what = format!("step {i} of \"then\" removes {n} of {} tokens", sequences[seq].len());
                        Error::usage(what).help("remove at most all")
                    })?;
                    sequences[seq].truncate(left);
                    seq
                }
                (_, Some(Copy { from, to })) => {
                    sequences[to] = sequences[from].clone();
                    to
                }
                (None, None) => unreachable!("the job was checked"),
            };
            let start = sequences[seq].len();
            sequences[seq].extend(&step.continuation);
            then.push(self.evaluate(session, &sequences[seq], start)?);
        }
        Ok(Results { sequences: first, then })
    }

    /// Logits after the tokens of one sequence from place `start` on.
    fn evaluate(&self, session: &mut Session, tokens: &[u32], start: usize) -> Result<Evaluated> {
        session.truncate(session.shared_with(&tokens[..start + 1]));
        let fed = session.cached_tokens().len();
        let last = tokens.len() - 1;
        let positions: Vec<usize> =
            if self.positions == Positions::All { (start..=last).collect() } else { vec![last] };
        let rows: Vec<usize> = positions.iter().map(|position| position - fed).collect();
        let logits = session.logits(&tokens[fed..], &rows)?;
        let argmax = logits.iter().map(|row| best(row)).collect();
        Ok(Evaluated { positions, logits, argmax })
    }
}
