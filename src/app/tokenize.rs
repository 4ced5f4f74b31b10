//! `tokenize`: the token ids of a text.

use super::args::ModelArgs;
use super::input::{self, TextArgs};
use super::{pull, term};
use crate::base::Result;
use crate::gguf::Gguf;
use crate::model::tokenizer_of;
use clap::Args;
use serde_json::{Value, json};
use std::ffi::OsString;

/// Arguments of `tokenize`.
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The text; the same as -p.
    text: Option<OsString>,
    #[command(flatten)]
    source: TextArgs,
    /// Add no beginning- and end-of-sequence tokens.
    #[arg(long, env = "WGPU_LLM_NO_SPECIAL")]
    no_special: bool,
    /// Print JSON.
    #[arg(long, env = "WGPU_LLM_JSON")]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

/// Prints the tokens. Needs only the vocabulary: any GGUF file that has one will do.
pub fn run(args: &TokenizeArgs) -> Result<()> {
    let written = args.text.as_deref().or(args.source.prompt.as_deref());
    let text = input::text(written, args.source.file.as_deref())?;
    let path = pull::hub(args.model.offline)?.resolve(&args.model.name()?)?;
    let tokenizer = tokenizer_of(&Gguf::open(&path)?).map_err(|e| e.at(path.display()))?;
    let ids = tokenizer.encode(&[args.source.segment(&text)], !args.no_special)?;
    if args.json {
        let piece = |id: &u32| String::from_utf8_lossy(tokenizer.token_bytes(*id)).into_owned();
        let pieces: Vec<Value> = ids.iter().map(|id| json!({"id": id, "piece": piece(id)})).collect();
        return term::print(format_args!("{}\n", json!({"tokens": ids, "pieces": pieces})));
    }
    let rows = ids.iter().map(|id| format!("{id:>7}  {:?}\n", String::from_utf8_lossy(tokenizer.token_bytes(*id))));
    term::print(rows.collect::<String>())
}
