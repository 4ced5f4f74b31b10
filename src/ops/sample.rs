//! Draws tokens from rows of logits, each by parameters of its own: top-k, top-p, min-p, temperature, draw; or the greatest logit.
//!
//! The chain of the `sample` room for its most usual settings, as an op, so that a decoded token stays on its device. Ties go to
//! the lower token. The random number is a hash of seed and step, so nothing is carried from token to token.
//! GPU: many workgroups keep their slice's best candidates, one merges them and draws.
//! Shader: shaders/sample.wgsl, shaders/rng.wgsl.
//! Source: arXiv 1805.04833 (top-k), 1904.09751 (top-p), 2407.01082 (min-p).

use super::places::NO_ROW;
use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Threads, Work, for_chunks};
use crate::base::{DType, Error, Meta, Result, View, ViewMut, uniform};
use crate::simd;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::Range;

/// Sources: tokens `[n]` `u32` (updated in place: the token drawn from row i goes to place i), logits `[rows, vocab]`, parameters
/// `[rows, 8]` `u32` (see [`SampleParams`]), positions `[n]` `u32`. They are updated too, so that the next tokens need nothing from
/// the host: if each token has a row, every position moves on by one; of one row, which is the last token's, place 0 gets what
/// follows the last; else they stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample;

/// What the host says about the draw; read anew for every token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleParams {
    /// 0 or less: the greatest logit.
    pub temp: f32,
    /// Candidates kept, 1 to [`Sample::MAX_TOP_K`].
    pub top_k: u32,
    /// Smallest set of candidates whose probability reaches this; 1 keeps all.
    pub top_p: f32,
    /// Candidates less likely than this part of the best fall out; 0 keeps all.
    pub min_p: f32,
    /// Seed of the run.
    pub seed: u64,
    /// Where draws are counted from: their number picks the random number.
    pub draw: DrawNumber,
}

/// Which draw of its sequence a draw is, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrawNumber {
    /// By the position of the token that is drawn, counted from this one.
    From(u32),
    /// This one.
    Is(u32),
}

impl DrawNumber {
    fn at(self, position: u32) -> u32 {
        match self {
            DrawNumber::From(first) => position.wrapping_sub(first),
            DrawNumber::Is(number) => number,
        }
    }
}

impl SampleParams {
    /// As the op's source holds them.
    pub fn words(&self) -> [u32; 8] {
        let (low, high) = (self.seed as u32, (self.seed >> 32) as u32);
        let [number, known] = match self.draw {
            DrawNumber::From(first) => [first, 0],
            DrawNumber::Is(number) => [number, 1],
        };
        [self.temp.to_bits(), self.top_k, self.top_p.to_bits(), self.min_p.to_bits(), low, high, number, known]
    }

    /// How many candidates are kept at the most.
    fn candidates(&self) -> usize {
        self.top_k.clamp(1, Sample::MAX_TOP_K) as usize
    }

    fn from_words(w: &[u32]) -> Self {
        SampleParams {
            temp: f32::from_bits(w[0]),
            top_k: w[1],
            top_p: f32::from_bits(w[2]),
            min_p: f32::from_bits(w[3]),
            seed: w[4] as u64 | (w[5] as u64) << 32,
            draw: if w[7] == 0 { DrawNumber::From(w[6]) } else { DrawNumber::Is(w[6]) },
        }
    }
}

/// A workgroup has many subgroups if they may have fewer threads than this.
const FEW_THREADS: u32 = 16;

/// Logits of which only the greatest is looked at first.
const BLOCK: usize = 64;

/// What a draw on the CPU works in, kept so that a token allocates nothing once warm.
#[derive(Default)]
struct Few {
    /// The greatest logit of each block, and the same in another order.
    greatest: Vec<f32>,
    sorted: Vec<f32>,
    /// Candidates.
    order: Vec<u32>,
}

thread_local! {
    static FEW: RefCell<Few> = RefCell::default();
}

impl Sample {
    /// Words of a row's parameters.
    pub const PARAMS: usize = 8;

