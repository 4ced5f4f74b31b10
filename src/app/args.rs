//! The command line: commands, and the groups of flags that they share. Names are llama.cpp's.
//!
//! Every flag is also a variable of the environment, `WGPU_LLM_<FLAG>`; the flag wins. Other spellings of llama.cpp's: [`super::flags`].

use super::hub::name::{DEFAULT_MODEL, HubName, ModelName, alias};
use super::overrides::OverrideArgs;
use super::split::SplitArgs;
use super::{
    bench, chat, complete, doctor, eval, fit, inspect, ls, perplexity, profile, pull, rm, synth, tokenize, web,
};
use crate::base::{DType, Error, Result};
use crate::open::{DeviceChoice, DeviceOptions};
use crate::ops::{CACHE_TYPES, CacheTypes};
use crate::plan::fit::Layers;
use crate::quant::Precision;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::str::FromStr;

const AFTER_HELP: &str = "\
Models are named by a path, by hf:user/repo:QUANT (QUANT as in Q4_K_M; any case), by the address of their page on the hub, or by an
alias (see `ls --aliases`).
They lie in the Hugging Face cache: HF_HUB_CACHE, HF_HOME/hub, or ~/.cache/huggingface/hub.

Flags that are given twice count as they were given last, but for those that collect.
Environment: WGPU_LLM_<FLAG> for every flag, unless it is empty; WGPU_LLM_SIMD for the CPU's instructions (a wrong name lists them); HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE; RUST_LOG; NO_COLOR, CLICOLOR_FORCE.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

/// Run language models on any GPU, or on the CPU.
#[derive(Debug, Parser)]
#[command(name = "wgpu-llm", version, about, after_help = AFTER_HELP, max_term_width = 110)]
#[command(subcommand_required = false, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// List the GPUs that can be used, and the CPU.
    #[arg(long, env = "WGPU_LLM_LIST_DEVICES")]
    pub list_devices: bool,
    /// With --list-devices: print JSON.
    #[arg(long, env = "WGPU_LLM_JSON", requires = "list_devices")]
    pub json: bool,
}

impl Cli {
    /// Reads the process's arguments. Wrong usage ends the process with code 2 and a hint, `--help` with code 0.
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Cli {
        let matches = super::argv::parse(without_env(Cli::command()), args).unwrap_or_else(|e| e.exit());
        Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit())
    }
}

// Every flag has its variable by one rule: the rule stands in the help once, not the variable at every flag.
fn without_env(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.hide_env(true)).mut_subcommands(without_env)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Chat with a model.
    #[command(visible_alias = "run")]
    Chat(Box<chat::ChatArgs>),
    /// Continue a text as it stands, without a chat template.
    Complete(Box<complete::CompleteCommand>),
    /// Print logits at positions, for checking against other runtimes.
    Eval(Box<eval::EvalArgs>),
    /// Measure how well the model predicts a text.
    Perplexity(Box<perplexity::PerplexityArgs>),
    /// Print the token ids of a text.
    Tokenize(tokenize::TokenizeArgs),
    /// Measure how fast a model reads and writes, as llama-bench does.
    Bench(Box<bench::args::BenchArgs>),
    /// Show what of a model would go to the GPU, what that takes, and why.
    Fit(Box<fit::FitArgs>),
    /// Show where the time goes: run a model, or open saved traces.
    Profile(Box<profile::ProfileArgs>),
    /// Write a model file with random weights, to measure with.
    Synth(synth::SynthArgs),
    /// Check every kernel on this machine, and report what is slow or wrong.
    Doctor(doctor::DoctorArgs),
    /// Show what is in a model file: architecture, sizes, formats, tokenizer, template.
    #[command(visible_alias = "show")]
    Inspect(inspect::InspectArgs),
    /// Fetch a model into the cache, or its newest version.
    Pull(pull::PullArgs),
    /// List the models in the cache.
    #[command(visible_alias = "list")]
    Ls(ls::LsArgs),
    /// Remove a model from the cache.
    Rm(rm::RmArgs),
    /// Serve the page that runs models in a browser tab, and the models on this computer for it.
    Web(web::WebArgs),
}

