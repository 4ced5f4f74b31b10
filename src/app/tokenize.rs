//! `tokenize`: the token ids of a text.

use super::args::ModelArgs;
use super::{pull, term};
use crate::base::Result;
use crate::gguf::Gguf;
use crate::model::tokenizer_of;
use clap::Args;
use serde_json::{Value, json};

/// Arguments of `tokenize`.
#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// The text. Without it: standard input.
    text: Option<String>,
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
    let text = match &args.text {
        Some(text) => text.clone(),
        None => term::read_stdin()?,
    };
    let path = pull::hub(args.model.offline)?.resolve(&args.model.name()?)?;
    let tokenizer = tokenizer_of(&Gguf::open(&path)?).map_err(|e| e.at(path.display()))?;
    let ids = tokenizer.encode_text(&text, !args.no_special)?;
    if args.json {
        let piece = |id: &u32| String::from_utf8_lossy(tokenizer.token_bytes(*id)).into_owned();
        let pieces: Vec<Value> = ids.iter().map(|id| json!({"id": id, "piece": piece(id)})).collect();
        return term::print(format_args!("{}\n", json!({"tokens": ids, "pieces": pieces})));
    }
    let rows = ids.iter().map(|id| format!("{id:>7}  {:?}\n", String::from_utf8_lossy(tokenizer.token_bytes(*id))));
    term::print(rows.collect::<String>())
}
