//! The sampler: builds the chain from the options, and turns logits into tokens.

use super::adaptive::AdaptiveP;
use super::draw::Draw;
use super::dry::Dry;
use super::mirostat::{MirostatV1, MirostatV2};
use super::order::{self, Kind};
use super::penalties::{LogitBias, Penalties};
use super::temperature::Temperature;
use super::truncate::{MinP, TopK, TopNSigma, TopP, Typical};
use super::xtc::Xtc;
use super::{Candidates, DeviceSampling, SamplerOptions, SeededRng, Stage, device};
use crate::base::{Error, ErrorKind, Result, fresh_seed};

/// What the sampler must know of the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VocabInfo<'a> {
    /// Length of the logits: tokens of the vocabulary, with the model's padding.
    pub tokens: usize,
    /// Length of the context in tokens: how far back -1 reaches.
    pub context: usize,
    /// DRY's sequence breakers as token sequences, from [`super::tokenize_breakers`]; empty if DRY is off.
    pub dry_breakers: &'a [Vec<u32>],
}

/// Draws the tokens of one sequence. The sequence itself is the caller's: each draw is handed the tokens that are in it.
///
/// ```
/// use wgpu_llm::sample::{Sampler, SamplerOptions, VocabInfo};
/// let options = SamplerOptions { seed: Some(7), ..Default::default() };
/// let mut sampler = Sampler::new(&options, &VocabInfo { tokens: 4, context: 64, dry_breakers: &[] })?;
/// let mut text = vec![3, 1];
/// let token = sampler.sample(&[0.1, 2.0, -1.0, 1.9], &text)?;
/// sampler.accept(token);
/// text.push(token);
/// # Ok::<(), wgpu_llm::base::Error>(())
/// ```
#[derive(Debug)]
pub struct Sampler {
    stages: Vec<Box<dyn Stage>>,
    /// Mirostat, adaptive-p or the plain draw.
    last: Box<dyn Stage>,
    candidates: Candidates,
    tokens: usize,
    rng: SeededRng,
    plan: Option<DeviceSampling>,
}

impl Sampler {
    /// Builds the chain. Fails if the options make no sense ([`SamplerOptions::validate`]), name a token outside the
    /// vocabulary, or turn DRY on with breakers that nobody tokenized.
    pub fn new(options: &SamplerOptions, info: &VocabInfo) -> Result<Self> {
        options.validate()?;
        if let Some((id, _)) = options.logit_bias.iter().find(|(id, _)| *id as usize >= info.tokens) {
            let what = format!("logit bias names token {id}, and the vocabulary has {}", info.tokens);
            return Err(Error::usage(what));
        }
        let mut order = order::parse(&options.samplers)?;
        let adaptive = options.adaptive_target >= 0.0;
        // llama.cpp lets a temperature of 0 pass unnoticed where the order lacks it; whoever sets it means greedy.
        if options.mirostat > 0 {
            order = vec![Kind::Temperature];
        } else if options.is_greedy() && !order.contains(&Kind::Temperature) {
            order.push(Kind::Temperature);
        }
        order.retain(|&kind| is_active(kind, options, info));
        if order.contains(&Kind::Dry) && info.dry_breakers.is_empty() && !options.dry_sequence_breakers.is_empty() {
            let what =
                format!("DRY has {} sequence breakers, but no tokens of them", options.dry_sequence_breakers.len());
            return Err(Error::usage(what).help("pass them through tokenize_breakers"));
        }
        let mut stages: Vec<Box<dyn Stage>> = Vec::new();
        if !options.logit_bias.is_empty() {
            stages.push(Box::new(LogitBias::new(&options.logit_bias)));
        }
        stages.extend(order.iter().map(|&kind| stage(kind, options, info)));
        let last: Box<dyn Stage> = match options.mirostat {
            1 => Box::new(MirostatV1::new(info.tokens, options.mirostat_tau, options.mirostat_eta)),
            2 => Box::new(MirostatV2::new(options.mirostat_tau, options.mirostat_eta)),
            _ if adaptive => Box::new(AdaptiveP::new(options.adaptive_target, options.adaptive_decay)),
            _ => Box::new(Draw),
        };
        let seed = options.seed.unwrap_or_else(fresh_seed);
        let plain = options.logit_bias.is_empty() && options.mirostat == 0 && !adaptive;
        let plan = if plain { device::plan(&order, options, seed) } else { None };
        let (candidates, rng) = (Candidates::default(), SeededRng { seed, step: 0 });
        Ok(Sampler { stages, last, candidates, tokens: info.tokens, rng, plan })
    }

    /// Draws a token to follow `text`, the sequence so far with its prompt, from `logits` `[vocab]`, with the random number of this
    /// step, and moves to the next step.
    ///
    /// Fails with [`ErrorKind::Numeric`], and leaves the state as it was, where a logit is NaN or +inf or none is finite;
    /// with [`ErrorKind::Usage`] if the length is not the vocabulary's or the bias bans every token.
    pub fn sample(&mut self, logits: &[f32], text: &[u32]) -> Result<u32> {
        if logits.len() != self.tokens {
            return Err(Error::usage(format!("{} logits for a vocabulary of {}", logits.len(), self.tokens)));
        }
        let mut candidates = std::mem::take(&mut self.candidates);
        let drawn = self.draw_from(&mut candidates, logits, text);
        self.candidates = candidates;
        drawn
    }

