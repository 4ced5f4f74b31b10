//! Arguments of `bench`: llama-bench's, and the tests that they mean.

use super::numbers::{Numbers, Pair};
use super::output::Format;
use crate::app::args::{ActivationBits, AnswerBits, ContextArgs, ModelArgs};
use crate::app::hub::name::{HubName, ModelName};
use crate::app::overrides::OverrideArgs;
use crate::app::split::SplitArgs;
use crate::base::{Error, Result};
use crate::model::synth::Synthetic;
use crate::open::DeviceChoice;
use crate::ops::CacheTypes;
use crate::plan::fit::Layers;
use clap::Args;
use std::ffi::OsString;
use std::str::FromStr;

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(
    after_help = "Several values can be given to each test parameter: separated by commas, as ranges FIRST-LAST, FIRST-LAST+STEP, \
FIRST-LAST*FACTOR, or by giving the flag several times. Every combination is measured."
)]
pub struct BenchArgs {
    /// GGUF files, hf:user/repo:QUANT, or aliases.
    #[arg(short, long, value_name = "MODEL", value_delimiter = ',', env = "WGPU_LLM_MODEL")]
    pub model: Vec<OsString>,
    /// [-hf] A model on the hub.
    #[arg(long, value_name = "USER/REPO[:QUANT]")]
    pub hf_repo: Vec<String>,
    /// Use the cache alone; never the network.
    #[arg(long, env = "WGPU_LLM_OFFLINE")]
    pub offline: bool,
    /// What of the files is taken otherwise than it stands.
    #[command(flatten)]
    pub overrides: OverrideArgs,
    /// Models made in memory: SHAPE:FORMAT, as in llama-1b:q4_0. See `synth`.
    #[arg(long, value_name = "SHAPE:FORMAT", value_delimiter = ',', env = "WGPU_LLM_SYNTHETIC")]
    pub synthetic: Vec<Synthetic>,
    /// [-dev] auto, cpu, gpu, gpu:N or gpu:NAME. auto takes a real GPU, else the CPU.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "WGPU_LLM_DEVICE")]
    pub device: DeviceChoice,
    /// Tokens of prompt; 0 for no such test.
    #[arg(short = 'p', long, value_name = "N", default_value = "512", env = "WGPU_LLM_N_PROMPT")]
    pub n_prompt: Vec<Numbers>,
    /// Tokens of answer; 0 for no such test.
    #[arg(short = 'n', long, value_name = "N", default_value = "128", env = "WGPU_LLM_N_GEN")]
    pub n_gen: Vec<Numbers>,
    /// [-pg] A prompt and then an answer.
    #[arg(long, value_name = "P,N", env = "WGPU_LLM_PROMPT_GEN")]
    pub prompt_gen: Vec<Pair>,
    /// Tokens in the cache before each test.
    #[arg(short = 'd', long, value_name = "N", default_value = "0", env = "WGPU_LLM_N_DEPTH")]
    pub n_depth: Vec<Numbers>,
    /// Tokens of a prompt that are given to the model at a time.
    #[arg(short, long, value_name = "N", default_value = "2048", env = "WGPU_LLM_BATCH_SIZE")]
    pub batch_size: Vec<Numbers>,
    /// [-ub] Tokens that are computed at once.
    #[arg(long, value_name = "N", default_value = "512", env = "WGPU_LLM_UBATCH_SIZE")]
    pub ubatch_size: Vec<Numbers>,
    /// [-ctk] Type of the cache's keys.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "f16", env = "WGPU_LLM_CACHE_TYPE_K")]
    pub cache_type_k: Vec<String>,
    /// [-ctv] Type of the cache's values.
    #[arg(long, value_name = "TYPE", value_delimiter = ',', default_value = "f16", env = "WGPU_LLM_CACHE_TYPE_V")]
    pub cache_type_v: Vec<String>,
    /// CPU threads. Default: as many as this process may use.
    #[arg(short, long, value_name = "N", env = "WGPU_LLM_THREADS")]
    pub threads: Vec<Numbers>,
    /// What a prompt's activations are rounded to: 16 bits, 8 but for outliers (on GPUs only if bytes were measured to be faster), or auto: what
    /// suits the model's width.
    #[arg(long, value_name = "BITS", default_value = "auto", env = "WGPU_LLM_ACTIVATION_BITS")]
    pub activation_bits: ActivationBits,
    /// What an answer's activations are rounded to: 16 bits, or 8 but for outliers.
    #[arg(long, value_name = "BITS", default_value = "16", env = "WGPU_LLM_ANSWER_BITS")]
    pub answer_bits: AnswerBits,
    /// [-ngl] Layers on the GPU: auto (as many as fit), all, or a number.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "auto", env = "WGPU_LLM_N_GPU_LAYERS")]
    pub n_gpu_layers: Vec<Layers>,
    /// What goes where beyond that.
    #[command(flatten)]
    pub split: SplitArgs,
    /// [-fa] Fused attention: on or auto. There is no other here.
    #[arg(
        long,
        value_name = "on|off|auto",
        value_delimiter = ',',
        default_value = "auto",
        env = "WGPU_LLM_FLASH_ATTN"
    )]
    pub flash_attn: Vec<Fused>,
    /// [-npl] Prompts at once, and then as many answers, instead of the tests of -p, -n and -pg: 1,4,16,64.
    #[arg(long, value_name = "N", env = "WGPU_LLM_PARALLEL", conflicts_with_all = ["n_prompt", "n_gen", "prompt_gen", "n_depth", "kernels"])]
    pub parallel: Vec<Numbers>,
    /// [-npp] With --parallel, tokens of each prompt.
    #[arg(long, value_name = "N", default_value = "128", requires = "parallel", env = "WGPU_LLM_PARALLEL_PROMPT")]
    pub parallel_prompt: Vec<Numbers>,
    /// [-ntg] With --parallel, tokens of each answer.
    #[arg(long, value_name = "N", default_value = "128", requires = "parallel", env = "WGPU_LLM_PARALLEL_ANSWER")]
    pub parallel_answer: Vec<Numbers>,
    /// Times that each test is repeated.
    #[arg(short, long, value_name = "N", default_value_t = 5, env = "WGPU_LLM_REPETITIONS", value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub repetitions: u32,
    /// Seconds to wait before each test.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, env = "WGPU_LLM_DELAY")]
    pub delay: u32,
    /// Leave out the runs that warm up.
    #[arg(long, env = "WGPU_LLM_NO_WARMUP")]
    pub no_warmup: bool,
    /// Say on stderr what is being run.
    #[arg(long, env = "WGPU_LLM_PROGRESS")]
    pub progress: bool,
    /// Where time goes: after each test run it once more, kernel by kernel.
    #[arg(long, env = "WGPU_LLM_KERNELS")]
    pub kernels: bool,
    /// Measure instead what each device can do at the most: bandwidth of memory, rates of arithmetic.
    #[arg(long, env = "WGPU_LLM_DEVICE_ROOFLINE")]
    pub device_roofline: bool,
    /// Form of the results.
    #[arg(short, long, value_name = "md|csv|json|jsonl|sql", default_value = "md", env = "WGPU_LLM_OUTPUT")]
    pub output: Format,
    /// Print JSON: the same as -o json.
    #[arg(long, env = "WGPU_LLM_JSON")]
    pub json: bool,
}

