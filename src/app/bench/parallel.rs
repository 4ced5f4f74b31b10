//! `bench --parallel`: so many prompts at once, then as many answers, in llama-batched-bench's columns.

use super::args::{BenchArgs, Setting};
use super::output::Format;
use super::{Bench, row};
use crate::app::term;
use crate::base::{Error, Result};
use crate::ops::Random;
use crate::run::StepEngine;
use crate::run::batcher::{Batcher, Event, Handle, Request};
use crate::sample::SamplerOptions;
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// So many sequences, each with a prompt and an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Tokens of each prompt.
    pub prompt: u32,
    /// Tokens of each answer.
    pub answer: u32,
    /// Sequences.
    pub sequences: u32,
}

/// What a load took: the prompts with the first token of each answer, and the answers.
#[derive(Debug, Clone, Copy)]
struct Times {
    prompts: Duration,
    answers: Duration,
}

/// Prints lines as they are known.
pub struct Printer {
    format: Format,
    rows: usize,
}

impl BenchArgs {
    /// All loads that `--parallel` asks for.
    pub fn loads(&self) -> Result<Vec<Load>> {
        let mut all = Vec::new();
        let of = |list: &[super::numbers::Numbers]| list.iter().flat_map(|n| n.0.clone()).collect::<Vec<u32>>();
        for prompt in of(&self.parallel_prompt) {
            for answer in of(&self.parallel_answer) {
                all.extend(of(&self.parallel).into_iter().map(|sequences| Load { prompt, answer, sequences }));
            }
        }
        if all.iter().any(|load| load.prompt == 0 || load.answer == 0 || load.sequences == 0) {
            return Err(Error::usage("--parallel, -npp and -ntg are at least 1"));
        }
        if all.iter().any(|load| load.sequences > 1024) {
            return Err(Error::usage("--parallel is at most 1024"));
        }
        Ok(all)
    }
}

impl Bench<'_> {
    /// All loads in one setting, in one engine.
    pub fn run_parallel(&self, setting: &Setting, loads: &[Load], printer: &mut Printer) -> Result<()> {
        let longest = loads.iter().map(|load| load.prompt + load.answer).max().unwrap_or(0) as usize + 1;
        let most = loads.iter().map(|load| load.sequences).max().unwrap_or(1) as usize;
        let session = self.session(setting, longest, most)?;
        let facts = Facts { device: super::device_facts(&session), model: self.facts.kind.clone() };
        let mut batcher = session.into_batcher();
        for load in loads {
            if self.args.progress {
                term::note(format_args!("{} prompts of {}, answers of {}", load.sequences, load.prompt, load.answer));
            }
            if !self.args.no_warmup {
                work(&mut batcher, &Load { answer: 2, ..*load }, 0)?;
            }
            let repetitions = 1..=u64::from(self.args.repetitions);
            let times = repetitions.map(|seed| work(&mut batcher, load, seed)).collect::<Result<Vec<Times>>>()?;
            printer.row(&facts, setting, load, &times)?;
        }
        Ok(())
    }
}

/// What stands in every line.
struct Facts {
    device: row::DeviceFacts,
    model: String,
}

/// Prompts of random tokens, and then answers of one length.
fn work(batcher: &mut Batcher<StepEngine>, load: &Load, seed: u64) -> Result<Times> {
    batcher.forget_prefixes();
    let vocab = batcher.compute_mut().engine().vocab() as u32;
    let mut random = Random(seed);
    let mut prompt = || (0..load.prompt).map(|_| random.bits() % vocab).collect::<Vec<u32>>();
    let mut prompts: Vec<Vec<u32>> = (0..load.sequences).map(|_| prompt()).collect();
    let (prompts_time, first) = answers(batcher, &prompts, 1)?;
    // What was computed is found again: only the token that follows is left of the prompts.
    prompts.iter_mut().zip(first).for_each(|(prompt, token)| prompt.push(token));
    let (answers_time, _) = answers(batcher, &prompts, load.answer as usize)?;
    Ok(Times { prompts: prompts_time, answers: answers_time })
}