    /// Most candidates the GPU kernel keeps.
    pub const MAX_TOP_K: u32 = 128;

    /// What is drawn from logits that hold a NaN or +∞, or nothing above −∞: no token, and an error for the host to raise.
    pub const POISONED: u32 = u32::MAX;

    /// Moves the positions on.
    fn advance(positions: &mut [u32], rows: usize) {
        let last = positions[positions.len() - 1];
        match rows {
            _ if rows == positions.len() => {
                positions.iter_mut().filter(|p| **p != NO_ROW).for_each(|p| *p += 1);
            }
            1 if last != NO_ROW => positions[0] = last + 1,
            _ => {}
        }
    }

    /// The token drawn from a row.
    fn draw_row(params: &SampleParams, logits: &[f32], number: u32) -> u32 {
        // Without branches, as vectors: NaN and +∞ have all exponent bits, −∞ is only skipped.
        let wrong = |v: &f32| (v.to_bits() & 0x7f80_0000 == 0x7f80_0000) & (v.to_bits() != 0xff80_0000);
        let best = simd::max(logits);
        if best == f32::NEG_INFINITY || logits.iter().fold(false, |any, v| any | wrong(v)) {
            return Self::POISONED;
        }
        if params.temp <= 0.0 {
            // The first of several.
            return logits.iter().position(|v| *v == best).map_or(Self::POISONED, |i| i as u32);
        }
        let logit = |i: u32| logits[i as usize] as f64;
        FEW.with_borrow_mut(|Few { greatest, sorted, order }| {
            // At least k logits are no less than the k-th of the greatest of each block: what is less is none of the best k.
            let k = params.candidates();
            greatest.clear();
            greatest.extend(logits.chunks(BLOCK).map(simd::max));
            sorted.clone_from(greatest);
            let least = match sorted.len() > k {
                true => *sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
                false => f32::NEG_INFINITY,
            };
            order.clear();
            for (block, _) in greatest.iter().enumerate().filter(|(_, max)| **max >= least) {
                let start = block * BLOCK;
                let here = logits[start..].iter().take(BLOCK).enumerate().filter(|(_, v)| **v >= least);
                order.extend(here.map(|(i, _)| (start + i) as u32));
            }
            Self::draw_from(params, &logit, number, order)
        })
    }

    /// The drawn token. `logit(i)` gives logits; `order` is scratch.
    fn draw(p: &SampleParams, vocab: usize, logit: &dyn Fn(u32) -> f64, step: u32, order: &mut Vec<u32>) -> u32 {
        let better = |a: &u32, b: &u32| logit(*b).partial_cmp(&logit(*a)).unwrap_or(Ordering::Equal).then(a.cmp(b));
        let best = (0..vocab as u32).map(logit).fold(f64::NEG_INFINITY, |m, x| if x > m || x.is_nan() { x } else { m });
        if !best.is_finite() {
            return Self::POISONED;
        }
        if p.temp <= 0.0 {
            return (0..vocab as u32).min_by(better).expect("a vocabulary has tokens");
        }
        order.clear();
        order.extend(0..vocab as u32);
        Self::draw_from(p, logit, step, order)
    }

    /// The token drawn from those in `order`, among which the best are.
    fn draw_from(p: &SampleParams, logit: &dyn Fn(u32) -> f64, step: u32, order: &mut Vec<u32>) -> u32 {
        let better = |a: &u32, b: &u32| logit(*b).partial_cmp(&logit(*a)).unwrap_or(Ordering::Equal).then(a.cmp(b));
        let k = p.candidates().min(order.len());
        if k < order.len() {
            order.select_nth_unstable_by(k - 1, better);
        }
        order.truncate(k);
        order.sort_unstable_by(better);
        let max = logit(order[0]);
        let weight = |i: &u32| (logit(*i) - max).exp();
        let total: f64 = order.iter().map(weight).sum();
        let mut reached = 0.0;
        let nucleus = order.iter().position(|i| {
            reached += weight(i);
            reached >= p.top_p as f64 * total
        });
        order.truncate(nucleus.map_or(k, |last| last + 1));
        let kept = order.iter().take_while(|i| weight(i) >= p.min_p as f64).count();
        order.truncate(kept.max(1));
        let heat = |i: &u32| ((logit(*i) - max) / p.temp as f64).exp();
        let total: f64 = order.iter().map(heat).sum();
        let mut left = uniform(p.seed, step as u64) as f64 * total;
        let drawn = order.iter().find(|i| {
            left -= heat(i);
            left < 0.0
        });
        *drawn.unwrap_or(&order[order.len() - 1])
    }
}