/// Whether attention is fused: it always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fused;

impl FromStr for Fused {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "on" | "auto" | "1" | "-1" => Ok(Fused),
            "off" | "0" => Err(Error::usage("attention is always fused here; leave the flag out")),
            _ => Err(Error::usage("write on or auto")),
        }
    }
}

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// A file or the hub.
    Named(ModelName),
    /// Made up.
    Synthetic(Synthetic),
}

/// What takes a session of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    /// Layers on the GPU.
    pub layers: Layers,
    /// Types of the cache.
    pub kv: CacheTypes,
    /// Tokens given at a time.
    pub batch: u32,
    /// Tokens computed at once.
    pub ubatch: u32,
    /// CPU threads; 0 for one per core.
    pub threads: u32,
    /// Tokens in the cache before each test.
    pub depth: u32,
}

/// What is timed: a prompt, an answer, or both, after `depth` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// Tokens of prompt.
    pub prompt: u32,
    /// Tokens of answer.
    pub answer: u32,
}

impl Test {
    /// llama-bench's name: `pp512`, `tg128 @ d4096`, `pp512+tg128`.
    pub fn name(&self, depth: u32) -> String {
        let name = match (self.prompt, self.answer) {
            (p, 0) => format!("pp{p}"),
            (0, n) => format!("tg{n}"),
            (p, n) => format!("pp{p}+tg{n}"),
        };
        if depth > 0 { format!("{name} @ d{depth}") } else { name }
    }

    /// Tokens in all.
    pub fn tokens(&self) -> u32 {
        self.prompt + self.answer
    }
}

impl BenchArgs {
    /// The models meant, or the default one.
    pub fn origins(&self) -> Result<Vec<Origin>> {
        let mut all = Vec::new();
        // `--synthetic` and `-hf` win over a name from the environment only if none is written: all that are named count.
        for name in &self.model {
            all.push(Origin::Named(ModelName::parse(name)?));
        }
        for repo in &self.hf_repo {
            all.push(Origin::Named(ModelName::Hub(HubName::parse(repo)?)));
        }
        all.extend(self.synthetic.iter().copied().map(Origin::Synthetic));
        if all.is_empty() {
            all.push(Origin::Named(ModelArgs::default().name()?));
        }
        Ok(all)
    }

