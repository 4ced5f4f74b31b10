//! Computes the steps of a scheduler: an engine for many sequences.
//!
//! A step is one run of answer rows, then runs of prompt rows. So the rows of a run have one role, and whatever else is computed
//! leaves a row's result as it is. On a GPU, pieces of prompts begin at multiples of [`PIECE_ROWS`], since tiles of attention do
//! not cross sequences, and batches have one of few sizes; what is left over are rows that are none.

use super::batcher::{Batcher, Compute, Draw, Results};
use super::books::{cache_pages, pool_spec};
use super::programs::Pending;
use super::recover::Recovering;
use super::schedule::{AnswerRow, Settings, Step, TokenSource};
use super::{Engine, Session};
use crate::arch::Batch;
use crate::base::{Error, Result, Role};
use crate::gpu;
use crate::graph::{Input, Place};
use crate::ops::{self, DrawNumber, NO_ROW, Sample, SampleParams};
use crate::plan::PIECE_ROWS;
use crate::state::{Item, Pool, SeqId};
use std::ops::Range;
use web_time::Duration;

/// How long a step may take while answers wait for it.
const CPU_STEP: Duration = Duration::from_millis(100);
const GPU_STEP: Duration = Duration::from_millis(40);

/// An engine that computes the steps of many sequences.
pub struct StepEngine {
    engine: Engine,
    recovering: Recovering,
    rows: Rows,
    /// What was written last of a run of answers, to write only what changes.
    written: Rows,
    spare: Vec<Submitted>,
}

/// The inputs of a run.
#[derive(Default)]
struct Rows {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    /// Where the tables of the rows begin, group by group, and the tables.
    tables: Vec<u32>,
    outputs: Vec<u32>,
    sampler: Vec<u32>,
    /// The sequence of the last row, and where its tables begin.
    last: Option<(SeqId, [u32; 2])>,
    /// Where the tables of each row begin.
    begins: Vec<[u32; 2]>,
    pages: Vec<u32>,
}

/// A step under way.
#[derive(Default)]
pub struct Submitted {
    runs: Vec<Run>,
    /// For each output, its run, its row there, and whether its logits are wanted.
    outputs: Vec<(usize, usize, bool)>,
    /// Comes when all has run, if nothing else comes from the GPU then.
    ran: Option<gpu::Pending>,
}

struct Run {
    tokens: Pending,
    logits: Pending,
}

/// Pieces of prompts that go into one run, and where the outputs of it stand in the step's.
struct PieceRun {
    /// The row of the step that they begin with.
    row: usize,
    pieces: Range<usize>,
    outputs: Range<usize>,
}

impl Session {
    /// Makes a batcher of it: many requests at a time, in caches that are empty. How many, and how large the caches are, the session's
    /// [`Options`](crate::plan::Options) say.
    pub fn into_batcher(self) -> Batcher<StepEngine> {
        let (model, options) = (self.model.clone(), &self.engine.options);
        let settings = Settings {
            sequences: options.sequences,
            context: options.context,
            answer_rows: options.outputs(),
            prompt_rows: options.prompt_rows(),
            outputs: options.outputs(),
            step_time: if self.engine.device_map().uses(Place::Gpu) { GPU_STEP } else { CPU_STEP },
            ..Settings::default()
        };
        let spec = pool_spec(model.spec(), &self.engine.cells);
        let (engine, recovering, (rows, written, spare)) = (self.engine, self.recovering, Default::default());
        Batcher::new(StepEngine { engine, recovering, rows, written, spare }, model, spec, settings)
    }
}

