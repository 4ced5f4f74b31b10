//! The flags that say how the next token is drawn. Absent ones leave the choice to the model file and the defaults.

use crate::base::{Error, Result};
use crate::sample::{SamplerOptions, order_from_letters};
use clap::Args;
use std::str::FromStr;

/// How the next token is drawn.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplingArgs {
    /// Seed of the random numbers. The same seed gives the same text. Default, and -1: another one each time.
    #[arg(short, long, value_name = "N", env = "WGPU_LLM_SEED")]
    pub seed: Option<Seed>,
    /// Temperature; at 0 and below always the likeliest token. Default: 0.8.
    #[arg(long, value_name = "T", env = "WGPU_LLM_TEMP", value_parser = zero_at_least)]
    pub temp: Option<f32>,
    /// Only the K likeliest tokens; 0 or less is off. Default: 40.
    #[arg(long, value_name = "K", env = "WGPU_LLM_TOP_K", value_parser = count)]
    pub top_k: Option<i32>,
    /// Only the likeliest tokens that together have this probability; 1 is off. Default: 0.95.
    #[arg(long, value_name = "P", env = "WGPU_LLM_TOP_P", value_parser = fraction)]
    pub top_p: Option<f32>,
    /// Only tokens at least this likely relative to the likeliest; 0 is off. Default: 0.05.
    #[arg(long, value_name = "P", env = "WGPU_LLM_MIN_P", value_parser = fraction)]
    pub min_p: Option<f32>,
    /// Locally typical sampling with this probability; 1 is off. Default: 1.
    #[arg(long, value_name = "P", env = "WGPU_LLM_TYPICAL", value_parser = fraction)]
    pub typical: Option<f32>,
    /// Only tokens within this many standard deviations of the best logit; 0 or less is off. Default: off.
    #[arg(long, value_name = "N", env = "WGPU_LLM_TOP_NSIGMA", value_parser = finite)]
    pub top_nsigma: Option<f32>,
    /// Chance to leave out the likeliest tokens (XTC); 0 is off. Default: 0.
    #[arg(long, value_name = "P", env = "WGPU_LLM_XTC_PROBABILITY", value_parser = fraction)]
    pub xtc_probability: Option<f32>,
    /// How likely a token must be for XTC to leave it out. Default: 0.1.
    #[arg(long, value_name = "P", env = "WGPU_LLM_XTC_THRESHOLD", value_parser = fraction)]
    pub xtc_threshold: Option<f32>,
    /// Tokens kept by every filter at least. Default: 0.
    #[arg(long, value_name = "N", env = "WGPU_LLM_MIN_KEEP")]
    pub min_keep: Option<u32>,
    /// Penalty on tokens that came before; 1 is off. Default: 1.
    #[arg(long, value_name = "X", env = "WGPU_LLM_REPEAT_PENALTY", value_parser = positive)]
    pub repeat_penalty: Option<f32>,
    /// How many tokens back penalties look; 0 is off, -1 is the whole context. Default: 64.
    #[arg(long, value_name = "N", env = "WGPU_LLM_REPEAT_LAST_N")]
    pub repeat_last_n: Option<i32>,
    /// Penalty on tokens that came at all; 0 is off. Default: 0.
    #[arg(long, value_name = "X", env = "WGPU_LLM_PRESENCE_PENALTY", value_parser = finite)]
    pub presence_penalty: Option<f32>,
    /// Penalty for each time a token came; 0 is off. Default: 0.
    #[arg(long, value_name = "X", env = "WGPU_LLM_FREQUENCY_PENALTY", value_parser = finite)]
    pub frequency_penalty: Option<f32>,
    /// Strength of the penalty on repeated sequences (DRY); 0 is off. Default: 0.
    #[arg(long, value_name = "X", env = "WGPU_LLM_DRY_MULTIPLIER", value_parser = not_negative)]
    pub dry_multiplier: Option<f32>,
    /// Growth of the DRY penalty with each repeated token. Default: 1.75.
    #[arg(long, value_name = "X", env = "WGPU_LLM_DRY_BASE", value_parser = not_negative)]
    pub dry_base: Option<f32>,
    /// Longest repetition that DRY lets pass. Default: 2.
    #[arg(long, value_name = "N", env = "WGPU_LLM_DRY_ALLOWED_LENGTH")]
    pub dry_allowed_length: Option<u32>,
    /// How many tokens back DRY looks; 0 is off, -1 is the whole context. Default: -1.
    #[arg(long, value_name = "N", env = "WGPU_LLM_DRY_PENALTY_LAST_N")]
    pub dry_penalty_last_n: Option<i32>,
    /// A text that DRY does not look beyond; may be given several times, "none" for none. Default: newline : " *.
    #[arg(long, value_name = "TEXT", env = "WGPU_LLM_DRY_SEQUENCE_BREAKER")]
    pub dry_sequence_breaker: Vec<String>,
    /// Half the width of the range of a temperature that follows the entropy; 0 is off. Default: 0.
    #[arg(long, value_name = "X", env = "WGPU_LLM_DYNATEMP_RANGE", value_parser = not_negative)]
    pub dynatemp_range: Option<f32>,
    /// Exponent of that range. Default: 1.
    #[arg(long, value_name = "X", env = "WGPU_LLM_DYNATEMP_EXP", value_parser = not_negative)]
    pub dynatemp_exp: Option<f32>,
    /// Mirostat instead of the filters: 1 or 2; 0 is off. Default: 0.
    #[arg(long, value_name = "N", env = "WGPU_LLM_MIROSTAT", value_parser = clap::value_parser!(u8).range(0..=2))]
    pub mirostat: Option<u8>,
    /// Mirostat's learning rate. Default: 0.1.
    #[arg(long, value_name = "X", env = "WGPU_LLM_MIROSTAT_LR", value_parser = not_negative)]
    pub mirostat_lr: Option<f32>,
    /// Mirostat's target entropy in bits. Default: 5.
    #[arg(long, value_name = "X", env = "WGPU_LLM_MIROSTAT_ENT", value_parser = not_negative)]
    pub mirostat_ent: Option<f32>,
    /// Steers the draw to tokens near this probability (adaptive-p); below 0 it is off. Default: off.
    #[arg(long, value_name = "P", env = "WGPU_LLM_ADAPTIVE_TARGET", value_parser = at_most_1)]
    pub adaptive_target: Option<f32>,
    /// How slowly adaptive-p forgets. Default: 0.9.
    #[arg(long, value_name = "X", env = "WGPU_LLM_ADAPTIVE_DECAY", value_parser = fraction)]
    pub adaptive_decay: Option<f32>,
    /// Adds to the logit of a token, as 15043+1 or 15043-1; may be given several times.
    #[arg(long, value_name = "ID+BIAS", env = "WGPU_LLM_LOGIT_BIAS")]
    pub logit_bias: Vec<LogitBias>,
    /// The filters and their order, separated by semicolons; those left out do not act.
    /// Default: penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature.
    #[arg(long, value_name = "NAMES", env = "WGPU_LLM_SAMPLERS", value_parser = order)]
    pub samplers: Option<String>,
    /// The same with a letter for each. Default: edskypmxt.
    #[arg(long, value_name = "LETTERS", env = "WGPU_LLM_SAMPLER_SEQ", value_parser = order_from_letters, overrides_with = "samplers")]
    pub sampler_seq: Option<String>,
}