impl Op for Sample {
    const NAME: &str = "sample";
    const IN_PLACE: Option<usize> = Some(0);

    fn updates(&self) -> Range<usize> {
        3..4
    }

    fn infer(&self, src: &[Meta]) -> Result<Meta> {
        src[0].want(Self::NAME, DType::U32)?;
        src[1].want(Self::NAME, DType::F32)?;
        src[2].want(Self::NAME, DType::U32)?;
        src[3].want(Self::NAME, DType::U32)?;
        let (rows, tokens) = (src[1].outer(), src[0].outer());
        if rows == 0 || rows > tokens || src[3].outer() != tokens || src[2].shape.elements() != rows * Self::PARAMS {
            let what =
                format!("sample wants rows of logits for some of the tokens, and 8 parameters each, got {src:?}");
            return Err(Error::format(what));
        }
        Ok(src[0])
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, _src: &[View], _dst: ViewMut, _pool: &dyn Threads) {
        unreachable!("it updates the positions too");
    }

    fn cpu_updating(&self, src: &[View], mut dst: ViewMut, more: &mut [ViewMut], pool: &dyn Threads) {
        let (logits, params) = (src[1], src[2].u32());
        let (rows, positions) = (logits.meta.outer(), more[0].u32());
        let last = positions.len() - 1;
        // One row is that of the last token.
        let of = |row: usize| positions[if rows == 1 { last } else { row }].wrapping_add(1);
        for_chunks(pool, &mut dst.u32()[..rows], 1, |row, token| {
            let params = SampleParams::from_words(&params[row * Self::PARAMS..]);
            token[0] = Self::draw_row(&params, logits.row(row), params.draw.at(of(row)));
        });
        Self::advance(positions, rows);
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let vocab = src[1].shape.row();
        // Some 2,000 logits per workgroup, and at most 64 lists to merge.
        let slice = vocab.div_ceil(64).max(2048);
        let slices = vocab.div_ceil(slice);
        let (rows, tokens) = (src[1].outer(), src[3].outer());
        let scan = Pass {
            shader: "sample_scan",
            consts: vec![("SLICE", slice as u32), ("MAX_K", Self::MAX_TOP_K)],
            params: vec![("vocab", vocab.into()), ("slices", slices.into())],
            binds: vec![("logits", Bind::Src(1)), ("sampler", Bind::Src(2)), ("best", Bind::Scratch(0))],
            workgroups: [slices as u32, rows as u32, 1],
            ..Pass::default()
        };
        let draw = Pass {
            shader: "sample_draw",
            consts: vec![("SLICES", slices as u32), ("MAX_K", Self::MAX_TOP_K)],
            params: vec![("rows", rows.into()), ("last", (tokens - 1).into())],
            binds: vec![
                ("best", Bind::Scratch(0)),
                ("sampler", Bind::Src(2)),
                ("positions", Bind::Src(3)),
                ("tokens", Bind::Dst),
            ],
            workgroups: [rows as u32, 1, 1],
            ..Pass::default()
        };
        let scratch = vec![rows * slices * Self::MAX_TOP_K as usize * 8];
        let kernel = |variant, flags: &[&'static str]| {
            let passes = [&scan, &draw].map(|pass| Pass { flags: flags.to_vec(), ..pass.clone() });
            Kernel { variant, passes: passes.to_vec(), scratch: scratch.clone(), rounding: 0.0 }
        };
        let mut all = Vec::new();
        if let Some((least, _)) = caps.subgroups {
            all.push(kernel("two_pass_subgroups", &["SUBGROUPS"]));
            if least < FEW_THREADS {
                all.insert(0, kernel("two_pass_many_subgroups", &["SUBGROUPS", "MANY"]));
            }
        }
        all.push(kernel("two_pass_shared", &[]));
        all
    }