/// Which model.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// A GGUF file, hf:user/repo:QUANT, or an alias. Default: smollm2-135m, small enough for any machine.
    #[arg(short, long, value_name = "MODEL", env = "WGPU_LLM_MODEL")]
    pub model: Option<OsString>,
    /// [-hf] A model on the hub. Without QUANT the first that is there of Q4_K_M, Q8_0, Q5_K_M, Q4_K_S, Q6_K, Q4_0 and others.
    #[arg(long, value_name = "USER/REPO[:QUANT]")]
    pub hf_repo: Option<String>,
    /// [-hff] With -hf: the file in the repository, instead of QUANT.
    #[arg(long, value_name = "FILE", requires = "hf_repo")]
    pub hf_file: Option<String>,
    /// Use the cache alone; never the network.
    #[arg(long, env = "WGPU_LLM_OFFLINE")]
    pub offline: bool,
    /// What of the file is taken otherwise than it stands.
    #[command(flatten)]
    pub overrides: OverrideArgs,
}

impl ModelArgs {
    /// The model that is meant. `-hf` wins: the other may come from the environment's `WGPU_LLM_MODEL`.
    pub fn name(&self) -> Result<ModelName> {
        match (&self.hf_repo, &self.model) {
            (Some(repo), _) => {
                let name = HubName::parse(repo)?;
                Ok(ModelName::Hub(HubName { want: self.hf_file.clone().or(name.want.clone()), ..name }))
            }
            (None, Some(model)) => ModelName::parse(model),
            (None, None) => Ok(ModelName::Hub(alias(DEFAULT_MODEL).expect("the default is an alias"))),
        }
    }
}

/// Where to run.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// [-dev] auto, cpu, gpu, gpu:N or gpu:NAME. auto takes a real GPU, else the CPU.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "WGPU_LLM_DEVICE")]
    pub device: DeviceChoice,
    /// [-ngl] Layers on the GPU, the output counted as one: auto (as many as pay and fit), all, or a number.
    #[arg(long, value_name = "N", default_value = "auto", env = "WGPU_LLM_N_GPU_LAYERS")]
    pub n_gpu_layers: Layers,
    /// What goes where beyond that.
    #[command(flatten)]
    pub split: SplitArgs,
    /// Take kernels as they come, instead of measuring once which are the fastest on this GPU.
    #[arg(long, env = "WGPU_LLM_NO_AUTOTUNE")]
    pub no_autotune: bool,
    /// CPU threads; 0 or less for as many as this process may use.
    #[arg(short, long, value_name = "N", env = "WGPU_LLM_THREADS", value_parser = threads)]
    pub threads: Option<u32>,
    /// What a prompt's activations are rounded to: 16 bits, as good as f32, or 8, up to twice as fast, as most runtimes do; on GPUs only where
    /// bytes were measured to be faster.
    /// Left to itself: 8 if the model is 1024 wide or more. With AMX, prompts use bf16 for weights and activations unless this is 16.
    #[arg(long, value_name = "BITS", default_value = "auto", env = "WGPU_LLM_ACTIVATION_BITS")]
    pub activation_bits: ActivationBits,
    /// What an answer's activations are rounded to where weights are quantized: 16 bits, as good as f32, or 8, but for outliers: less work for
    /// GPUs that multiply bytes and CPUs with AVX2 alone, and a little worse.
    #[arg(long, value_name = "BITS", default_value = "16", env = "WGPU_LLM_ANSWER_BITS")]
    pub answer_bits: AnswerBits,
}

impl DeviceArgs {
    /// What is asked of the device.
    pub fn options(&self) -> DeviceOptions {
        let options = self.split.options(self.device.clone(), self.n_gpu_layers);
        DeviceOptions { autotune: !self.no_autotune, ..options }
    }
}

/// See [`DeviceArgs::answer_bits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum AnswerBits {
    /// 8 bits.
    #[value(name = "8")]
    Eight,
    /// 16 bits.
    #[default]
    #[value(name = "16")]
    Sixteen,
}

impl AnswerBits {
    /// For [`Options::answer_precision`](crate::plan::Options::answer_precision).
    pub fn precision(self) -> Precision {
        match self {
            AnswerBits::Eight => Precision::Eight,
            AnswerBits::Sixteen => Precision::Sixteen,
        }
    }
}