impl StepEngine {
    /// The engine, for its figures.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn on_gpu(&self) -> bool {
        self.engine.device_map().uses(Place::Gpu)
    }

    /// Rows of a run with so many answers.
    fn answer_rows(&self, rows: usize) -> usize {
        match self.on_gpu() {
            true if rows <= 64 => rows.next_power_of_two(),
            true => rows.next_multiple_of(64),
            false => rows,
        }
    }

    /// Rows of a run with so many of prompts.
    fn prompt_rows(&self, rows: usize) -> usize {
        match self.on_gpu() {
            true => self.engine.options.piece_rows(rows),
            false => rows,
        }
    }

    async fn answers(
        &mut self,
        step: &Step,
        pool: &Pool,
        draws: &[Draw],
        drawn: Option<&[u32]>,
        submitted: &mut Submitted,
    ) -> Result<()> {
        let answers = step.answers();
        let outputs = step.outputs().iter().take_while(|output| output.row < answers.len()).count();
        let groups = self.engine.cells.groups();
        let (rows, mut on_device) = (&mut self.rows, true);
        rows.clear();
        for AnswerRow { seq, position, token, .. } in answers {
            let token = match (token, drawn) {
                (TokenSource::Host(token), _) => Some(*token),
                (TokenSource::Device { output }, Some(drawn)) => Some(drawn[*output]),
                (TokenSource::Device { .. }, None) => None,
            };
            on_device &= token.is_none();
            rows.add(pool, *seq, groups, token.unwrap_or(0), *position);
        }
        let size = self.answer_rows(answers.len());
        self.rows.fill_up(size);
        let sample = draws[..outputs].iter().any(|draw| matches!(draw, Draw::Device(_)));
        self.rows.sampler.resize(size * Sample::PARAMS, 0);
        for (output, draw) in step.outputs()[..outputs].iter().zip(draws) {
            self.rows.set_sampler(output.row, draw, None);
            submitted.outputs.push((submitted.runs.len(), output.row, *draw == Draw::Host));
        }
        let batch = self.engine.shape(Role::Answer, size, if outputs > 0 { size } else { 0 }, sample);
        let host = draws[..outputs].contains(&Draw::Host);
        self.run(batch, host, on_device, submitted).await
    }

    async fn prompts(
        &mut self,
        step: &Step,
        pool: &Pool,
        draws: &[Draw],
        part: PieceRun,
        submitted: &mut Submitted,
    ) -> Result<()> {
        let (groups, on_gpu) = (self.engine.cells.groups(), self.on_gpu());
        self.rows.clear();
        // The row of the step that the next piece begins with.
        let mut next = part.row;
        let mut outputs = part.outputs.clone().peekable();
        let (mut sample, mut host) = (false, false);
        for piece in &step.pieces()[part.pieces.clone()] {
            if on_gpu {
                self.rows.fill_up(self.rows.tokens.len().next_multiple_of(PIECE_ROWS));
            }
            let first = self.rows.tokens.len();
            for (item, position) in step.prompt_items()[piece.items.clone()].iter().zip(piece.positions.clone()) {
                let Item::Token(token) = item else {
                    return Err(Error::unsupported("images in prompts"));
                };
                self.rows.add(pool, piece.seq, groups, *token, position);
            }
            let end = next + piece.items.len();
            while let Some(i) = outputs.next_if(|i| step.outputs()[*i].row < end) {
                let (output, row) = (&step.outputs()[i], self.rows.outputs.len());
                self.rows.outputs.push((first + output.row - next) as u32);
                self.rows.sampler.resize((row + 1) * Sample::PARAMS, 0);
                self.rows.set_sampler(row, &draws[i], Some(output.index as u32));
                (sample, host) = (sample | (draws[i] != Draw::Host), host | (draws[i] == Draw::Host));
                submitted.outputs.push((submitted.runs.len(), row, draws[i] == Draw::Host));
            }
            next = end;
        }
        let wanted = match (self.rows.outputs.len(), on_gpu) {
            (0, _) => 0,
            // Few sizes, for the sake of programs that are kept.
            (1, _) => 1,
            (n, true) => n.next_multiple_of(if n <= 8 { 8 } else { 64 }),
            (n, false) => n,
        };
        // Each row of logits has a place among the tokens.
        let size = self.prompt_rows(self.rows.tokens.len()).max(wanted);
        self.rows.fill_up(size);
        let again = self.rows.outputs.last().copied().unwrap_or(0);
        self.rows.outputs.resize(wanted, again);
        self.rows.sampler.resize(wanted * Sample::PARAMS, 0);
        let batch = self.engine.shape(Role::Piece, size, wanted, sample);
        self.run(batch, host, false, submitted).await
    }

    /// Writes the inputs and runs a batch. With tokens `on_device`, these and their positions are there.
    async fn run(&mut self, batch: Batch, host: bool, on_device: bool, submitted: &mut Submitted) -> Result<()> {
        let program = self.engine.prepare(batch).await?;
        self.rows.finish(self.engine.cells.groups());
        let (rows, before) = (&self.rows, &self.written);
        let size = rows.tokens.len();
        // What the device holds of the run before it is as it was written then.
        let known = on_device && !before.tokens.is_empty() && before.tokens.len() == size;
        if !on_device {
            self.engine.write(Input::Tokens, 0, &rows.tokens)?;
            self.engine.write(Input::Places, 0, &rows.positions)?;
        }
        if !known || rows.tables != before.tables {
            self.engine.write(Input::Places, size, &rows.tables)?;
        }
        if batch.role == Role::Piece && batch.rows > 0 {
            self.engine.write(Input::Rows, 0, &rows.outputs)?;
        }
        if batch.sample && (!known || rows.sampler != before.sampler) {
            self.engine.write(Input::Sampler, 0, &rows.sampler)?;
        }
        self.engine.past = rows.positions.iter().filter(|p| **p != NO_ROW).max().copied().unwrap_or(0) as usize;
        let (tokens, logits) = self.engine.run_both(program, batch.sample, host).await?;
        submitted.runs.push(Run { tokens, logits });
        std::mem::swap(&mut self.rows, &mut self.written);
        if batch.role == Role::Piece {
            self.written.tokens.clear();
        }
        Ok(())
    }

    /// Pieces that go into one run, from piece `first` on, which begins with `row` of the step; their outputs begin with `output`.
    fn part(&self, step: &Step, row: usize, first: usize, output: usize) -> PieceRun {
        let (most, most_outputs) = (self.engine.options.prompt_rows(), self.engine.options.outputs());
        let mut rows = 0_usize;
        let mut part = PieceRun { row, pieces: first..first, outputs: output..output };
        let mut row = row;
        for (i, piece) in step.pieces().iter().enumerate().skip(first) {
            let start = if self.on_gpu() { rows.next_multiple_of(PIECE_ROWS) } else { rows };
            let end = row + piece.items.len();
            let of_piece = step.outputs()[part.outputs.end..].iter().take_while(|o| o.row < end).count();
            let many = part.outputs.len() + of_piece > most_outputs || start + piece.items.len() > most;
            if many && i > first {
                break;
            }
            (rows, row) = (start + piece.items.len(), end);
            part.pieces.end = i + 1;
            part.outputs.end += of_piece;
        }
        part
    }
}

