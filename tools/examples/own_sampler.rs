//! A sampler of one's own, on logits: `cargo run --release --example own_sampler -- model.gguf`
//!
//! It takes the likeliest token of letters alone, so that the text has neither digits nor marks.

use std::sync::Arc;
use wgpu_llm::low_level::model::Model;
use wgpu_llm::low_level::plan::Options;
use wgpu_llm::low_level::run::Session;
use wgpu_llm::low_level::text::Segment;

fn main() -> wgpu_llm::Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "model.gguf".into());
    let model = Arc::new(Model::open(path)?);
    // On the CPU: a device in place of None is a GPU.
    let mut session = Session::new(model.clone(), None, Options { context: 256, ..Options::default() })?;
    let tokenizer = model.tokenizer()?;
    let mut next = tokenizer.encode(&[Segment::Text("The sea is")], true)?;
    for _ in 0..12 {
        let logits = session.logits(&next, &[next.len() - 1])?.remove(0);
        let is_word = |id: u32| {
            let bytes = tokenizer.token_bytes(id).trim_ascii_start();
            !bytes.is_empty() && bytes.iter().all(u8::is_ascii_alphabetic)
        };
        let best = (0..logits.len() as u32).filter(|id| is_word(*id));
        let Some(token) = best.max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize])) else { break };
        print!("{}", String::from_utf8_lossy(tokenizer.token_bytes(token)));
        next = vec![token];
    }
    println!();
    Ok(())
}