/// See [`DeviceArgs::activation_bits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ActivationBits {
    /// By the model's width.
    #[default]
    Auto,
    /// 8 bits.
    #[value(name = "8")]
    Eight,
    /// 16 bits.
    #[value(name = "16")]
    Sixteen,
}

impl ActivationBits {
    /// For [`Options::precision`](crate::plan::Options::precision).
    pub fn precision(self) -> Option<Precision> {
        match self {
            ActivationBits::Auto => None,
            ActivationBits::Eight => Some(Precision::Eight),
            ActivationBits::Sixteen => Some(Precision::Sixteen),
        }
    }
}

/// How much context, in which pieces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Context")]
pub struct ContextArgs {
    /// Tokens of context; 0 or -1 for as many as the model was trained with. Default: that, or less if memory is short.
    #[arg(short, long, value_name = "N", env = "WGPU_LLM_CTX_SIZE", value_parser = context)]
    pub ctx_size: Option<u32>,
    /// Tokens of a prompt that are given to the model at a time.
    #[arg(short, long, value_name = "N", default_value_t = 2048, env = "WGPU_LLM_BATCH_SIZE", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: u32,
    /// [-ub] Tokens that are computed at once.
    #[arg(long, value_name = "N", default_value_t = 512, env = "WGPU_LLM_UBATCH_SIZE", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub ubatch_size: u32,
    /// [-ctk] Type of the cache's keys: f16, f32, q8_0 or q4_0.
    #[arg(long, value_name = "TYPE", default_value = "f16", env = "WGPU_LLM_CACHE_TYPE_K")]
    pub cache_type_k: String,
    /// [-ctv] Type of the cache's values: f16, f32, q8_0 or q4_0.
    #[arg(long, value_name = "TYPE", default_value = "f16", env = "WGPU_LLM_CACHE_TYPE_V")]
    pub cache_type_v: String,
    /// Let layers with a window keep all tokens, not only those they see: going back in a conversation then computes nothing again.
    #[arg(long, env = "WGPU_LLM_SWA_FULL")]
    pub swa_full: bool,
}

impl ContextArgs {
    /// The cache's types.
    pub fn kv(&self) -> Result<CacheTypes> {
        Ok(CacheTypes { keys: Self::cache_type(&self.cache_type_k)?, values: Self::cache_type(&self.cache_type_v)? })
    }

    /// The type of keys or values that is called so.
    pub fn cache_type(name: &str) -> Result<DType> {
        let found = CACHE_TYPES.iter().find(|t| t.name().eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| {
            Error::usage(format!("a cache of {name}")).help("keys and values can be f16, f32, q8_0 or q4_0")
        })
    }
}

fn threads(text: &str) -> Result<u32> {
    let n: i64 = text.parse().map_err(|_| Error::usage("write a number of threads, or 0 for the default"))?;
    let n = u32::try_from(n.max(0)).ok().filter(|n| *n <= 1024);
    n.ok_or_else(|| Error::usage("write at most 1024"))
}

fn context(text: &str) -> Result<u32> {
    match text {
        "-1" => Ok(0),
        _ => text.parse().map_err(|_| Error::usage("write a number of tokens, or 0 or -1 for the model's")),
    }
}

/// How long an answer may become: `-n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// So many tokens.
    AtMost(usize),
    /// Until the model ends it, -1: a chat forgets old turns for it where the context is full.
    UntilEnd,
    /// Until the context is full, -2, if the model does not end it before.
    UntilFull,
}

impl Length {
    /// Tokens at most.
    pub fn limit(self) -> usize {
        match self {
            Length::AtMost(n) => n,
            Length::UntilEnd | Length::UntilFull => usize::MAX,
        }
    }
}

impl FromStr for Length {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |_| Error::usage("write a number of tokens, -1 for no limit or -2 until the context is full");
        match text {
            "-1" => Ok(Length::UntilEnd),
            "-2" => Ok(Length::UntilFull),
            _ => text.parse().map(Length::AtMost).map_err(wrong),
        }
    }
}