impl SamplingArgs {
    /// The options in force: the defaults, with what was asked for instead.
    pub fn options(&self) -> Result<SamplerOptions> {
        let mut o = SamplerOptions { seed: self.seed.and_then(|s| s.0), ..SamplerOptions::default() };
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut o.temp, self.temp);
        set(&mut o.top_k, self.top_k);
        set(&mut o.top_p, self.top_p);
        set(&mut o.min_p, self.min_p);
        set(&mut o.typical_p, self.typical);
        set(&mut o.top_n_sigma, self.top_nsigma);
        set(&mut o.xtc_probability, self.xtc_probability);
        set(&mut o.xtc_threshold, self.xtc_threshold);
        set(&mut o.min_keep, self.min_keep.map(|n| n as usize));
        set(&mut o.repeat_penalty, self.repeat_penalty);
        set(&mut o.repeat_last_n, self.repeat_last_n);
        set(&mut o.presence_penalty, self.presence_penalty);
        set(&mut o.frequency_penalty, self.frequency_penalty);
        set(&mut o.dry_multiplier, self.dry_multiplier);
        set(&mut o.dry_base, self.dry_base);
        set(&mut o.dry_allowed_length, self.dry_allowed_length);
        set(&mut o.dry_penalty_last_n, self.dry_penalty_last_n);
        set(&mut o.dynatemp_range, self.dynatemp_range);
        set(&mut o.dynatemp_exponent, self.dynatemp_exp);
        set(&mut o.mirostat, self.mirostat);
        set(&mut o.mirostat_eta, self.mirostat_lr);
        set(&mut o.mirostat_tau, self.mirostat_ent);
        set(&mut o.adaptive_target, self.adaptive_target);
        set(&mut o.adaptive_decay, self.adaptive_decay);
        set(&mut o.samplers, self.samplers.clone().or(self.sampler_seq.clone()));
        o.logit_bias.extend(self.logit_bias.iter().map(|b| (b.token, b.bias)));
        if !self.dry_sequence_breaker.is_empty() {
            let given = self.dry_sequence_breaker.iter().filter(|b| *b != "none");
            o.dry_sequence_breakers = given.cloned().collect();
        }
        o.validate()?;
        Ok(o)
    }
}

/// A seed; `None` for another one each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub Option<u64>);

