//! What a user can set about sampling; names and defaults are llama.cpp's.

use super::order;
use crate::base::{Error, Result};
use serde::{Deserialize, Serialize};

/// All the knobs. Reads and writes the field names of llama.cpp's server; what is absent keeps its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SamplerOptions {
    /// Temperature: logits are divided by it. At 0 and below the best token is taken ("greedy").
    #[serde(rename = "temperature", alias = "temp")]
    pub temp: f32,
    /// Half the width of the range in which the temperature follows the entropy; 0: fixed.
    pub dynatemp_range: f32,
    /// Curve from entropy to temperature; 1: a straight line.
    pub dynatemp_exponent: f32,
    /// Keep this many of the best tokens; 0 and below: all.
    pub top_k: i32,
    /// Keep the best tokens that hold this much probability; 1: all.
    pub top_p: f32,
    /// Keep tokens at least this share as probable as the best; 0: all.
    pub min_p: f32,
    /// Keep the most typical tokens that hold this much probability; 1: all.
    #[serde(alias = "typ_p")]
    pub typical_p: f32,
    /// Ban tokens more than this many standard deviations below the best; 0 and below: off.
    pub top_n_sigma: f32,
    /// Fewest tokens that typical, top-p, min-p and XTC leave.
    pub min_keep: usize,
    /// How often XTC takes the top choices away; 0: never.
    pub xtc_probability: f32,
    /// Probability from which on a token is a top choice; above 0.5: XTC is off.
    pub xtc_threshold: f32,
    /// Tokens the penalties look back at; 0: off, -1: the context.
    pub repeat_last_n: i32,
    /// Divides positive and multiplies negative logits of tokens seen; 1: off.
    pub repeat_penalty: f32,
    /// Subtracted per occurrence; 0: off.
    pub frequency_penalty: f32,
    /// Subtracted once; 0: off.
    pub presence_penalty: f32,
    /// DRY: the penalty of the shortest repetition that counts; 0: off.
    pub dry_multiplier: f32,
    /// DRY: growth of the penalty per token of repetition; below 1: off.
    pub dry_base: f32,
    /// DRY: longest repetition that goes unpunished.
    pub dry_allowed_length: u32,
    /// DRY: tokens it looks back at; 0: off, -1: the context.
    pub dry_penalty_last_n: i32,
    /// DRY: texts that repetitions do not reach across. [`super::tokenize_breakers`] turns them into tokens.
    pub dry_sequence_breakers: Vec<String>,
    /// 0: off; 1 or 2: that version of mirostat, in place of the whole order but temperature and logit bias.
    pub mirostat: u8,
    /// Mirostat: surprise to hold, in bits.
    pub mirostat_tau: f32,
    /// Mirostat: how fast it corrects.
    pub mirostat_eta: f32,
    /// Adaptive-p: probability to draw near, in place of the plain draw; negative: off.
    pub adaptive_target: f32,
    /// Adaptive-p: how slowly its mean forgets, 0 to 0.99.
    pub adaptive_decay: f32,
    /// Added to the logits of these tokens; -inf (`false` in JSON) bans one. Reads `[[id, bias], …]` and
    /// `{"id": bias, …}`.
    #[serde(with = "bias")]
    pub logit_bias: Vec<(u32, f32)>,
    /// The samplers in order, joined by `;` (see [`super::DEFAULT_ORDER`]); those left out do not act.
    pub samplers: String,
    /// Seed of the draws; absent (or negative in JSON): another one each time.
    #[serde(deserialize_with = "read_seed")]
    pub seed: Option<u64>,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            temp: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: -1.0,
            min_keep: 0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: -1,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            adaptive_target: -1.0,
            adaptive_decay: 0.9,
            logit_bias: Vec::new(),
            samplers: order::DEFAULT_ORDER.into(),
            seed: None,
        }
    }
}

impl SamplerOptions {
    /// The best token each time: temperature 0.
    pub fn greedy() -> Self {
        SamplerOptions { temp: 0.0, ..Self::default() }
    }

