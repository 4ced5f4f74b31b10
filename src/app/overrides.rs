//! Flags that take something of a model file otherwise than it stands there: metadata, rotary embedding, tensors nobody reads.

use crate::base::{Error, Result};
use crate::gguf::Value;
use crate::model::Overrides;
use clap::{Args, ValueEnum};
use regex::Regex;
use std::str::FromStr;

/// What of the file is changed.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Instead of what the model file says")]
pub struct OverrideArgs {
    /// Set a metadata key, as KEY=TYPE:VALUE with TYPE int, float, bool or str; may be given several times.
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_delimiter = ',', env = "WGPU_LLM_OVERRIDE_KV")]
    pub override_kv: Vec<KeyOverride>,
    /// Run the model though nothing reads the tensors whose names match. Its answers may be wrong.
    #[arg(long, value_name = "REGEX", env = "WGPU_LLM_IGNORE_TENSORS")]
    pub ignore_tensors: Option<Regex>,
    /// How positions beyond the trained context are scaled.
    #[arg(long, value_name = "KIND", env = "WGPU_LLM_ROPE_SCALING")]
    pub rope_scaling: Option<RopeScaling>,
    /// Stretch positions so that the context grows by this factor.
    #[arg(long, value_name = "X", env = "WGPU_LLM_ROPE_SCALE", value_parser = factor)]
    pub rope_scale: Option<f32>,
    /// The same as 1/X.
    #[arg(long, value_name = "X", env = "WGPU_LLM_ROPE_FREQ_SCALE", value_parser = factor, conflicts_with = "rope_scale")]
    pub rope_freq_scale: Option<f32>,
    /// Base of the rotary embedding's frequencies.
    #[arg(long, value_name = "X", env = "WGPU_LLM_ROPE_FREQ_BASE", value_parser = factor)]
    pub rope_freq_base: Option<f32>,
    /// YaRN: tokens of context that the model was trained with at first; 0 for the model's own.
    #[arg(long, value_name = "N", env = "WGPU_LLM_YARN_ORIG_CTX")]
    pub yarn_orig_ctx: Option<u32>,
    /// YaRN: part of extrapolation; 0 is interpolation alone, -1 the model's own.
    #[arg(long, value_name = "X", env = "WGPU_LLM_YARN_EXT_FACTOR", value_parser = number, allow_negative_numbers = true)]
    pub yarn_ext_factor: Option<f32>,
    /// YaRN: factor on the square root of attention's temperature; -1 is the model's own.
    #[arg(long, value_name = "X", env = "WGPU_LLM_YARN_ATTN_FACTOR", value_parser = number, allow_negative_numbers = true)]
    pub yarn_attn_factor: Option<f32>,
    /// YaRN: turns over the original context below which a frequency is stretched whole; -1 is the model's own.
    #[arg(long, value_name = "X", env = "WGPU_LLM_YARN_BETA_SLOW", value_parser = number, allow_negative_numbers = true)]
    pub yarn_beta_slow: Option<f32>,
    /// YaRN: turns above which a frequency is left as it is; -1 is the model's own.
    #[arg(long, value_name = "X", env = "WGPU_LLM_YARN_BETA_FAST", value_parser = number, allow_negative_numbers = true)]
    pub yarn_beta_fast: Option<f32>,
}

/// See [`OverrideArgs::rope_scaling`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All alike.
    Linear,
    /// YaRN.
    Yarn,
}