impl FromStr for Layers {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "auto" | "-1" => Ok(Layers::Auto),
            "all" | "-2" => Ok(Layers::All),
            number => number.parse().map(Layers::Count).map_err(|_| Error::usage("write auto, all or a number")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All the shared groups in one command, as the commands have them.
    #[derive(Debug, Parser)]
    struct Everything {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        device: DeviceArgs,
        #[command(flatten)]
        context: ContextArgs,
        #[command(flatten)]
        sampling: crate::app::sampling::SamplingArgs,
    }

    fn parse(args: &[&str]) -> std::result::Result<Everything, clap::Error> {
        let args = ["x"].iter().chain(args).map(OsString::from);
        Everything::from_arg_matches(&crate::app::argv::parse(Everything::command(), args)?)
    }

    fn check(command: &clap::Command) {
        for arg in command.get_arguments() {
            // WGPU_LLM_MODEL=hf:user/repo:FILE says what --hf-repo and --hf-file do; two variables could only disagree.
            let others = ["help", "version", "hf-repo", "hf-file"];
            let Some(long) = arg.get_long().filter(|l| !others.contains(l)) else { continue };
            let want = format!("WGPU_LLM_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(
                arg.get_env().and_then(|e| e.to_str()),
                Some(want.as_str()),
                "--{long} of {}",
                command.get_name()
            );
            assert!(arg.get_help().is_some(), "--{long} has no help");
        }
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn the_command_line_is_sound_and_every_flag_is_a_variable() {
        Cli::command().debug_assert();
        Everything::command().debug_assert();
        check(&Cli::command());
        check(&Everything::command());
    }

    #[test]
    fn every_short_name_leads_to_a_flag_that_says_so() {
        let command = Everything::command();
        for arg in command.get_arguments() {
            let help = arg.get_help().map(|h| h.to_string()).unwrap_or_default();
            let Some(short) = help.strip_prefix('[').and_then(|h| h.split(']').next()) else { continue };
            let long = format!("--{}", arg.get_long().expect("a long name"));
            let fate = crate::app::flags::find(short).map(|flag| flag.fate);
            assert!(matches!(fate, Some(crate::app::flags::Fate::Is(name)) if name == long), "{short}: {fate:?}");
        }
    }

    #[test]
    fn help_tells_the_order_of_quantizations_that_is_tried() {
        let command = Everything::command();
        let arg = command.get_arguments().find(|a| a.get_long() == Some("hf-repo")).expect("a flag");
        let order = crate::app::hub::pick::PREFERENCE[..6].join(", ");
        assert!(arg.get_help().expect("help").to_string().contains(&order), "{order}");
    }

    #[test]
    fn shared_flags_are_read() {
        let all = parse(&["-dev", "gpu:radeon", "-ngl", "all", "-c", "4096", "-ub", "64", "-hf", "u/r:q8_0"]).unwrap();
        assert_eq!(all.device.device, DeviceChoice::GpuName("radeon".into()));
        assert_eq!(
            (all.device.n_gpu_layers, all.context.ctx_size, all.context.ubatch_size),
            (Layers::All, Some(4096), 64)
        );
        assert!(matches!(all.model.name(), Ok(ModelName::Hub(name)) if name.to_string() == "hf:u/r:q8_0"));
        let plain = parse(&[]).unwrap();
        assert_eq!((plain.device.device, plain.device.n_gpu_layers), (DeviceChoice::Auto, Layers::Auto));
        assert!(matches!(plain.model.name(), Ok(ModelName::Hub(name)) if name.wheel.is_some()));
        assert_eq!("GPU:2".parse::<DeviceChoice>().unwrap(), DeviceChoice::GpuNumber(2));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        for (args, hint) in [
            (&["--device", "tpu"][..], "gpu:NAME"),
            (&["-dev", "gpu:"], "gpu:NAME"),
            (&["-ngl", "many"], "auto, all or a number"),
            (&["--devise", "cpu"], "--device"),
            (&["-t", "1025"], "at most 1024"),
            (&["-c", "-2"], "0 or -1"),
            (&["--top-p", "1.5"], "between 0 and 1"),
            (&["--temp", "nan"], "a number"),
            (&["--logit-bias", "x"], "ID+BIAS"),
        ] {
            let e = parse(args).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(e.to_string().contains(hint), "{args:?}: {e}");
        }
    }
}