    /// Fails, naming the field, what it is and what it may be, where a value makes no sense.
    pub fn validate(&self) -> Result<()> {
        let any = f32::MIN..=f32::MAX;
        let from_0 = 0.0..=f32::MAX;
        // (name, value, allowed): NaN is in no range, and infinities in none of these.
        let numbers = [
            ("temperature", self.temp, &any),
            ("top_n_sigma", self.top_n_sigma, &any),
            ("frequency_penalty", self.frequency_penalty, &any),
            ("presence_penalty", self.presence_penalty, &any),
            ("dynatemp_range", self.dynatemp_range, &from_0),
            ("dynatemp_exponent", self.dynatemp_exponent, &from_0),
            ("repeat_penalty", self.repeat_penalty, &(f32::MIN_POSITIVE..=f32::MAX)),
            ("dry_multiplier", self.dry_multiplier, &from_0),
            ("dry_base", self.dry_base, &from_0),
            ("mirostat_tau", self.mirostat_tau, &from_0),
            ("mirostat_eta", self.mirostat_eta, &from_0),
            ("top_p", self.top_p, &(0.0..=1.0)),
            ("min_p", self.min_p, &(0.0..=1.0)),
            ("typical_p", self.typical_p, &(0.0..=1.0)),
            ("xtc_probability", self.xtc_probability, &(0.0..=1.0)),
            ("xtc_threshold", self.xtc_threshold, &(0.0..=1.0)),
            ("adaptive_target", self.adaptive_target, &(f32::MIN..=1.0)),
            ("adaptive_decay", self.adaptive_decay, &(0.0..=0.99)),
        ];
        for (name, value, allowed) in numbers {
            if !allowed.contains(&value) {
                return Err(Error::usage(format!("{name} is {value}")).help(allowed_text(name, allowed)));
            }
        }
        for (name, value) in [("repeat_last_n", self.repeat_last_n), ("dry_penalty_last_n", self.dry_penalty_last_n)] {
            if value < -1 {
                let help = "a number of tokens, 0 for none or -1 for the whole context";
                return Err(Error::usage(format!("{name} is {value}")).help(help));
            }
        }
        if self.mirostat > 2 {
            let help = "0 is off, and there are versions 1 and 2";
            return Err(Error::usage(format!("mirostat is {}", self.mirostat)).help(help));
        }
        for &(id, bias) in &self.logit_bias {
            if bias.is_nan() || bias == f32::INFINITY {
                let help = "a finite number, or -inf to ban the token";
                return Err(Error::usage(format!("the logit bias of token {id} is {bias}")).help(help));
            }
        }
        order::parse(&self.samplers)?;
        Ok(())
    }

    /// Whether the best token is taken whatever the seed.
    pub(super) fn is_greedy(&self) -> bool {
        self.temp <= 0.0 && self.dynatemp_range <= 0.0
    }
}

/// "top_p goes from 0 to 1", in the words that fit the range.
fn allowed_text(name: &str, allowed: &std::ops::RangeInclusive<f32>) -> String {
    match (*allowed.start(), *allowed.end()) {
        (f32::MIN, f32::MAX) => format!("{name} must be a finite number"),
        (f32::MIN, high) => format!("{name} must be at most {high}"),
        (0.0, f32::MAX) => format!("{name} must be 0 or more"),
        (f32::MIN_POSITIVE, _) => format!("{name} must be above 0"),
        (low, high) => format!("{name} goes from {low} to {high}"),
    }
}

/// A number, or null or a negative number for none: clients of llama.cpp send -1.
fn read_seed<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(from)? else { return Ok(None) };
    match (number.as_u64(), number.as_i64()) {
        (Some(seed), _) => Ok(Some(seed)),
        (None, Some(_)) => Ok(None),
        (None, None) => Err(serde::de::Error::custom(format!("seed {number} is not a whole number below 2^64"))),
    }
}

/// Logit bias in JSON, which has no infinity: `false` is a ban, as in llama.cpp's server.
mod bias {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::collections::BTreeMap;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Bias {
        Add(f32),
        Switch(bool),
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Biases {
        List(Vec<(u32, Bias)>),
        Map(BTreeMap<String, Bias>),
    }