impl FromStr for Seed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::usage("write a whole number below 2^64, or -1 for another seed each time");
        if text.parse::<i64>().is_ok_and(|n| n < 0) {
            return Ok(Seed(None));
        }
        text.parse().map(|n| Seed(Some(n))).map_err(|_| wrong())
    }
}

/// A token and what is added to its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogitBias {
    /// The token's number.
    pub token: u32,
    /// What is added; minus infinity forbids the token.
    pub bias: f32,
}

impl FromStr for LogitBias {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::usage("write ID+BIAS or ID-BIAS, for example 15043-1 or 2-inf");
        let sign = text.find(['+', '-']).ok_or_else(bad)?;
        let token = text[..sign].parse().map_err(|_| bad())?;
        let bias: f32 = text[sign..].parse().map_err(|_| bad())?;
        if bias.is_nan() || bias == f32::INFINITY {
            return Err(bad());
        }
        Ok(LogitBias { token, bias })
    }
}

fn number(text: &str, fits: impl Fn(f32) -> bool, want: &str) -> Result<f32> {
    text.parse()
        .ok()
        .filter(|x: &f32| x.is_finite() && fits(*x))
        .ok_or_else(|| Error::usage(format!("write a number {want}")))
}

fn fraction(text: &str) -> Result<f32> {
    number(text, |x| (0.0..=1.0).contains(&x), "between 0 and 1")
}

fn not_negative(text: &str) -> Result<f32> {
    number(text, |x| x >= 0.0, "of 0 or more")
}

/// What is below counts as 0.
fn zero_at_least(text: &str) -> Result<f32> {
    finite(text).map(|x| x.max(0.0))
}

fn at_most_1(text: &str) -> Result<f32> {
    number(text, |x| x <= 1.0, "of at most 1")
}

/// A number of tokens; less than none is none.
fn count(text: &str) -> Result<i32> {
    let n: i64 = text.parse().map_err(|_| Error::usage("write a whole number"))?;
    Ok(n.clamp(0, i32::MAX.into()) as i32)
}

fn order(text: &str) -> Result<String> {
    let order = SamplerOptions { samplers: text.into(), ..SamplerOptions::default() };
    order.validate().map(|()| order.samplers)
}

fn positive(text: &str) -> Result<f32> {
    number(text, |x| x > 0.0, "above 0")
}

fn finite(text: &str) -> Result<f32> {
    number(text, |_| true, "like 0.5")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_below_what_makes_sense_turn_things_off() {
        use clap::{Command, FromArgMatches};
        let command = || SamplingArgs::augment_args(Command::new("x"));
        let options = |args: &[&str]| {
            let args = ["x"].iter().chain(args).map(std::ffi::OsString::from);
            let matches = crate::app::argv::parse(command(), args).unwrap_or_else(|e| panic!("{e}"));
            SamplingArgs::from_arg_matches(&matches).unwrap().options().unwrap()
        };
        let off =
            options(&["-s", "-1", "--temp", "-1", "--top-k", "-1", "--top-nsigma", "-1", "--adaptive-target", "-1"]);
        assert_eq!((off.seed, off.temp, off.top_k), (None, 0.0, 0));
        assert!(off.top_n_sigma <= 0.0 && off.adaptive_target < 0.0);
        let other =
            options(&["--temperature", "0.5", "--top-n-sigma", "2", "--typical-p", ".9", "-l", "3-1.5", "-l", "4+1"]);
        assert_eq!((other.temp, other.top_n_sigma, other.typical_p), (0.5, 2.0, 0.9));
        assert_eq!(other.logit_bias, [(3, -1.5), (4, 1.0)]);
        let last = options(&["-s", "1", "--top-k", "5", "-s", "2", "--top-k=9"]);
        assert_eq!((last.seed, last.top_k), (Some(2), 9));
        assert_eq!(options(&["--sampling-seq", "kt"]).samplers, "top_k;temperature");
        assert_eq!(options(&["--samplers", "min_p;temp"]).samplers, "min_p;temp");
        assert_eq!("18446744073709551615".parse::<Seed>().unwrap(), Seed(Some(u64::MAX)));
        assert!("1.5".parse::<Seed>().is_err() && order("topk").is_err() && order_from_letters("z").is_err());
    }

    #[test]
    fn biases_are_read_as_llama_cpp_writes_them() {
        let bias = |text: &str| text.parse::<LogitBias>().ok().map(|b| (b.token, b.bias));
        assert_eq!(bias("15043+1"), Some((15043, 1.0)));
        assert_eq!(bias("15043-1.5"), Some((15043, -1.5)));
        assert_eq!(bias("2-inf"), Some((2, f32::NEG_INFINITY)));
        for bad in ["", "15043", "+1", "a+1", "1+", "1+inf", "1+nan", "-1+1"] {
            assert_eq!(bias(bad), None, "{bad}");
        }
    }
}