    /// The tests of each setting, in llama-bench's order.
    pub fn tests(&self) -> Result<Vec<Test>> {
        let some = |list: &[Numbers]| -> Vec<u32> { numbers(list).into_iter().filter(|n| *n > 0).collect() };
        let mut all: Vec<Test> = some(&self.n_prompt).into_iter().map(|prompt| Test { prompt, answer: 0 }).collect();
        all.extend(some(&self.n_gen).into_iter().map(|answer| Test { prompt: 0, answer }));
        all.extend(self.prompt_gen.iter().map(|pair| Test { prompt: pair.0, answer: pair.1 }));
        if all.is_empty() {
            return Err(Error::usage("there is nothing to measure").help("give -p, -n or -pg more than 0 tokens"));
        }
        Ok(all)
    }

    /// All combinations of what takes a session of its own.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        let threads = if self.threads.is_empty() { vec![0] } else { within("-t", &self.threads, 1..=1024)? };
        let batches = within("-b", &self.batch_size, 1..=65536)?;
        let ubatches = within("-ub", &self.ubatch_size, 1..=65536)?;
        let mut all = Vec::new();
        for layers in &self.n_gpu_layers {
            for kv in self.caches()? {
                for &batch in &batches {
                    for &ubatch in &ubatches {
                        for &threads in &threads {
                            for depth in numbers(&self.n_depth) {
                                all.push(Setting { layers: *layers, kv, batch, ubatch, threads, depth });
                            }
                        }
                    }
                }
            }
        }
        Ok(all)
    }

    fn caches(&self) -> Result<Vec<CacheTypes>> {
        let types =
            |names: &[String]| names.iter().map(|name| ContextArgs::cache_type(name)).collect::<Result<Vec<_>>>();
        let (keys, values) = (types(&self.cache_type_k)?, types(&self.cache_type_v)?);
        Ok(keys.iter().flat_map(|k| values.iter().map(|v| CacheTypes { keys: *k, values: *v })).collect())
    }

    /// The form of the results.
    pub fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }
}

fn numbers(list: &[Numbers]) -> Vec<u32> {
    list.iter().flat_map(|n| n.0.iter().copied()).collect()
}

fn within(flag: &str, list: &[Numbers], range: std::ops::RangeInclusive<u32>) -> Result<Vec<u32>> {
    let all = numbers(list);
    match all.iter().find(|n| !range.contains(n)) {
        Some(n) => Err(Error::usage(format!("{flag} {n}: write {} to {}", range.start(), range.end()))),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(args: &[&str]) -> std::result::Result<BenchArgs, clap::Error> {
        let args = ["bench"].iter().chain(args).map(std::ffi::OsString::from);
        Ok(Cli::from_arg_matches(&crate::app::argv::parse(Cli::command(), args)?)?.bench)
    }

    #[test]
    fn tests_are_llama_benchs() {
        let names = |args: &[&str]| -> Vec<String> {
            parse(args).unwrap().tests().unwrap().iter().map(|t| t.name(0)).collect()
        };
        assert_eq!(names(&[]), ["pp512", "tg128"]);
        assert_eq!(names(&["-p", "64,128", "-n", "0", "-pg", "512,64"]), ["pp64", "pp128", "pp512+tg64"]);
        assert_eq!(names(&["-p", "0", "-n", "1-2", "-n", "8"]), ["tg1", "tg2", "tg8"]);
        assert!(parse(&["-p", "0", "-n", "0"]).unwrap().tests().is_err());
        assert_eq!(Test { prompt: 512, answer: 0 }.name(4096), "pp512 @ d4096");
    }

    #[test]
    fn every_combination_is_measured() {
        let args = parse(&["-d", "0,4096", "-ub", "64-256*2", "-t", "1-2", "-ngl", "0,all"]).unwrap();
        let settings = args.settings().unwrap();
        assert_eq!(settings.len(), 2 * 3 * 2 * 2);
        assert_eq!((settings[1].depth, settings[2].threads, settings[4].ubatch), (4096, 2, 128));
        assert!(parse(&["-t", "0"]).unwrap().settings().unwrap_err().to_string().contains("1 to 1024"));
        let caches = |args: &[&str]| -> Vec<String> {
            parse(args).unwrap().settings().unwrap().iter().map(|s| s.kv.to_string()).collect()
        };
        assert_eq!(caches(&["-ctk", "q8_0"]), ["q8_0/f16"]);
        assert_eq!(caches(&["-ctk", "f16,f32", "-ctv", "f32,q4_0"]), ["f16/f32", "f16/q4_0", "f32", "f32/q4_0"]);
        assert!(parse(&["-ctv", "q5_1"]).unwrap().settings().unwrap_err().to_string().contains("q8_0"));
    }

    #[test]
    fn nonsense_is_refused_with_what_to_write() {
        for (args, hint) in [
            (&["-fa", "off"][..], "always fused"),
            (&["-p", "many"], "FIRST-LAST"),
            (&["-pg", "512"], "PROMPT,ANSWER"),
            (&["-o", "xml"], "md, csv, json, jsonl or sql"),
            (&["--synthetic", "llama-9b:q4_0"], "llama-8b"),
            (&["--synthetic", "llama-8b:q4_9"], "q4_k_m"),
        ] {
            let e = parse(args).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(hint), "{args:?}: {e}");
        }
        assert!(parse(&["-fa", "1"]).is_ok());
    }
}