    fn oracle(&self, src: &[Exact]) -> Vec<f64> {
        let (words, mut positions) = (src[2].words(), src[3].words());
        let (rows, vocab, last) = (src[1].meta.outer(), src[1].meta.inner(), positions.len() - 1);
        let mut tokens = src[0].data.clone();
        for (row, token) in tokens.iter_mut().enumerate().take(rows) {
            let params = SampleParams::from_words(&words[row * Self::PARAMS..]);
            let position = positions[if rows == 1 { last } else { row }].wrapping_add(1);
            let logit = |i: u32| src[1].row(row)[i as usize];
            *token = Self::draw(&params, vocab, &logit, params.draw.at(position), &mut Vec::new()) as f64;
        }
        Self::advance(&mut positions, rows);
        tokens.into_iter().chain(positions.into_iter().map(f64::from)).collect()
    }

    fn cases() -> Vec<Case<Self>> {
        const GREEDY: &[u32] = &[0, 40, 0x3f80_0000, 0, 7, 0, 0, 0];
        const KNOWN: &[u32] = &[0x3f4c_cccd, 40, 0x3f73_3333, 0x3d4c_cccd, 7, 0, 3, 1];
        const MIXED: &[u32] = &[
            0,
            40,
            0x3f80_0000,
            0,
            7,
            0,
            0,
            0, //
            0x3f4c_cccd,
            40,
            0x3f73_3333,
            0x3d4c_cccd,
            7,
            0,
            3,
            0, //
            0x3fc0_0000,
            128,
            0x3f80_0000,
            0,
            99,
            5,
            8,
            1,
        ];
        // temp 0.8, top-k 40, top-p 0.95, min-p 0.05: the defaults; and temp 1.5, top-k 128, min-p 0, with other seeds.
        const USUAL: &[u32] = &[0x3f4c_cccd, 40, 0x3f73_3333, 0x3d4c_cccd, 7, 0, 3, 0];
        const WIDE: &[u32] = &[0x3fc0_0000, 128, 0x3f80_0000, 0, 99, 5, 0, 0];
        const ONE: &[u32] = &[0x3f80_0000, 1, 0x3f00_0000, 0, 1, 0, 0, 0];
        let of = |params, vocab: usize, [tokens, rows]: [usize; 2], start| Case {
            op: Sample,
            src: vec![
                Input::filled(Meta::new(DType::U32, [tokens]), Fill::Below(vocab as u32)),
                Input { fill: Fill::Uniform { scale: 9.0, offset: 0.0 }, ..Input::f32([rows, vocab]) },
                Input::filled(Meta::new(DType::U32, [rows, Self::PARAMS]), Fill::Words(params)),
                Input::filled(Meta::new(DType::U32, [tokens]), Fill::Count(start)),
            ],
            nmse: 0.0,
        };
        let case = |params, vocab, tokens, start| of(params, vocab, [tokens, 1], start);
        let mut no_row = of(USUAL, 49152, [3, 3], 0);
        no_row.src[3].fill = Fill::Words(&[7, NO_ROW, 100]);
        // What is compared is f32, and no row's number is not.
        no_row.nmse = 1e-15;
        vec![
            case(GREEDY, 49152, 1, 30),
            case(GREEDY, 100, 5, 30),
            case(USUAL, 49152, 1, 30),
            case(USUAL, 128, 3, 100),
            case(USUAL, 151936, 1, 4000),
            case(WIDE, 32000, 1, 12),
            case(WIDE, 60, 1, 12),
            case(ONE, 1000, 1, 12),
            case(KNOWN, 1000, 6, 12),
            of(MIXED, 5000, [7, 7], 12),
            of(MIXED, 300, [9, 4], 12),
            no_row,
        ]
    }
}