impl OverrideArgs {
    /// For [`Model::open_with`](crate::model::Model::open_with).
    pub fn overrides(&self) -> Overrides {
        let kind = self.rope_scaling.map(|kind| match kind {
            RopeScaling::None => Value::from("none"),
            RopeScaling::Linear => Value::from("linear"),
            RopeScaling::Yarn => Value::from("yarn"),
        });
        let float = |x: Option<f32>| x.map(Value::F32);
        let not_negative = |x: Option<f32>| float(x.filter(|x| *x >= 0.0));
        // As elsewhere 0 stands for the model's own.
        let nonzero = |x: Option<f32>| x.filter(|x| *x != 0.0);
        let stretch = nonzero(self.rope_scale).or(nonzero(self.rope_freq_scale).map(|x| 1.0 / x));
        let own_keys = [
            ("rope.scaling.type", kind),
            ("rope.scaling.factor", float(stretch)),
            ("rope.freq_base", float(nonzero(self.rope_freq_base))),
            ("rope.scaling.original_context_length", self.yarn_orig_ctx.filter(|n| *n > 0).map(Value::U32)),
            ("rope.scaling.yarn_ext_factor", not_negative(self.yarn_ext_factor)),
            ("rope.scaling.yarn_attn_factor", not_negative(self.yarn_attn_factor)),
            ("rope.scaling.yarn_beta_slow", not_negative(self.yarn_beta_slow)),
            ("rope.scaling.yarn_beta_fast", not_negative(self.yarn_beta_fast)),
        ];
        Overrides {
            own_keys: own_keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
            keys: self.override_kv.iter().map(|o| (o.key.clone(), o.value.clone())).collect(),
            ignore_tensors: self.ignore_tensors.clone(),
        }
    }
}

/// A key and its new value.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyOverride {
    /// The key's whole name.
    pub key: String,
    /// What it is set to.
    pub value: Value,
}

impl FromStr for KeyOverride {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(
                "write KEY=TYPE:VALUE with TYPE int, float, bool or str, as in tokenizer.ggml.add_bos_token=bool:false",
            )
        };
        let (key, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (kind, value) = rest.split_once(':').ok_or_else(wrong)?;
        let value = match kind {
            "int" => value.parse().map(Value::I64).map_err(|_| wrong())?,
            "float" => value.parse().ok().filter(|x: &f32| x.is_finite()).map(Value::F32).ok_or_else(wrong)?,
            "bool" => value.parse().map(Value::Bool).map_err(|_| wrong())?,
            "str" => Value::from(value),
            _ => return Err(wrong()),
        };
        if key.is_empty() {
            return Err(wrong());
        }
        Ok(KeyOverride { key: key.to_owned(), value })
    }
}

fn number(text: &str) -> Result<f32> {
    text.parse().ok().filter(|x: &f32| x.is_finite()).ok_or_else(|| Error::usage("write a number like 0.5"))
}

fn factor(text: &str) -> Result<f32> {
    number(text).ok().filter(|x| *x >= 0.0).ok_or_else(|| Error::usage("write a number of 0 or more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_set_as_llama_cpp_writes_them() {
        let read = |text: &str| text.parse::<KeyOverride>().ok().map(|o| (o.key, o.value));
        assert_eq!(read("a.b=int:-3"), Some(("a.b".into(), Value::I64(-3))));
        assert_eq!(read("a=float:0.5"), Some(("a".into(), Value::F32(0.5))));
        assert_eq!(read("a=bool:true"), Some(("a".into(), Value::Bool(true))));
        assert_eq!(read("a=str:x:y=z"), Some(("a".into(), Value::from("x:y=z"))));
        for bad in ["", "a", "a=3", "a=int:x", "a=float:nan", "a=bool:1", "=int:1", "a=u32:1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn flags_of_the_rotary_embedding_become_keys() {
        let args = OverrideArgs {
            rope_freq_scale: Some(0.25),
            rope_scaling: Some(RopeScaling::Yarn),
            yarn_ext_factor: Some(-1.0),
            yarn_beta_fast: Some(16.0),
            rope_freq_base: Some(0.0),
            ..OverrideArgs::default()
        };
        let want = [
            ("rope.scaling.type", Value::from("yarn")),
            ("rope.scaling.factor", Value::F32(4.0)),
            ("rope.scaling.yarn_beta_fast", Value::F32(16.0)),
        ];
        assert_eq!(args.overrides().own_keys, want);
    }
}
