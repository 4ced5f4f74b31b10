//! Draws the next token from its logits: top-k, top-p, min-p, temperature, draw; or the greatest logit.
//!
//! The chain of the `sample` room for its most usual settings, as an op, so that a decoded token stays on its device. Ties go to
//! the lower token. The random number is a hash of seed and step, so nothing is carried from token to token.
//! GPU: many workgroups keep their slice's best candidates, one merges them and draws.
//! Shader: shaders/sample.wgsl, shaders/rng.wgsl.
//! Source: arXiv 1805.04833 (top-k), 1904.09751 (top-p), 2407.01082 (min-p).

use super::{Bind, Caps, Case, Exact, Fill, Input, Kernel, Op, Pass, Pool, Work};
use crate::base::{DType, Error, Meta, Result, View, ViewMut, uniform};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::ops::Range;

/// Sources: tokens `[n]` `u32` (updated in place: the drawn token goes to place 0), logits `[1, vocab]`, parameters `[8]` `u32`
/// (see [`SampleParams`]), positions `[tokens]` `u32` (updated too: place 0 gets what follows the last), so that the next token needs
/// nothing from the host.
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
    /// Position of the first drawn token: draws are counted from it.
    pub first: u32,
}

impl SampleParams {
    /// As the op's source holds them.
    pub fn words(&self) -> [u32; 8] {
        let (low, high) = (self.seed as u32, (self.seed >> 32) as u32);
        [self.temp.to_bits(), self.top_k, self.top_p.to_bits(), self.min_p.to_bits(), low, high, self.first, 0]
    }

    fn from_words(w: &[u32]) -> Self {
        SampleParams {
            temp: f32::from_bits(w[0]),
            top_k: w[1],
            top_p: f32::from_bits(w[2]),
            min_p: f32::from_bits(w[3]),
            seed: w[4] as u64 | (w[5] as u64) << 32,
            first: w[6],
        }
    }
}

/// A workgroup has many subgroups if they may have fewer threads than this.
const FEW_THREADS: u32 = 16;

thread_local! {
    // Candidate ids, kept so that a token allocates nothing once warm.
    static ORDER: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

impl Sample {
    /// Most candidates the GPU kernel keeps.
    pub const MAX_TOP_K: u32 = 128;

    /// What is drawn from logits that hold a NaN or +∞, or nothing above −∞: no token, and an error for the host to raise.
    pub const POISONED: u32 = u32::MAX;

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
        let k = (p.top_k.clamp(1, Self::MAX_TOP_K) as usize).min(vocab);
        if k < vocab {
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
        if src[1].outer() != 1 || src[2].outer() != 8 {
            return Err(Error::format(format!("sample wants one row of logits and 8 parameters, got {:?}", &src[1..3])));
        }
        Ok(src[0])
    }

    fn work(&self, src: &[Meta], dst: &Meta, _depth: usize) -> Work {
        Work::of_values(src, dst)
    }

    fn cpu(&self, _src: &[View], _dst: ViewMut, _pool: &dyn Pool) {
        unreachable!("it updates the positions too");
    }

    fn cpu_updating(&self, src: &[View], mut dst: ViewMut, more: &mut [ViewMut], _pool: &dyn Pool) {
        let (logits, params) = (src[1].row(0), SampleParams::from_words(src[2].u32()));
        let pos = more[0].u32();
        pos[0] = pos[pos.len() - 1] + 1;
        let step = pos[0].wrapping_sub(params.first);
        let logit = |i: u32| logits[i as usize] as f64;
        dst.u32()[0] = ORDER.with_borrow_mut(|order| Self::draw(&params, logits.len(), &logit, step, order));
    }

    fn gpu(&self, src: &[Meta], _dst: &Meta, caps: &Caps) -> Vec<Kernel> {
        let vocab = src[1].shape.row();
        // Some 2,000 logits per workgroup, and at most 64 lists to merge.
        let slice = vocab.div_ceil(64).max(2048);
        let slices = vocab.div_ceil(slice);
        let scan = Pass {
            shader: "sample_scan",
            consts: vec![("SLICE", slice as u32), ("MAX_K", Self::MAX_TOP_K)],
            params: vec![("vocab", vocab.into())],
            binds: vec![("logits", Bind::Src(1)), ("sampler", Bind::Src(2)), ("best", Bind::Scratch(0))],
            workgroups: [slices as u32, 1, 1],
            ..Pass::default()
        };
        let draw = Pass {
            shader: "sample_draw",
            consts: vec![("SLICES", slices as u32), ("MAX_K", Self::MAX_TOP_K)],
            params: vec![("last", (src[3].outer() - 1).into())],
            binds: vec![
                ("best", Bind::Scratch(0)),
                ("sampler", Bind::Src(2)),
                ("positions", Bind::Src(3)),
                ("tokens", Bind::Dst),
            ],
            workgroups: [1, 1, 1],
            ..Pass::default()
        };
        let scratch = vec![slices * Self::MAX_TOP_K as usize * 8];
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
        let words: Vec<u32> = src[2].data.iter().map(|v| *v as u32).collect();
        let params = SampleParams::from_words(&words);
        let step = (src[3].data[src[3].data.len() - 1] as u32 + 1).wrapping_sub(params.first);
        let logit = |i: u32| src[1].data[i as usize];
        let mut tokens = src[0].data.clone();
        tokens[0] = Self::draw(&params, src[1].data.len(), &logit, step, &mut Vec::new()) as f64;
        let mut pos = src[3].data.clone();
        pos[0] = pos[pos.len() - 1] + 1.0;
        [tokens, pos].concat()
    }

    fn cases() -> Vec<Case<Self>> {
        const GREEDY: &[u32] = &[0, 40, 0x3f80_0000, 0, 7, 0, 0, 0];
        // temp 0.8, top-k 40, top-p 0.95, min-p 0.05: the defaults; and temp 1.5, top-k 128, min-p 0, with other seeds.
        const USUAL: &[u32] = &[0x3f4c_cccd, 40, 0x3f73_3333, 0x3d4c_cccd, 7, 0, 3, 0];
        const WIDE: &[u32] = &[0x3fc0_0000, 128, 0x3f80_0000, 0, 99, 5, 0, 0];
        const ONE: &[u32] = &[0x3f80_0000, 1, 0x3f00_0000, 0, 1, 0, 0, 0];
        let case = |params, vocab: usize, tokens: usize, start| Case {
            op: Sample,
            src: vec![
                Input::filled(Meta::new(DType::U32, [tokens]), Fill::Below(vocab as u32)),
                Input { fill: Fill::Uniform { scale: 9.0, offset: 0.0 }, ..Input::f32([1, vocab]) },
                Input::filled(Meta::new(DType::U32, [8]), Fill::Words(params)),
                Input::filled(Meta::new(DType::U32, [tokens]), Fill::Count(start)),
            ],
            nmse: 0.0,
        };
        vec![
            case(GREEDY, 49152, 1, 30),
            case(GREEDY, 100, 5, 30),
            case(USUAL, 49152, 1, 30),
            case(USUAL, 128, 3, 100),
            case(USUAL, 151936, 1, 4000),
            case(WIDE, 32000, 1, 12),
            case(WIDE, 60, 1, 12),
            case(ONE, 1000, 1, 12),
        ]
    }
}