/// The time until all have answers of `limit` tokens, and the last token of each.
fn answers(batcher: &mut Batcher<StepEngine>, prompts: &[Vec<u32>], limit: usize) -> Result<(Duration, Vec<u32>)> {
    let submit = |prompt: &Vec<u32>| {
        let sampling = SamplerOptions::greedy();
        batcher.submit(Request { sampling, ignore_end: true, ..Request::new(prompt.clone(), limit) })
    };
    let mut handles = prompts.iter().map(submit).collect::<Result<Vec<Handle>>>()?;
    let start = Instant::now();
    while batcher.step()? {
        term::check_interrupt()?;
    }
    let time = start.elapsed();
    let mut last = vec![0; handles.len()];
    for (handle, last) in handles.iter_mut().zip(&mut last) {
        while let Some(event) = handle.try_next() {
            match event {
                Event::Token { token, .. } => *last = token,
                Event::Failed { error } => return Err(error),
                _ => {}
            }
        }
    }
    Ok((time, last))
}

/// The middle of some numbers.
fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(0.0)
}

impl Printer {
    /// Nothing is printed before the first line.
    pub fn new(format: Format) -> Result<Printer> {
        match format {
            Format::Md | Format::Json | Format::Jsonl => Ok(Printer { format, rows: 0 }),
            Format::Csv | Format::Sql => Err(Error::usage("--parallel is printed as md, json or jsonl")),
        }
    }

    fn row(&mut self, facts: &Facts, setting: &Setting, load: &Load, times: &[Times]) -> Result<()> {
        let of = |f: &dyn Fn(&Times) -> Duration| median(times.iter().map(|t| f(t).as_secs_f64()).collect());
        let (prompts, answers) = (of(&|t| t.prompts), of(&|t| t.answers));
        let (pp, tg) = (load.sequences * load.prompt, load.sequences * load.answer);
        let rate = |n: u32, time: f64| f64::from(n) / time.max(1e-9);
        let all = [
            ("pp", f64::from(load.prompt)),
            ("tg", f64::from(load.answer)),
            ("pl", f64::from(load.sequences)),
            ("n_kv", f64::from(pp + tg)),
            ("t_pp", prompts),
            ("speed_pp", rate(pp, prompts)),
            ("t_tg", answers),
            ("speed_tg", rate(tg, answers)),
            ("t", prompts + answers),
            ("speed", rate(pp + tg, prompts + answers)),
        ];
        let first = self.rows == 0;
        self.rows += 1;
        if self.format == Format::Md {
            let counts = all.iter().take(4).map(|(_, n)| format!("{n:6}"));
            let rest = all.iter().skip(4).map(|(_, n)| format!("{n:9.3}"));
            let line = format!("| {} |\n", counts.chain(rest).collect::<Vec<_>>().join(" | "));
            let head = "|     PP |     TG |      B |   N_KV |    T_PP s | S_PP t/s  |    T_TG s | S_TG t/s  |       T s |     S t/s |\n\
                        |-------:|-------:|-------:|-------:|----------:|----------:|----------:|----------:|----------:|----------:|\n";
            return term::print(if first { format!("{head}{line}") } else { line });
        }
        let mut object = json!({
            "model": facts.model, "backend": facts.device.backend, "cpu": facts.device.cpu, "gpu": facts.device.gpu,
            "n_threads": facts.device.threads, "n_ubatch": setting.ubatch, "answer_bits": facts.device.answer_bits,
            "repetitions": times.len(),
        });
        for (i, (name, value)) in all.into_iter().enumerate() {
            object[name] = if i < 4 { Json::from(value as u64) } else { Json::from(value) };
        }
        term::print(match (self.format, first) {
            (Format::Jsonl, _) => format!("{object}\n"),
            (_, true) => format!("[\n{object:#}"),
            (_, false) => format!(",\n{object:#}"),
        })
    }

    /// Prints what stands after the last line.
    pub fn finish(self) -> Result<()> {
        match (self.format, self.rows) {
            (Format::Json, 0) => term::print("[]\n"),
            (Format::Json, _) => term::print("\n]\n"),
            _ => Ok(()),
        }
    }
}
