//! `synth`: a model file with the shape and the formats of a real one and random weights, to measure this and other runtimes.

use super::hub::progress::Progress;
use super::term;
use crate::base::Result;
use crate::cpu::ThreadPool;
use crate::model::synth::Synthetic;
use clap::Args;
use std::path::PathBuf;

/// Arguments of `synth`.
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// SHAPE:FORMAT, as in llama-1b:q4_0, llama-8b:q4_k_m, qwen3-30b-a3b:q4_k_m, gpt-oss-20b.
    #[arg(value_name = "SHAPE:FORMAT")]
    model: Synthetic,
    /// The file to write.
    #[arg(short, long, value_name = "FILE", required = true, env = "WGPU_LLM_OUTFILE")]
    outfile: PathBuf,
}

/// Writes the file.
pub fn run(args: &SynthArgs) -> Result<()> {
    let mut bar = Progress::new("making", &args.model.to_string(), args.model.bytes()?, false);
    let mut step = |done| {
        bar.set(done);
        term::check_interrupt()
    };
    args.model.write(&args.outfile, &ThreadPool::per_core(), &mut step)
}