    pub fn serialize<S: Serializer>(pairs: &[(u32, f32)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(pairs.iter().map(|&(id, bias)| match bias {
            f32::NEG_INFINITY => (id, Bias::Switch(false)),
            _ => (id, Bias::Add(bias)),
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u32, f32)>, D::Error> {
        let number = |bias: Bias| match bias {
            Bias::Add(bias) => Ok(bias),
            Bias::Switch(false) => Ok(f32::NEG_INFINITY),
            Bias::Switch(true) => Err(D::Error::custom("a logit bias is a number, or false for a ban; not true")),
        };
        let id = |key: &str| key.parse().map_err(|_| D::Error::custom(format!("{key:?} in logit_bias is no token id")));
        match Biases::deserialize(from)? {
            Biases::List(list) => list.into_iter().map(|(id, bias)| Ok((id, number(bias)?))).collect(),
            Biases::Map(map) => map.into_iter().map(|(key, bias)| Ok((id(&key)?, number(bias)?))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Change = fn(&mut SamplerOptions);

    #[test]
    fn json_both_ways() {
        let text = r#"{"temp": 0.5, "seed": -1, "logit_bias": [[3, 1.5], [4, false]], "samplers": "top_k"}"#;
        let options: SamplerOptions = serde_json::from_str(text).unwrap();
        assert_eq!((options.temp, options.seed, options.top_p), (0.5, None, 0.95));
        assert_eq!(options.logit_bias, [(3, 1.5), (4, f32::NEG_INFINITY)]);
        let again: SamplerOptions = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
        assert_eq!(options, again);
        let open_ai = r#"{"logit_bias": {"50256": -100}, "seed": 18446744073709551615, "temperature": 1}"#;
        let options: SamplerOptions = serde_json::from_str(open_ai).unwrap();
        assert_eq!((options.logit_bias, options.seed, options.temp), (vec![(50256, -100.0)], Some(u64::MAX), 1.0));
        for bad in [r#"{"seed": 1.5}"#, r#"{"logit_bias": {"a": 1}}"#, r#"{"logit_bias": [[1, true]]}"#] {
            assert!(serde_json::from_str::<SamplerOptions>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        SamplerOptions::default().validate().unwrap();
        SamplerOptions::greedy().validate().unwrap();
        let cases: [(&str, Change); 16] = [
            ("temperature is NaN; temperature must be a finite number", |o| o.temp = f32::NAN),
            ("top_p is 1.5; top_p goes from 0 to 1", |o| o.top_p = 1.5),
            ("top_p is -0.1", |o| o.top_p = -0.1),
            ("min_p is NaN", |o| o.min_p = f32::NAN),
            ("typical_p is inf", |o| o.typical_p = f32::INFINITY),
            ("repeat_penalty is 0; repeat_penalty must be above 0", |o| o.repeat_penalty = 0.0),
            ("repeat_last_n is -2", |o| o.repeat_last_n = -2),
            ("dry_penalty_last_n is -7", |o| o.dry_penalty_last_n = -7),
            ("dry_multiplier is -1; dry_multiplier must be 0 or more", |o| o.dry_multiplier = -1.0),
            ("xtc_probability is 2", |o| o.xtc_probability = 2.0),
            ("mirostat is 3", |o| o.mirostat = 3),
            ("mirostat_tau is -5", |o| o.mirostat_tau = -5.0),
            ("adaptive_target is 1.1; adaptive_target must be at most 1", |o| o.adaptive_target = 1.1),
            ("adaptive_decay is 1; adaptive_decay goes from 0 to 0.99", |o| o.adaptive_decay = 1.0),
            ("the logit bias of token 7 is NaN", |o| o.logit_bias = vec![(7, f32::NAN)]),
            ("unknown sampler \"nope\"", |o| o.samplers = "top_k;nope".into()),
        ];
        for (text, spoil) in cases {
            let mut options = SamplerOptions::default();
            spoil(&mut options);
            let e = options.validate().unwrap_err();
            assert_eq!(e.kind(), crate::base::ErrorKind::Usage);
            assert!(e.to_string().contains(text), "{e}");
        }
    }
}