impl Compute for StepEngine {
    type Pending = Submitted;

    fn plans_ahead(&self) -> bool {
        self.engine.runs_ahead()
    }

    fn runs_ahead(&self, before: &Step, next: &Step) -> bool {
        let pure = |step: &Step| step.pieces().is_empty() && step.page_copies().is_empty();
        let same = |(i, row): (usize, &AnswerRow)| row.token == TokenSource::Device { output: i };
        // The device draws the token of each row into the same place.
        let all = before.outputs().len() == before.answers().len() && next.answers().len() == before.answers().len();
        let in_place = before.outputs().iter().enumerate().all(|(i, output)| output.row == i);
        self.engine.runs_ahead()
            && pure(before)
            && pure(next)
            && all
            && in_place
            && next.answers().iter().enumerate().all(same)
    }

    async fn submit(&mut self, step: &Step, pool: &Pool, draws: &[Draw], drawn: Option<&[u32]>) -> Result<Submitted> {
        let mut submitted = self.spare.pop().unwrap_or_default();
        submitted.runs.clear();
        submitted.outputs.clear();
        self.engine.copy_pages(step.page_copies())?;
        if !step.answers().is_empty() {
            self.answers(step, pool, draws, drawn, &mut submitted).await?;
        }
        let (mut row, mut first, mut output) = (step.answers().len(), 0, submitted.outputs.len());
        while first < step.pieces().len() {
            let part = self.part(step, row, first, output);
            row += step.pieces()[part.pieces.clone()].iter().map(|piece| piece.items.len()).sum::<usize>();
            (first, output) = (part.pieces.end, part.outputs.end);
            self.prompts(step, pool, draws, part, &mut submitted).await?;
        }
        // A step is done when it has run: else a long prompt would be submitted at once, and nobody could stop it.
        let silent = submitted
            .runs
            .last()
            .is_some_and(|run| matches!((&run.tokens, &run.logits), (Pending::None, Pending::None)));
        submitted.ran = if silent { self.engine.ran()? } else { None };
        Ok(submitted)
    }