    fn draw_from(&mut self, candidates: &mut Candidates, logits: &[f32], text: &[u32]) -> Result<u32> {
        // A leading top-k need not see the vocabulary as candidates at all.
        match self.stages.first().and_then(|stage| stage.keeps_top()) {
            Some(k) => candidates.load_top(logits, k)?,
            None => candidates.load(logits)?,
        }
        self.stages.iter_mut().for_each(|stage| stage.apply(candidates, text, &self.rng));
        self.last.apply(candidates, text, &self.rng);
        self.rng.step += 1;
        let all_banned = || Error::new(ErrorKind::Usage, "every token is banned").help("lift a logit bias of -inf");
        candidates.selected().map(|c| c.id).ok_or_else(all_banned)
    }

    /// Applies the chain without the draw, for those who want the probabilities of what follows `text`. The step does not move.
    pub fn apply(&mut self, candidates: &mut Candidates, text: &[u32]) {
        self.stages.iter_mut().for_each(|stage| stage.apply(candidates, text, &self.rng));
        candidates.softmax();
    }

    /// Tells which token was put behind the text, drawn here, drawn on the device or forced: adaptive-p learns from its own draws.
    pub fn accept(&mut self, token: u32) {
        self.stages.iter_mut().for_each(|stage| stage.accept(token));
        self.last.accept(token);
    }

    /// Forgets what earlier draws have left behind and starts the random numbers again from step 0 of the same seed.
    pub fn reset(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.reset());
        self.last.reset();
        self.rng.step = 0;
    }

    /// What was left in the running at the last [`Sampler::sample`], with probabilities.
    pub fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// The seed in use: the option's, or the one picked where it named none.
    pub fn seed(&self) -> u64 {
        self.rng.seed
    }

    /// Number of the next draw.
    pub fn step(&self) -> u64 {
        self.rng.step
    }

    /// Takes the number of the next draw for a draw made elsewhere, and moves on.
    pub fn take_step(&mut self) -> u64 {
        self.rng.step += 1;
        self.rng.step - 1
    }

    /// The parameters of the device's sampling operation, where it can do what this chain does; `None` if the chain
    /// has a stage that needs the CPU. The device draws with [`super::uniform`]`(seed, take_step())`.
    pub fn device_plan(&self) -> Option<DeviceSampling> {
        self.plan
    }

    /// The stages that act, in order: `logit_bias → top_k → temperature → draw`.
    pub fn chain(&self) -> String {
        let names: Vec<_> = self.stages.iter().chain([&self.last]).map(|stage| stage.name()).collect();
        names.join(" → ")
    }
}

/// -1 is the context; DRY and the penalties never reach further back.
fn look_back(last_n: i32, context: usize) -> usize {
    usize::try_from(last_n).unwrap_or(context)
}

/// Whether the options make `kind` do anything.
fn is_active(kind: Kind, o: &SamplerOptions, info: &VocabInfo) -> bool {
    match kind {
        Kind::Penalties => {
            let neutral = o.repeat_penalty == 1.0 && o.frequency_penalty == 0.0 && o.presence_penalty == 0.0;
            !neutral && look_back(o.repeat_last_n, info.context) > 0
        }
        Kind::Dry => o.dry_multiplier > 0.0 && o.dry_base >= 1.0 && look_back(o.dry_penalty_last_n, info.context) > 0,
        Kind::TopNSigma => o.top_n_sigma > 0.0,
        Kind::TopK => o.top_k > 0,
        Kind::Typical => o.typical_p < 1.0,
        Kind::TopP => o.top_p < 1.0,
        Kind::MinP => o.min_p > 0.0,
        Kind::Xtc => o.xtc_probability > 0.0 && o.xtc_threshold <= 0.5,
        Kind::Temperature => o.temp != 1.0 || o.dynatemp_range > 0.0,
        // Not a stage of its own but what takes the place of the draw; its name in an order changes nothing.
        Kind::AdaptiveP => false,
    }
}

/// The stage of an active `kind`.
fn stage(kind: Kind, o: &SamplerOptions, info: &VocabInfo) -> Box<dyn Stage> {
    let min_keep = o.min_keep;
    match kind {
        Kind::Penalties => {
            let last_n = look_back(o.repeat_last_n, info.context);
            Box::new(Penalties::new(info.tokens, last_n, o.repeat_penalty, o.frequency_penalty, o.presence_penalty))
        }
        Kind::Dry => {
            let last_n = look_back(o.dry_penalty_last_n, info.context).min(info.context);
            let numbers = (o.dry_multiplier, o.dry_base, o.dry_allowed_length as usize);
            Box::new(Dry::new(info.tokens, last_n, numbers, info.dry_breakers))
        }
        Kind::TopNSigma => Box::new(TopNSigma { n: o.top_n_sigma }),
        Kind::TopK => Box::new(TopK { k: o.top_k as usize }),
        Kind::Typical => Box::new(Typical::new(o.typical_p, min_keep)),
        Kind::TopP => Box::new(TopP { p: o.top_p, min_keep }),
        Kind::MinP => Box::new(MinP { p: o.min_p, min_keep }),
        Kind::Xtc => Box::new(Xtc { probability: o.xtc_probability, threshold: o.xtc_threshold, min_keep }),
        // Greedy is top-k of 1: so it may be the leading top-k.
        Kind::Temperature if o.is_greedy() => Box::new(TopK { k: 1 }),
        Kind::Temperature => {
            Box::new(Temperature { temp: o.temp, range: o.dynatemp_range, exponent: o.dynatemp_exponent })
        }
        Kind::AdaptiveP => unreachable!("never active"),
    }
}