    async fn finish(&mut self, mut pending: Submitted, results: &mut Results) -> Result<()> {
        let vocab = self.engine.model.spec().vocab;
        let mut outputs = &pending.outputs[..];
        for (i, run) in pending.runs.drain(..).enumerate() {
            let tokens = run.tokens.wait().await?;
            let logits = run.logits.wait().await?;
            let here = outputs.iter().take_while(|(run, ..)| *run == i).count();
            let (now, later) = outputs.split_at(here);
            for (_, row, host) in now {
                let token = tokens.get(4 * row..4 * row + 4).map(bytemuck::pod_read_unaligned);
                results.tokens.push(token.unwrap_or(Sample::POISONED));
                if *host {
                    let values = logits[4 * row * vocab..4 * (row + 1) * vocab].as_chunks().0;
                    results.logits.extend(values.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
                }
            }
            outputs = later;
        }
        if let Some(ran) = pending.ran.take() {
            ran.wait_async().await?;
        }
        self.spare.push(pending);
        Ok(())
    }

    async fn recover(&mut self, error: Error) -> Result<()> {
        if !self.engine.can_do_without(&error) {
            return Err(error);
        }
        self.written = Rows::default();
        self.recovering.take_over(&mut self.engine, error, 0).await.map(drop)
    }

    fn threads(&self) -> Option<&dyn crate::base::Threads> {
        Some(&self.engine.pool)
    }
}

impl Rows {
    fn clear(&mut self) {
        self.last = None;
        for words in [&mut self.tokens, &mut self.positions, &mut self.tables, &mut self.outputs] {
            words.clear();
        }
        self.sampler.clear();
        self.begins.clear();
        self.pages.clear();
    }

    /// Adds a row. Rows of one sequence that follow each other have one table.
    fn add(&mut self, pool: &Pool, seq: SeqId, groups: usize, token: u32, position: usize) {
        let begins = match self.last {
            Some((last, begins)) if last == seq => begins,
            _ => {
                let mut begins = [0; 2];
                for (group, begin) in begins.iter_mut().enumerate().take(groups) {
                    *begin = self.pages.len() as u32;
                    self.pages.extend(cache_pages(pool.table(seq, group)));
                }
                begins
            }
        };
        self.last = Some((seq, begins));
        self.tokens.push(token);
        self.positions.push(position as u32);
        self.begins.push(begins);
    }

    /// Adds rows that are none until there are `rows`.
    fn fill_up(&mut self, rows: usize) {
        self.tokens.resize(rows, 0);
        self.positions.resize(rows, NO_ROW);
        self.begins.resize(rows, [0; 2]);
        self.last = None;
    }

    /// Sets the parameters of a row of logits; with `number`, the draw's.
    fn set_sampler(&mut self, row: usize, draw: &Draw, number: Option<u32>) {
        if let Draw::Device(params) = draw {
            let draw = number.map_or(params.draw, DrawNumber::Is);
            let words = SampleParams { draw, ..*params }.words();
            self.sampler[row * Sample::PARAMS..(row + 1) * Sample::PARAMS].copy_from_slice(&words);
        }
    }

    /// Puts the tables behind their beginnings.
    fn finish(&mut self, groups: usize) {
        let begin = |group: usize, row: usize| self.begins[row][group];
        ops::lay_tables(&mut self.tables, self.tokens.len(), groups, begin, self.pages.iter().copied());
    }
}
